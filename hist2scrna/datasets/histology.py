"""A simulated piece of tissue and its H&E image: type domains, nuclei, stains.

Coordinates are micrometers, x to the right and y down, from the upper left corner of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

# Stain vectors in optical density (R, G, B): Macenko et al., ISBI 2009.
HEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)
STEP = 3.0
# Fibers are waves of this number of radians per micrometer, bent by a random field times this many radians.
FIBER_WAVE, FIBER_BEND = 2 * math.pi / 14.0, 20.0


@dataclass(frozen=True)
class Morphology:
    """How a cell type looks: lengths in micrometers, stains in natural optical density along the stain vector."""

    name: str
    spacing: float  # hard-core distance between nuclei; their density comes to about 0.6 / spacing^2
    radius: float  # geometric mean of the half axes
    aspect: float
    nucleus: float  # hematoxylin in nuclei
    cytoplasm: float  # hematoxylin between them
    eosin: float
    fibers: float  # fraction of the eosin that lies in fibers


MORPHOLOGIES = (
    Morphology(
        "epithelial", spacing=10.5, radius=4.1, aspect=1.25, nucleus=1.0, cytoplasm=0.30, eosin=0.40, fibers=0.1
    ),
    Morphology("lymphoid", spacing=7.2, radius=2.8, aspect=1.08, nucleus=1.7, cytoplasm=0.12, eosin=0.20, fibers=0.1),
    Morphology("stromal", spacing=17.0, radius=3.0, aspect=3.4, nucleus=1.3, cytoplasm=0.02, eosin=0.42, fibers=0.7),
    Morphology("muscle", spacing=15.0, radius=2.6, aspect=4.2, nucleus=1.1, cytoplasm=0.05, eosin=0.80, fibers=0.4),
    Morphology("plasma", spacing=9.5, radius=3.1, aspect=1.20, nucleus=1.5, cytoplasm=0.55, eosin=0.45, fibers=0.1),
    Morphology("necrotic", spacing=14.0, radius=1.9, aspect=1.10, nucleus=2.0, cytoplasm=0.12, eosin=0.70, fibers=0.0),
    Morphology(
        "endothelial", spacing=12.0, radius=3.2, aspect=2.4, nucleus=1.4, cytoplasm=0.08, eosin=0.28, fibers=0.5
    ),
    Morphology("adipose", spacing=24.0, radius=2.4, aspect=2.6, nucleus=1.5, cytoplasm=0.01, eosin=0.08, fibers=0.6),
)


def smooth_field(rng: np.random.Generator, size: tuple[float, float], length: float) -> RectBivariateSpline:
    """Draw a stationary Gaussian random field, mean 0 and variance 1, as a function of (y, x).

    Parameters
    ----------
    rng
        Source of randomness.
    size
        Height and width of the domain.
    length
        Standard deviation of the Gaussian kernel that smooths white noise; the correlation between two points `r`
        apart is `exp(-r^2 / (4 length^2))`.
    """
    step = length / 4
    y, x = (np.arange(-step, extent + 2 * step, step) for extent in size)
    # The kernel has sum 1 and sum of squares 1 / (4 pi 4^2).
    noise = gaussian_filter(rng.standard_normal((len(y), len(x))), 4.0, mode="wrap") * math.sqrt(4 * math.pi * 16)
    return RectBivariateSpline(y, x, noise, kx=min(3, len(y) - 1), ky=min(3, len(x) - 1))


class Domains:
    """Smooth domains of cell types: at each place, the type whose random field is largest.

    Parameters
    ----------
    rng
        Source of randomness.
    size
        Height and width.
    length
        Smoothing length of the fields; domains are about three times as wide.
    n_types
        Number of types, the first of :data:`MORPHOLOGIES`.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[float, float], length: float, n_types: int) -> None:
        self.size = size
        self.morphologies = MORPHOLOGIES[:n_types]
        self._fields = [smooth_field(rng, size, length) for _ in self.morphologies]
        self._ragged = [smooth_field(rng, size, max(length / 6, 3.0)) for _ in self.morphologies]
        self._islands: list[tuple[int, float, float, float, float]] = []

    def _values(self, y: NDArray, x: NDArray, *, grid: bool) -> NDArray:
        values = np.stack([field(y, x, grid=grid) for field in self._fields])
        values += 0.12 * np.stack([field(y, x, grid=grid) for field in self._ragged])
        rows, columns = (y[:, None], x[None, :]) if grid else (y, x)
        for kind, center_x, center_y, radius, height in self._islands:
            distance2 = (rows - center_y) ** 2 + (columns - center_x) ** 2
            values[kind] += height * np.exp(-distance2 / (2 * radius**2))
        return values

    def types_at(self, xy: NDArray) -> NDArray[np.intp]:
        """Type at each of `xy`, (n, 2)."""
        return self._values(xy[:, 1], xy[:, 0], grid=False).argmax(axis=0)

    def raster(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
        """Coordinates y and x of a grid :data:`STEP` apart, and the type at each of its nodes."""
        y, x = (np.arange(0.0, extent + STEP, STEP) for extent in self.size)
        return y, x, self._values(y, x, grid=True).argmax(axis=0)

    def include_all_types(self, xy: NDArray, radius: float) -> None:
        """Add an island of `radius` for each type that none of `xy` has, as far as there are places enough."""
        for _ in range(4 * len(self.morphologies)):
            types = self.types_at(xy)
            count = np.bincount(types, minlength=len(self.morphologies))
            missing = np.flatnonzero(count == 0)
            spare = np.flatnonzero(count[types] > 1)
            if not len(missing) or not len(spare):
                return
            values = self._values(xy[:, 1], xy[:, 0], grid=False)
            lack = values.max(axis=0) - values[missing[0]]
            place = spare[lack[spare].argmin()]
            x, y = xy[place]
            self._islands.append((int(missing[0]), float(x), float(y), radius, float(lack[place]) + 0.5))


def place_nuclei(rng: np.random.Generator, domains: Domains) -> NDArray[np.float64]:
    """Draw nuclei from a hard-core process (random sequential adsorption) whose distance depends on the type.

    Returns
    -------
    Coordinates (x, y), shape (n, 2). Two nuclei are at least the mean of their types' `spacing` apart.
    """
    height, width = domains.size
    spacing = np.array([m.spacing for m in domains.morphologies])
    xy = rng.uniform(0, (width, height), size=(int(4 * height * width / spacing.min() ** 2) + 1, 2))
    # Wide spacings need fewer candidates: each type gets four per spacing^2.
    column, row = (xy / STEP).round().astype(int).T
    distance = spacing[domains.raster()[2][row, column]]
    keep = rng.random(len(xy)) < (spacing.min() / distance) ** 2
    xy, distance = xy[keep], distance[keep]
    pairs = cKDTree(xy).query_pairs(float(distance.max()), output_type="ndarray")
    gap = np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T)
    pairs = pairs[gap < (distance[pairs[:, 0]] + distance[pairs[:, 1]]) / 2]
    # Candidates come in the order of their index: one that conflicts with no earlier candidate left is taken and
    # strikes out its later conflicts. All such candidates of a round are independent.
    earlier, later = pairs.min(axis=1), pairs.max(axis=1)
    taken, left = np.zeros(len(xy), bool), np.ones(len(xy), bool)
    while left.any():
        first = left.copy()
        first[later] = False
        taken |= first
        left &= ~first
        left[later[first[earlier]]] = False
        both = left[earlier] & left[later]
        earlier, later = earlier[both], later[both]
    return xy[taken]


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
