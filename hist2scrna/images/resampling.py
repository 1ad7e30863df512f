"""An image at another size of pixel, read by window: what a pixel holds does not depend on the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.images.base import SectionImage


class ResampledImage:
    """An image in pixels of `um` microns, counted from its top left corner.

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
