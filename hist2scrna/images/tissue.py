"""Tissue detection: stained ground is separated from glass on a thumbnail of the image."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hist2scrna.images.base import thumbnail, to_image_pixels
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.images.base import SectionImage

log = logging.getLogger(__name__)

GLASS_PERCENTILE = 99
# Glass that is this much pinker than it is green shows that there is none in the image.
PINK = 1.12
OF_OTSU, FAINTEST, DARKEST = 0.5, 0.04, 0.2
# Densities of green: ink and dust absorb blue as green does, blue ink and green ink more red than both stains.
LEAST_COLOR, MOST_RED = 0.1, 1.4

THUMBNAIL_UM, FEWEST_PX, MOST_PX = 5.0, 512, 2048
BLUR_UM = 6.0
# A piece of tissue, or a hole in it, that is smaller than 80 um across is dust, or a lumen.
SMALLEST_UM2 = 5000.0
RAYS = 64


def glass_color(image: NDArray[np.uint8], blur: float) -> tuple[NDArray[np.float64], bool]:
    """Return the color of bare glass, `(3,)` in 0..255, and whether the image shows any.

    The 99th percentile of each color after a Gaussian blur of `blur` pixels. Where that is pink the image is tissue
    all over, and white of the same brightness is returned.
    """
    from skimage.filters import gaussian

    blurred = gaussian(image.astype(np.float32), blur, channel_axis=-1, preserve_range=True)
    glass = np.percentile(blurred.reshape(-1, 3), GLASS_PERCENTILE, axis=0).clip(1)
    if min(glass[0], glass[2]) > PINK * glass[1]:
        return np.full(3, glass.max()), False
    return glass.astype(np.float64), True


def stained_ground(image: NDArray[np.uint8], blur: float) -> NDArray[np.bool_]:
    """Tell stained ground from glass, gray dust and ink.

    Hematoxylin and eosin both absorb green. Its optical density relative to the glass, blurred, must exceed half of
    Otsu's threshold (within 0.04 to 0.2); eosin that has run onto the glass stays below. What absorbs blue as much as
    green is gray (dust, black ink) or red ink, and what absorbs red much more is blue or green ink: neither is tissue.
    Source of the threshold: Otsu, A threshold selection method from gray-level histograms, IEEE Trans. SMC 1979.

    Parameters
    ----------
    image
        `(h, w, 3)` uint8.
    blur
        Standard deviation of the Gaussian in pixels.

    Returns
    -------
    `(h, w)` bool; nowhere true if the image is all of one color.
    """
    from skimage.filters import gaussian, threshold_otsu

    glass, shown = glass_color(image, blur)
    density = np.log10(glass / np.maximum(image, 1)).clip(0)
    red, green, blue = np.moveaxis(gaussian(density, blur, channel_axis=-1), -1, 0)
    threshold = float(np.clip(OF_OTSU * threshold_otsu(green), FAINTEST, DARKEST)) if shown else FAINTEST
    return (green > threshold) & (green - blue > LEAST_COLOR * green) & (red < MOST_RED * green)


@dataclass(frozen=True)
class TissueMask:
    """Tissue of one section, on a thumbnail.

    Attributes
    ----------
    mask
        `(h, w)`, true on tissue.
    scale
        Pixels of the mask per full-resolution pixel.
    glass
        `(3,)` color of bare glass in 0..255.
    """

    mask: NDArray[np.bool_]
    scale: float
    glass: NDArray[np.float64]

    def at(self, xy: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Tell which points `(..., 2)`, full-resolution pixels, lie on tissue; points off the image do not."""
        column, row = np.moveaxis(np.floor(to_image_pixels(xy, self.scale)).astype(np.int64), -1, 0)
        height, width = self.mask.shape
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        return inside & self.mask[row.clip(0, height - 1), column.clip(0, width - 1)]

    def fraction(self, xy: NDArray[np.floating], diameter: float) -> NDArray[np.float32]:
        """Return the fraction of each disc that is tissue, from 64 points spread evenly over it.

        Parameters
        ----------
        xy
            `(n, 2)` centers in full-resolution pixels.
        diameter
            Diameter of the discs in full-resolution pixels.
        """
        # Points of a sunflower: equal areas, turned by the golden angle (Vogel, Math. Biosci. 1979).
        number = np.arange(RAYS)
        radius = diameter / 2 * np.sqrt((number + 0.5) / RAYS)
        angle = number * np.pi * (3 - np.sqrt(5))
        hits = np.zeros(len(xy), dtype=np.float32)
        for offset in np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1):
            hits += self.at(xy + offset)
        return hits / np.float32(RAYS)


def tissue_mask(image: SectionImage, mpp: float) -> TissueMask:
    """Find the tissue on a thumbnail of about 5 um a pixel (512 to 2,048 pixels), whatever the size of the image.

    Stained ground (:func:`stained_ground`, blurred by 6 um) without pieces, and with holes filled, below 5,000 um2.

    Parameters
    ----------
    image
        The image.
    mpp
        Microns per full-resolution pixel.

    Raises
    ------
    ValueError
        If there is no tissue.
    """
    longest = max(image.size()) / image.scale * mpp
    small, scale = thumbnail(image, int(np.clip(longest / THUMBNAIL_UM, FEWEST_PX, MOST_PX)))
    pixel = mpp / scale
    blur = max(1.0, BLUR_UM / pixel)
    smallest = SMALLEST_UM2 / pixel**2
    mask = ~large_pieces(~large_pieces(stained_ground(small, blur), smallest), smallest)
    if not mask.any():
        raise ValueError(
            f"No tissue found in the image ({image.origin}): nothing stained by hematoxylin or eosin covers "
            f"{SMALLEST_UM2:g} um2 at {mpp:g} um a pixel. Check that it is the H&E image, and mpp=."
        )
    log.log(HINT, "tissue covers %.0f %% of the image (%s)", 100 * mask.mean(), image.origin)
    return TissueMask(mask, scale, glass_color(small, blur)[0])


def large_pieces(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Return the connected pieces of at least `smallest` pixels."""
    from scipy.ndimage import label

    piece, _ = label(mask)
    large = np.bincount(piece.ravel()) >= smallest
    large[0] = False
    return large[piece]


def lattice_points(
    width: float, height: float, spacing: float, lattice: Literal["hexagonal", "square"]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the points of a lattice over an image, row by row, and their column and row on it.

    The lattice is centered on the image, so that what is left over is shared by both sides. On a hexagonal one every
    second row is shifted by half the spacing, and columns count in half steps: column and row are both even or both
    odd, as on Visium.

    Parameters
    ----------
    width, height, spacing
        Size of the image and distance between neighbors, in the same unit.
    lattice
        `"hexagonal"` or `"square"`.

    Returns
    -------
    `(n, 2)` x and y, and `(n, 2)` column and row.
    """
    shifted = lattice == "hexagonal"
    across, down = (spacing / 2, spacing * np.sqrt(3) / 2) if shifted else (spacing, spacing)
    columns, rows = (int(edge // step) + 1 for edge, step in ((width, across), (height, down)))
    place = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    if shifted:
        place = place[place.sum(axis=1) % 2 == 0]
    margin = (np.array([width, height]) - (np.array([columns, rows]) - 1) * (across, down)) / 2
    return place * (across, down) + margin, place
