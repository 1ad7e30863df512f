"""Statistics of patches of H&E by hand: stain, color and texture, the same for every flip and quarter turn."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# The patch on the spot, and one three times as wide.
FIELDS_OF_VIEW = {"spot": 1, "wide": 3}
# Nuclei are some 8 um wide: at 1 um a pixel their texture is seen, whatever the camera.
PIXEL_UM, FEWEST_PX = 1.0, 32
CHUNK_PIXELS = 2**20
QUANTILES = (5, 25, 50, 75, 95)
# Standard deviations of the Gaussians in pixels; the difference of two neighbors is one band of texture.
BLURS = (1.0, 2.0, 4.0, 8.0)
NUCLEAR_BAND = 1
# Lower peaks of the nuclear band are grain.
BLOB_HEIGHT = 0.01
# Gray levels of the co-occurrence matrix, the density of the highest, and the distances in pixels.
LEVELS, DENSEST, DISTANCES = 8, 0.25, (1, 3)
TEXTURE = ("contrast", "homogeneity", "ASM", "entropy", "correlation")
# Smaller spreads of a density are taken as none, and darker colors as this dark: eight bits tell no more.
FLAT, DARKEST = 1e-3, 1 / 255


def describe(patches: Tensor) -> Tensor:
    """Return the statistics of patches `(n, 3, h, w)` in 0..1 as `(n, 52)`, on their device; without gradients."""
    pixels = patches.detach().float().cpu().numpy()
    size = max(1, CHUNK_PIXELS // (pixels.shape[-1] * pixels.shape[-2]))
    rows = [
        np.stack(list(patch_statistics(pixels[start : start + size]).values()), axis=1)
        for start in range(0, len(pixels), size)
    ]
    return torch.from_numpy(np.concatenate(rows)).to(patches.device)


def describe_middle(patches: Tensor, um: float, spot_um: float) -> Tensor:
    """Return the statistics of the middle of patches in two fields of view, at 1 and 3 um a pixel, as `(n, 104)`.

    Parameters
    ----------
    patches
        `(n, 3, px, px)`, uint8, or float in 0..1.
    um
        Their side in microns.
    spot_um
        Side of the patch on the spot in microns. The wide one is three times as wide, or as wide as there is.
    """
    pixels = patches.detach().float() / 255 if patches.dtype == torch.uint8 else patches.detach().float()
    px = max(FEWEST_PX, round(spot_um / PIXEL_UM))
    views = [describe(_middle(pixels, wider * spot_um / um, px)) for wider in FIELDS_OF_VIEW.values()]
    return torch.cat(views, dim=1)


def _middle(patches: Tensor, share: float, px: int) -> Tensor:
    """Return the middle of patches, a share of their side, at `px` pixels a side."""
    side = min(patches.shape[-1], round(share * patches.shape[-1]))
    start = (patches.shape[-1] - side) // 2
    middle = patches[..., start : start + side, start : start + side]
    if side == px:
        return middle
    return interpolate(middle, size=(px, px), mode="bilinear", antialias=True)


@cache
def feature_names() -> tuple[str, ...]:
    """Return the names of the features, in order: those of the patch on the spot first."""
    statistics = patch_statistics(np.zeros((1, 3, 8, 8), dtype=np.uint8))
    return tuple(f"{view}_{name}" for view in FIELDS_OF_VIEW for name in statistics)


def patch_statistics(patches: NDArray[np.uint8] | NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Describe each patch by stain, color and texture.

    The statistics are the same for the eight flips and quarter turns of a patch. Lengths are pixels: cut the patches at
    one size of pixel (1 um shows nuclei) for the numbers to compare.

    Parameters
    ----------
    patches
        `(n, 3, h, w)` uint8, or float32 in 0..1.

    Returns
    -------
    By name, `(n,)` float32 each:

    `{red,green,blue}_{mean,sd}`
        In 0..1.
    `hue_cos`, `hue_sin`, `saturation_{mean,sd}`
        Hue as a direction, weighted by the saturation and averaged; the saturation in 0..1.
    `{hematoxylin,eosin}_{mean,sd,q05,q25,q50,q75,q95}`, `stain_correlation`
        Of the densities of color deconvolution, as :func:`skimage.color.rgb2hed` scales them, and their correlation
        over the pixels (0 where one is flat). Source: Ruifrok and Johnston, Quantification of histochemical staining by
        color deconvolution, Anal. Quant. Cytol. Histol. 2001.
    `{hematoxylin,eosin}_band{0..3}_{sd,skew}`
        Log10 standard deviation and skewness of the density between two Gaussian blurs of 1, 2, 4 and 8 pixels; the
        last band is all that is coarser.
    `hematoxylin_blobs`
        Peaks of the band of 2 to 4 pixels, per 1,000 pixels: at 1 um a pixel, about the nuclei.
    `hematoxylin_{contrast,homogeneity,ASM,entropy,correlation}_{1,3}`
        Of the gray-level co-occurrence matrix at 1 and 3 pixels, summed over the four directions, of the density in 8
        levels. Source: Haralick et al., Textural features for image classification, IEEE Trans. SMC 1973.

    Raises
    ------
    ValueError
        If the patches are not `(n, 3, h, w)` uint8 or float32 with sides of 8 pixels or more.
    """
    known = patches.dtype in (np.uint8, np.float32)
    if patches.ndim != 4 or patches.shape[1] != 3 or min(patches.shape[2:]) < 8 or not known:
        raise ValueError(
            "Expected patches of shape (n, 3, h, w), uint8 or float32, with sides of 8 pixels or more, found "
            f"{patches.shape} {patches.dtype}."
        )
    from skimage.color import rgb2hed

    scale = np.float32(255 if patches.dtype == np.uint8 else 1)
    colors = np.moveaxis(patches, 1, -1).astype(np.float32) / scale
    hematoxylin, eosin = np.moveaxis(rgb2hed(np.maximum(colors, DARKEST))[..., :2], -1, 0)
    statistics = _color(colors)
    for name, density in (("hematoxylin", hematoxylin), ("eosin", eosin)):
        pixels = density.reshape(len(density), -1)
        statistics |= {f"{name}_mean": pixels.mean(axis=1), f"{name}_sd": pixels.std(axis=1)}
        statistics |= {
            f"{name}_q{q:02d}": value
            for q, value in zip(QUANTILES, np.percentile(pixels, QUANTILES, axis=1), strict=True)
        }
        statistics |= _bands(name, density)
    statistics["stain_correlation"] = _correlation(hematoxylin, eosin)
    for distance in DISTANCES:
        statistics |= _co_occurrence(hematoxylin, distance)
    return {name: np.asarray(value, dtype=np.float32) for name, value in statistics.items()}


def _color(colors: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
    from skimage.color import rgb2hsv

    statistics: dict[str, NDArray[np.floating]] = {}
    for channel, name in enumerate(("red", "green", "blue")):
        statistics |= {f"{name}_mean": colors[..., channel].mean(axis=(1, 2))}
        statistics |= {f"{name}_sd": colors[..., channel].std(axis=(1, 2))}
    hue, saturation, _ = np.moveaxis(rgb2hsv(colors), -1, 0)
    direction = 2 * np.pi * hue
    statistics |= {"hue_cos": (saturation * np.cos(direction)).mean(axis=(1, 2))}
    statistics |= {"hue_sin": (saturation * np.sin(direction)).mean(axis=(1, 2))}
    statistics |= {"saturation_mean": saturation.mean(axis=(1, 2)), "saturation_sd": saturation.std(axis=(1, 2))}
    return statistics


def _bands(name: str, density: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
    from scipy.ndimage import gaussian_filter, maximum_filter

    blurred = [gaussian_filter(density, sigma, axes=(1, 2), mode="reflect") for sigma in BLURS]
    coarser = [*blurred[1:], blurred[-1].mean(axis=(1, 2), keepdims=True)]
    statistics = {}
    for number, (fine, coarse) in enumerate(zip(blurred, coarser, strict=True)):
        band = fine - coarse
        band -= band.mean(axis=(1, 2), keepdims=True)
        square = band * band
        variance = square.mean(axis=(1, 2))
        statistics[f"{name}_band{number}_sd"] = np.log10(np.sqrt(variance) + FLAT)
        statistics[f"{name}_band{number}_skew"] = (square * band).mean(axis=(1, 2)) / (variance + FLAT**2) ** 1.5
    if name == "hematoxylin":
        band = blurred[NUCLEAR_BAND] - blurred[NUCLEAR_BAND + 1]
        peaks = (band >= maximum_filter(band, size=3, axes=(1, 2), mode="reflect")) & (band > BLOB_HEIGHT)
        statistics[f"{name}_blobs"] = 1000 * peaks.mean(axis=(1, 2))
    return statistics


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.floating]:
    first, second = (x - x.mean(axis=(1, 2), keepdims=True) for x in (first, second))
    spread = np.sqrt((first**2).mean(axis=(1, 2)) * (second**2).mean(axis=(1, 2)))
    return (first * second).mean(axis=(1, 2)) / (spread + FLAT**2)


def _co_occurrence(density: NDArray[np.float32], distance: int) -> dict[str, NDArray[np.floating]]:
    from skimage.feature import graycoprops

    n, height, width = density.shape
    level = np.clip(density * (LEVELS / DENSEST), 0, LEVELS - 1).astype(np.intp)
    shelf = np.arange(n)[:, None, None] * LEVELS**2 + LEVELS * level
    counts = np.zeros((n, LEVELS, LEVELS))
    for down, right in ((0, distance), (distance, 0), (distance, distance), (distance, -distance)):
        left, clipped = max(0, -right), max(0, right)
        here = shelf[:, : height - down, left : width - clipped]
        there = level[:, down:, clipped : width - left]
        counts += np.bincount((here + there).ravel(), minlength=counts.size).reshape(counts.shape)
    counts += counts.transpose(0, 2, 1)
    matrices = counts.transpose(1, 2, 0)[..., None]
    return {f"hematoxylin_{what}_{distance}": graycoprops(matrices, what)[:, 0] for what in TEXTURE}
