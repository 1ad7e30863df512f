"""Segmentation of nuclei in H&E by color, threshold and watershed; the result does not depend on the tiles."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hist2scrna.images.nucleus_measures import measure_nuclei
from hist2scrna.images.tissue import MOST_RED, large_pieces
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.images.base import SectionImage
    from hist2scrna.images.tissue import TissueMask

log = logging.getLogger(__name__)

PIXEL_UM = 0.5
# Coarser than this, a nucleus is a few pixels.
COARSEST_UM = 1.5

# All lengths in pixels of 0.5 um.
SMOOTH, SURROUND, BLOB = 1.5, 12.0, 4.0
TRUNCATE = 3.0
OPENING, LARGEST_HOLE = 2, 40
# Depth inside a nucleus beyond which it counts no more: 10 um, more than the radius of any.
DEEPEST = 20
# A nucleus lies within this distance of the first pixel of its seed.
REACH = 40
# How far all steps together look beyond a tile.
HALO = 144
# Hematoxylin must exceed its surroundings, within these multiples of the threshold of the section.
LEAST, MOST, FAINTEST = 0.85, 3.0, 0.03
# A trough this deep, in pixels of distance to the rim, parts two nuclei; contrast counts as distance.
CONTRAST, TROUGH, STEPS = 7.0, 1.0, 16

SAMPLES, SAMPLE_PX = 48, 256
MEASURED = {
    "area": "area_um2",
    "perimeter": "perimeter_um",
    "major": "major_axis_um",
    "minor": "minor_axis_um",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "orientation": "orientation_deg",
    "hematoxylin": "hematoxylin",
}
UNITS = {"area_um2": PIXEL_UM**2, "perimeter_um": PIXEL_UM, "major_axis_um": PIXEL_UM, "minor_axis_um": PIXEL_UM}


def hematoxylin_density(image: NDArray[np.uint8], glass: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the density of hematoxylin, as :func:`skimage.color.rgb2hed` scales it, relative to the glass.

    Zero in ink, which absorbs red much more than green. Source: Ruifrok and Johnston, Quantification of histochemical
    staining by color deconvolution, Anal. Quant. Cytol. Histol. 2001.

    Parameters
    ----------
    image
        `(h, w, 3)` uint8.
    glass
        `(3,)` color of bare glass in 0..255.
    """
    from skimage.color import hed_from_rgb

    # A lookup table gives the same color the same value in every window.
    shade = np.maximum(np.arange(256), 1)
    table = [np.log10(bare / shade).clip(0).astype(np.float32) for bare in glass]
    red, green, blue = (table[i][image[..., i]] for i in range(3))
    weight = (hed_from_rgb[:, 0] / 6).astype(np.float32)
    density = np.maximum(weight[0] * red + weight[1] * green + weight[2] * blue, 0)
    density[red > MOST_RED * green + 0.05] = 0
    return density


class NucleusSegmenter:
    """Finds the nuclei of one image in pixels of 0.5 um, one tile at a time.

    Hematoxylin is taken apart by its color and smoothed. A pixel is nuclear where it exceeds the mean around it (6
    um), within 0.85 to 3 times the threshold of the section, which is Otsu's on windows spread over the tissue. Seeds
    are the maxima of the distance to the rim plus the local contrast of hematoxylin, taken together where no trough
    parts them; a watershed from the seeds gives each its pixels (Malpica et al., Applying watershed algorithms to the
    segmentation of clustered nuclei, Cytometry 1997; Otsu, IEEE Trans. SMC 1979).

    Every step looks at most 72 um far, and a tile is read with that margin. A nucleus belongs to the tile that holds
    the first pixel of its seed, and must lie within 20 um of it: so each is found once, whole, and alike in all tiles.

    Parameters
    ----------
    image
        The image.
    mpp
        Microns per full-resolution pixel.
    tissue
        Where the tissue is: seeds elsewhere are left out.

    Raises
    ------
    ValueError
        If the pixels of the image are larger than 1.5 um.
    """

    def __init__(self, image: SectionImage, mpp: float, tissue: TissueMask) -> None:
        finest = mpp / image.scale
        if finest > COARSEST_UM:
            raise ValueError(
                f"The pixels of the image ({image.origin}) are {finest:.3g} um wide: nuclei cannot be told apart "
                f"above {COARSEST_UM:g} um. Give the full-resolution image, or check mpp=."
            )
        self.image = ResampledImage(image, mpp, PIXEL_UM)
        self.tissue = tissue
        self.threshold = self._section_threshold()
        log.log(HINT, "nuclei: threshold of hematoxylin %.4f (%s)", self.threshold, image.origin)

    def tiles(self, side: int) -> list[tuple[int, int, int, int]]:
        """Return x, y, width and height of the tiles, `side` pixels of 0.5 um or less, that hold tissue."""
        width, height = self.image.size
        mask_scale = self.tissue.scale * self.image.full_resolution
        tiles = []
        for y in range(0, height, side):
            for x in range(0, width, side):
                right, bottom = min(x + side, width), min(y + side, height)
                first, last = np.floor(np.array([x, y]) * mask_scale), np.ceil(np.array([right, bottom]) * mask_scale)
                (left, top), (after, below) = first.astype(int), last.astype(int)
                if self.tissue.mask[top:below, left:after].any():
                    tiles.append((x, y, right - x, bottom - y))
        return tiles

    def nuclei(self, x: int, y: int, width: int, height: int) -> pd.DataFrame:
        """Return the nuclei of one tile.

        Returns
        -------
        One row a nucleus: `seed_x`, `seed_y`, the first pixel of its seed (pixels of 0.5 um, which names it); `x`, `y`,
        its centroid in full-resolution pixels; and the columns of :data:`MEASURED`.
        """
        left, top = x - HALO, y - HALO
        density = self._density(left, top, width + 2 * HALO, height + 2 * HALO)
        label, seed = self._label(density, left, top)
        row, column = np.unravel_index(seed, label.shape)
        name = np.stack([column + left, row + top], axis=1)
        owned = ((name >= (x, y)) & (name < (x + width, y + height))).all(axis=1)
        owned &= self.tissue.at((name + 0.5) * self.image.full_resolution)
        label = np.where(np.concatenate([[False], owned])[label], label, 0)
        measured = measure_nuclei(label, density)
        name = name[measured.index.to_numpy(dtype=np.int64) - 1]
        x_in, y_in = (name - (left, top)).T
        far = np.stack(
            [x_in - measured["left"], measured["right"] - x_in, y_in - measured["top"], measured["bottom"] - y_in]
        ).max(axis=0)
        nuclei = measured[list(MEASURED)].rename(columns=MEASURED)
        for key, unit in UNITS.items():
            nuclei[key] *= unit
        nuclei[["x", "y"]] = (measured[["x", "y"]].to_numpy() + (left, top)) * self.image.full_resolution
        nuclei[["seed_x", "seed_y"]] = name
        # At the border, where the image goes on with its last color, a nucleus may have its middle beyond.
        middle = nuclei[["x", "y"]].to_numpy()
        size = np.array(self.image.image.size()) / self.image.image.scales[0]
        on_image = ((middle >= 0) & (middle < size)).all(axis=1)
        return nuclei[(far <= REACH) & on_image]

    def _density(self, x: int, y: int, width: int, height: int) -> NDArray[np.float32]:
        return hematoxylin_density(self.image.read(x, y, width, height), self.tissue.glass)

    def _section_threshold(self) -> float:
        """Otsu's threshold of smoothed hematoxylin over windows drawn, always alike, from the tissue."""
        from scipy.ndimage import gaussian_filter
        from skimage.filters import threshold_otsu

        windows = self.tiles(SAMPLE_PX)
        drawn = np.random.default_rng(0).permutation(len(windows))[:SAMPLES]
        pixels = []
        for x, y, width, height in (windows[i] for i in drawn):
            smooth = gaussian_filter(self._density(x, y, width, height), SMOOTH, truncate=TRUNCATE)
            grid = np.stack(np.meshgrid(np.arange(x, x + width), np.arange(y, y + height)), axis=-1)
            pixels.append(smooth[self.tissue.at((grid + 0.5) * self.image.full_resolution)])
        return max(FAINTEST, float(threshold_otsu(np.concatenate(pixels))))

    def _label(self, density: NDArray[np.float32], left: int, top: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the number of the nucleus at each pixel, 0 for none, and the first pixel of the seed of each."""
        from scipy.ndimage import binary_opening, distance_transform_edt, gaussian_filter, label
        from skimage.morphology import local_maxima, reconstruction
        from skimage.segmentation import watershed

        def blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
            return gaussian_filter(values, sigma, truncate=TRUNCATE)

        around = np.clip(blurred(density, SURROUND), LEAST * self.threshold, MOST * self.threshold)
        nuclear = binary_opening(blurred(density, SMOOTH) > around, iterations=OPENING)
        nuclear = ~large_pieces(~nuclear, LARGEST_HOLE)
        depth = np.minimum(distance_transform_edt(nuclear), DEEPEST).astype(np.float32)
        contrast = (blurred(density, BLOB) - blurred(density, 2 * BLOB)) / around
        # In whole steps, so that plateaus are level and no rounding decides.
        height = np.round(STEPS * (blurred(depth, 1.0) + CONTRAST * contrast)).astype(np.int32)
        ground = int(STEPS * -(DEEPEST + 10 * CONTRAST))
        height = np.where(nuclear, height, ground).astype(np.int32)
        # In single precision, which holds these whole numbers, it sorts in half the time.
        exact = height.astype(np.float32)
        filled = reconstruction(exact - int(STEPS * TROUGH), exact)
        seeds, number = label(local_maxima(filled) & nuclear)
        first = np.full(number + 1, seeds.size, dtype=np.int64)
        np.minimum.at(first, seeds.ravel(), np.arange(seeds.size))
        # Equal heights would be flooded in the order of the window: less than half a step makes all of them differ, by
        # the place in the image (an even sequence in the plane; Roberts, 2018).
        rows, columns = np.arange(top, top + height.shape[0]), np.arange(left, left + height.shape[1])
        shift = np.mod(rows[:, None] * 0.5698402909980532 + columns * 0.7548776662466927, 1) / 2
        return watershed(shift - height, seeds, mask=nuclear), first[1:]


class ResampledImage:
    """An image in pixels of `um` microns, counted from its top left corner, read by window.

    Each pixel is the mean of the area around it, weighted by a triangle that is two pixels wide (the antialiasing of
    :func:`hist2scrna.images.base.cut_patches`), with weights taken from its place in the image: two windows agree,
    to the last bit, where they overlap. Over the border, the image goes on with the color that it has there.

    Parameters
    ----------
    image
        The image.
    mpp
        Microns per full-resolution pixel.
    um
        Microns per pixel wanted. They are taken from the coarsest level that is at least as fine.
    """

    def __init__(self, image: SectionImage, mpp: float, um: float) -> None:
        self.image = image
        self.level = image.level_for(mpp / um)
        # Pixels of the level per pixel wanted, and full-resolution pixels per pixel wanted.
        self.step = um / mpp * image.scales[self.level]
        self.full_resolution = um / mpp

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = self.image.size(self.level)
        return max(1, round(width / self.step)), max(1, round(height / self.step))

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return a window, `(height, width, 3)`; it may reach over the border."""
        wide, high = self.image.size(self.level)
        columns, across = self._taps(x, width, wide)
        rows, down = self._taps(y, height, high)
        left, top = int(columns.min()), int(rows.min())
        window = self.image.read(self.level, left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top)
        squeezed = np.zeros((window.shape[0], width, 3), dtype=np.float32)
        for tap in range(columns.shape[1]):
            squeezed += across[:, tap, None] * window[:, columns[:, tap] - left]
        result = np.zeros((height, width, 3), dtype=np.float32)
        for tap in range(rows.shape[1]):
            result += down[:, tap, None, None] * squeezed[rows[:, tap] - top]
        return np.round(result).astype(np.uint8)

    def _taps(self, first: int, number: int, edge: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return which pixels of the level make up each pixel along one axis, and their weights, `(number, taps)`."""
        reach = max(1.0, self.step)
        center = (np.arange(first, first + number) + 0.5) * self.step - 0.5
        taps = np.ceil(center - reach).astype(np.int64)[:, None] + np.arange(int(2 * reach) + 1)
        weight = (1 - np.abs(taps - center[:, None]) / reach).clip(0)
        weight /= weight.sum(axis=1, keepdims=True)
        return taps.clip(0, edge - 1), weight.astype(np.float32)
