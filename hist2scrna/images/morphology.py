"""Hand-made numbers of a patch of H&E: stain, color and texture, the same for every flip and quarter turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = (5, 25, 50, 75, 95)
# Standard deviations of the Gaussians in pixels; what lies between two of them is one band of texture.
BLURS = (1.0, 2.0, 4.0, 8.0)
NUCLEAR_BAND = 1
BLOB_HEIGHT = 0.01
# Gray levels of the co-occurrence matrix, the density of the highest, and the distances in pixels.
LEVELS, DENSEST, DISTANCES = 8, 0.25, (1, 3)
TEXTURE = ("contrast", "homogeneity", "ASM", "entropy", "correlation")
# Below these a density has no spread: float32 and eight-bit colors tell no more.
FLAT, DARKEST = 1e-3, 1 / 255


def patch_statistics(patches: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Describe each patch by stain, color and texture.

    The statistics are the same for the eight flips and quarter turns of a patch. Lengths are pixels: cut the patches at
    one size of pixel (1 um shows nuclei) for the numbers to compare.

    Parameters
    ----------
    patches
        `(n, 3, h, w)` uint8.

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
        If the patches are not `(n, 3, h, w)` uint8 with sides of 8 pixels or more.
    """
    if patches.ndim != 4 or patches.shape[1] != 3 or min(patches.shape[2:]) < 8 or patches.dtype != np.uint8:
        raise ValueError(
            f"Expected patches of shape (n, 3, h, w), uint8, with sides of 8 pixels or more, found {patches.shape} "
            f"{patches.dtype}."
        )
    from skimage.color import rgb2hed

    colors = np.moveaxis(patches, 1, -1).astype(np.float32) / np.float32(255)
    hematoxylin, eosin = np.moveaxis(rgb2hed(np.maximum(colors, DARKEST))[..., :2], -1, 0)
    found = _color(colors)
    for name, density in (("hematoxylin", hematoxylin), ("eosin", eosin)):
        pixels = density.reshape(len(density), -1)
        found |= {f"{name}_mean": pixels.mean(axis=1), f"{name}_sd": pixels.std(axis=1)}
        found |= {
            f"{name}_q{q:02d}": value
            for q, value in zip(QUANTILES, np.percentile(pixels, QUANTILES, axis=1), strict=True)
        }
        found |= _bands(name, density)
    found["stain_correlation"] = _correlation(hematoxylin, eosin)
    for distance in DISTANCES:
        found |= _co_occurrence(hematoxylin, distance)
    return {name: np.asarray(value, dtype=np.float32) for name, value in found.items()}


def _color(colors: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
    from skimage.color import rgb2hsv

    found: dict[str, NDArray[np.floating]] = {}
    for channel, name in enumerate(("red", "green", "blue")):
        found |= {f"{name}_mean": colors[..., channel].mean(axis=(1, 2))}
        found |= {f"{name}_sd": colors[..., channel].std(axis=(1, 2))}
    hue, saturation, _ = np.moveaxis(rgb2hsv(colors), -1, 0)
    direction = 2 * np.pi * hue
    found |= {"hue_cos": (saturation * np.cos(direction)).mean(axis=(1, 2))}
    found |= {"hue_sin": (saturation * np.sin(direction)).mean(axis=(1, 2))}
    found |= {"saturation_mean": saturation.mean(axis=(1, 2)), "saturation_sd": saturation.std(axis=(1, 2))}
    return found


def _bands(name: str, density: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
    from scipy.ndimage import gaussian_filter, maximum_filter

    blurred = [gaussian_filter(density, sigma, axes=(1, 2), mode="reflect") for sigma in BLURS]
    coarser = [*blurred[1:], blurred[-1].mean(axis=(1, 2), keepdims=True)]
    found = {}
    for number, (fine, coarse) in enumerate(zip(blurred, coarser, strict=True)):
        band = fine - coarse
        band -= band.mean(axis=(1, 2), keepdims=True)
        square = band * band
        variance = square.mean(axis=(1, 2))
        found[f"{name}_band{number}_sd"] = np.log10(np.sqrt(variance) + FLAT)
        found[f"{name}_band{number}_skew"] = (square * band).mean(axis=(1, 2)) / (variance + FLAT**2) ** 1.5
    if name == "hematoxylin":
        band = blurred[NUCLEAR_BAND] - blurred[NUCLEAR_BAND + 1]
        peaks = (band >= maximum_filter(band, size=3, axes=(1, 2), mode="reflect")) & (band > BLOB_HEIGHT)
        found[f"{name}_blobs"] = 1000 * peaks.mean(axis=(1, 2))
    return found


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
