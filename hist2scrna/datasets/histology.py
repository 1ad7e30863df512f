"""The H&E image of a simulated piece of tissue.

Coordinates are micrometers, x to the right and y down, from the upper left corner of the image.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from hist2scrna.datasets.tissue import Domains, Morphology, smooth_field

# Stain vectors in optical density (R, G, B): Macenko et al., ISBI 2009.
HEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)
# Fibers are waves of this number of radians per micrometer, bent by a random field times this many radians.
FIBER_WAVE, FIBER_BEND = 2 * math.pi / 14.0, 20.0


def draw(
    rng: np.random.Generator,
    domains: Domains,
    nuclei: NDArray,
    types: NDArray[np.intp],
    covered: NDArray,
    *,
    margin: float,
    mpp: float,
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float64]], NDArray[np.int32]]:
    """Draw tissue as H&E, by the Beer-Lambert law: intensity = background x exp(-(hematoxylin + eosin)).

    Stain vectors, stain amounts and background vary from call to call, as between stained sections.

    Parameters
    ----------
    rng
        Source of randomness.
    domains
        Domains of the types, for all that is not nucleus.
    nuclei
        Centers (x, y), shape (n, 2).
    types
        Type of each nucleus, shape (n,).
    covered
        Places (x, y), shape (n, 2), that the tissue covers.
    margin
        How far the tissue reaches beyond `covered`, about.
    mpp
        Micrometers per pixel.

    Returns
    -------
    Image, uint8 (H, W, 3); the stain: `vectors` (2, 3), `amounts` (2,), `background` (3,); and the nuclei on the pixels
    of the image, int32 (H, W): 0, or 1 + the number of the nucleus.
    """
    stain, looks = _vary_stain(rng), domains.morphologies
    height, width = (max(1, round(extent / mpp)) for extent in domains.size)
    y, x = (np.arange(height) + 0.5) * mpp, (np.arange(width) + 0.5) * mpp
    texture = gaussian_filter(rng.standard_normal((height, width)).astype(np.float32), max(0.7, 0.8 / mpp))
    texture /= texture.std()

    coarse_y, coarse_x, kinds = domains.raster()
    tissue = _tissue_mask(rng, domains.size, coarse_y, coarse_x, covered, margin)

    def spread(values: list[float]) -> NDArray:
        """Value of each type over the image, blurred by a few micrometers at the borders."""
        coarse = gaussian_filter(np.array(values)[kinds] * tissue, 1.0)
        return RectBivariateSpline(coarse_y, coarse_x, coarse, kx=1, ky=1)(y, x).astype(np.float32)

    hematoxylin = spread([m.cytoplasm for m in looks]) * (1 + 0.15 * texture)
    smooth_eosin = spread([m.eosin * (1 - m.fibers) for m in looks])
    fibrous_eosin = spread([m.eosin * m.fibers for m in looks])
    bend = smooth_field(rng, domains.size, 45.0)
    phase = FIBER_BEND * bend(y, x) + FIBER_WAVE * y[:, None]
    split = 2.5 * smooth_field(rng, domains.size, 9.0)(y, x)
    waves = (0.5 * np.sin(phase + split) + 0.5 * np.sin(1.7 * phase - 2 * split)).astype(np.float32)
    eosin = smooth_eosin * (1 + 0.12 * texture) + fibrous_eosin * (1 + 0.8 * waves + 0.3 * texture)

    inside = RectBivariateSpline(coarse_y, coarse_x, tissue, kx=1, ky=1).ev(nuclei[:, 1], nuclei[:, 0]) > 0.5
    chromatin, cover, label = _stamp_nuclei(rng, (height, width), nuclei[inside], types[inside], looks, bend, mpp)
    label = np.concatenate([[0], np.flatnonzero(inside) + 1]).astype(np.int32)[label]
    hematoxylin = hematoxylin * (1 - cover) + chromatin * (1 + 0.18 * texture)
    eosin *= 1 - 0.5 * cover

    amounts = np.stack([hematoxylin, eosin], axis=-1).clip(0) * stain["amounts"].astype(np.float32)
    density = amounts @ stain["vectors"].astype(np.float32)
    image = stain["background"].astype(np.float32) * np.exp(-density)
    image += rng.standard_normal((height, width, 1), dtype=np.float32) * 2.0
    return image.clip(0, 255).round().astype(np.uint8), stain, label


def _vary_stain(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    vectors = np.array([HEMATOXYLIN, EOSIN]) + rng.normal(0, 0.025, (2, 3))
    return {
        "vectors": vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        "amounts": np.exp(rng.normal(0, 0.1, 2)),
        "background": 242 + rng.normal(0, 3, 3).clip(-8, 8),
    }


def _tissue_mask(
    rng: np.random.Generator, size: tuple[float, float], y: NDArray, x: NDArray, covered: NDArray, margin: float
) -> NDArray[np.float64]:
    """Mark tissue (1) within about `margin` of `covered`, with a ragged edge, and glass (0) on the grid `y` x `x`."""
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    distance = cKDTree(covered).query(grid)[0].reshape(len(y), len(x))
    ragged = margin * (0.8 + 0.12 * smooth_field(rng, size, 0.3 * margin)(y, x))
    return (distance < ragged).astype(float)


def _stamp_nuclei(
    rng: np.random.Generator,
    shape: tuple[int, int],
    xy: NDArray,
    types: NDArray[np.intp],
    looks: tuple[Morphology, ...],
    bend: RectBivariateSpline,
    mpp: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Rasterize nuclei as uneven ellipses with soft edges and a darker rim: hematoxylin, cover in [0, 1], and number.

    A pixel has the number (from 1) of the nucleus that covers it most, if that covers at least half of it, else 0.
    """
    radius = np.array([m.radius for m in looks])[types] * np.exp(rng.normal(0, 0.14, len(xy)))
    aspect = np.array([m.aspect for m in looks])[types] * np.exp(rng.normal(0, 0.1, len(xy)))
    amount = np.array([m.nucleus for m in looks])[types] * np.exp(rng.normal(0, 0.12, len(xy)))
    # Spindle-shaped nuclei are aligned with the fibers; round ones have random orientations.
    slope_x, slope_y = bend.ev(xy[:, 1], xy[:, 0], dy=1), bend.ev(xy[:, 1], xy[:, 0], dx=1)
    aligned = (
        np.arctan2(FIBER_BEND * slope_y + FIBER_WAVE, FIBER_BEND * slope_x) + np.pi / 2 + rng.normal(0, 0.2, len(xy))
    )
    angle = np.where(aspect > 2, aligned, rng.uniform(0, np.pi, len(xy)))
    lobe = rng.uniform(0, 2 * np.pi, len(xy))
    long, short = radius * np.sqrt(aspect), radius / np.sqrt(aspect)

    hematoxylin, cover = (np.zeros(shape[0] * shape[1], np.float32) for _ in range(2))
    label = np.zeros(shape[0] * shape[1], np.int32)
    edge = max(0.6, mpp)
    reach = int(np.ceil((1.15 * long.max(initial=0) + edge) / mpp)) + 1
    offset = np.arange(-reach, reach + 1)
    chunk = max(1, 4_000_000 // len(offset) ** 2)
    for start in range(0, len(xy), chunk):
        part = slice(start, start + chunk)
        center = np.floor(xy[part] / mpp).astype(int)
        column, row = (center[:, axis, None] + offset for axis in (0, 1))
        dx = ((column + 0.5) * mpp - xy[part, 0, None])[:, None, :]
        dy = ((row + 0.5) * mpp - xy[part, 1, None])[:, :, None]
        cos, sin = (f(angle[part])[:, None, None] for f in (np.cos, np.sin))
        u, v = (dx * cos + dy * sin) / long[part, None, None], (dy * cos - dx * sin) / short[part, None, None]
        rho = np.hypot(u, v) * (1 + 0.05 * np.cos(3 * np.arctan2(v, u) + lobe[part, None, None]))
        solid = np.clip((1 - rho) * short[part, None, None] / edge + 0.5, 0, 1)
        valid = (
            (solid > 0)
            & ((row >= 0) & (row < shape[0]))[:, :, None]
            & ((column >= 0) & (column < shape[1]))[:, None, :]
        )
        pixel = (row[:, :, None] * shape[1] + column[:, None, :])[valid]
        covered = solid[valid].astype(np.float32)
        np.maximum.at(cover, pixel, covered)
        most = (covered == cover[pixel]) & (covered >= 0.5)
        label[pixel[most]] = start + 1 + np.nonzero(valid)[0][most]
        dark = amount[part, None, None] * solid * (0.78 + 0.3 * rho.clip(0, 1) ** 2)
        np.maximum.at(hematoxylin, pixel, dark[valid].astype(np.float32))
    return hematoxylin.reshape(shape), cover.reshape(shape), label.reshape(shape)
