"""One interface to the image of a section, whatever it is read from, and the patches cut from it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.images.pixels import WHITE, as_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

BAND_PIXELS = 2**24
LONGEST_THUMBNAIL = 256


class SectionImage(ABC):
    """An RGB image of one section, at one or more resolutions.

    Attributes
    ----------
    scales
        Image pixels per full-resolution pixel of each level, finest first.
    origin
        What the image was read from, for messages.
    mpp
        Microns per pixel of the finest level, as the file itself says; None where it does not.
    in_one_piece
        The finest level is decoded whole, whichever window is read.
    channels
        How many a patch of it has: 3, or 1 for a single marker.
    parts
        The images that it consists of, where several stains are stacked.
    """

    scales: tuple[float, ...]
    origin: str
    mpp: float | None = None
    in_one_piece: bool = False
    channels: int = 3
    parts: tuple[SectionImage, ...] = ()

    @abstractmethod
    def size(self, level: int = 0) -> tuple[int, int]:
        """Width and height of a level in its own pixels."""

    @abstractmethod
    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a window that lies within the level, `(height, width, 3)`."""

    def fingerprint(self) -> str:
        """Return what tells this image from others: the SHA-256 of its pixels, unless a subclass knows it sooner.

        It is read a band at a time.
        """
        if self.parts:
            return hashlib.sha256(" ".join(part.fingerprint() for part in self.parts).encode()).hexdigest()
        width, height = self.size()
        digest = hashlib.sha256(f"{width} {height} ".encode())
        band = max(1, BAND_PIXELS // max(1, width))
        for y in range(0, height, band):
            digest.update(np.ascontiguousarray(self.read(0, 0, y, width, min(band, height - y))).data)
        return digest.hexdigest()

    def release(self) -> None:
        """Forget what was decoded; reading decodes it again."""
        return

    @property
    def scale(self) -> float:
        """Image pixels per full-resolution pixel at the finest level."""
        return self.scales[0]

    def level_for(self, scale: float) -> int:
        """Return the coarsest level with at least `scale` image pixels per full-resolution pixel (else the finest)."""
        fine = [i for i, value in enumerate(self.scales) if value >= scale * 0.999]
        return max(fine, key=lambda i: -self.scales[i]) if fine else 0

    def strided(self, level: int, step: int, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return every `step`th pixel of a level, from `first` to before `last` (column and row, counted in steps).

        Rows are read a band at a time, so that the level is never in memory whole.
        """
        width, height = self.size(level)
        left, top = (int(v) * step for v in first)
        right, bottom = min(int(last[0]) * step, width), min(int(last[1]) * step, height)
        band = step * max(1, BAND_PIXELS // (step * max(1, right - left)))
        rows = [
            self.read(level, left, y, right - left, min(band, bottom - y))[::step, ::step]
            for y in range(top, bottom, band)
        ]
        return np.concatenate(rows)


def to_image_pixels(xy: NDArray[np.floating], scale: float) -> NDArray[np.floating]:
    """Map full-resolution coordinates `(n, 2)`, x right and y down, to pixels of an image at `scale`."""
    return np.asarray(xy, dtype=np.float64) * scale


class ArrayImage(SectionImage):
    """An image held as an array (NumPy, Dask, Zarr or xarray), read lazily where the array is lazy."""

    def __init__(self, array: Any, scale: float, origin: str) -> None:
        dims = getattr(array, "dims", None)
        if dims is not None and set(dims) >= {"y", "x"}:
            order = [d for d in ("y", "x", "c", "channel", "channels") if d in dims]
            array = array.transpose(*order).data
        if len(array.shape) not in (2, 3) or (len(array.shape) == 3 and array.shape[2] not in (1, 3, 4)):
            raise ValueError(
                f"Expected the image in {origin} to be (height, width) or (height, width, channels), found shape "
                f"{tuple(array.shape)}. Move the channels last."
            )
        if min(array.shape) == 0:
            raise ValueError(f"The image in {origin} has no pixel: its shape is {tuple(array.shape)}. Read it again.")
        self.array = array
        self.scales = (float(scale),)
        self.origin = origin
        if np.issubdtype(array.dtype, np.floating):
            corner = np.asarray(array[:: max(1, array.shape[0] // 256), :: max(1, array.shape[1] // 256)])
            if not np.isfinite(corner).all() or corner.min() < 0 or corner.max() > 1:
                raise ValueError(
                    f"Expected a float image in 0..1 in {origin}, found values from {corner.min():.4g} to "
                    f"{corner.max():.4g}. Convert it to uint8 (0..255) or divide by its maximum."
                )
        elif array.dtype not in (np.uint8, np.uint16, np.bool_):
            raise ValueError(f"Expected the image in {origin} to be uint8, uint16 or float, found {array.dtype}.")

    def size(self, level: int = 0) -> tuple[int, int]:
        """Width and height."""
        return int(self.array.shape[1]), int(self.array.shape[0])

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a window."""
        return as_rgb(np.asarray(self.array[y : y + height, x : x + width]))

    def strided(self, level: int, step: int, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return every `step`th pixel between two corners, counted in steps."""
        (left, top), (right, bottom) = (np.asarray(corner) * step for corner in (first, last))
        return as_rgb(np.asarray(self.array[top:bottom:step, left:right:step]))


def cut_patches(image: SectionImage, xy: NDArray[np.floating], side: float, patch_px: int) -> NDArray[np.uint8]:
    """Cut square patches around centers, padded with white where they reach over the border.

    They are read from the coarsest level whose pixels are no larger than those of the patch, and averaged down from
    there.

    Parameters
    ----------
    image
        The image.
    xy
        `(n, 2)` centers in full-resolution pixels, x right, y down.
    side
        Side of a patch in full-resolution pixels.
    patch_px
        Side of the returned patches in pixels. Each is the mean of the area around it, weighted by a triangle that is
        two pixels of the patch wide, and placed to a fraction of a pixel.

    Returns
    -------
    `(n, channels, patch_px, patch_px)` uint8; 3 channels, but of several stains those of all.
    """
    from PIL import Image

    if image.parts:
        return np.concatenate([cut_patches(part, xy, side, patch_px) for part in image.parts], axis=1)
    level = image.level_for(patch_px / side)
    scale = image.scales[level]
    width, height = image.size(level)
    length = side * scale
    corners = to_image_pixels(xy, scale) - length / 2
    patches = np.empty((len(corners), 3, patch_px, patch_px), dtype=np.uint8)
    # One pixel of margin lets the resampling filter see over the edge of the patch.
    margin = int(np.ceil(max(1.0, length / patch_px))) + 1
    for i, (left, top) in enumerate(corners):
        x0, y0 = int(np.floor(left)) - margin, int(np.floor(top)) - margin
        x1, y1 = int(np.ceil(left + length)) + margin, int(np.ceil(top + length)) + margin
        canvas = np.full((y1 - y0, x1 - x0, 3), WHITE, dtype=np.uint8)
        inner_x0, inner_x1 = min(max(x0, 0), width), min(max(x1, 0), width)
        inner_y0, inner_y1 = min(max(y0, 0), height), min(max(y1, 0), height)
        if inner_x1 > inner_x0 and inner_y1 > inner_y0:
            window = image.read(level, inner_x0, inner_y0, inner_x1 - inner_x0, inner_y1 - inner_y0)
            canvas[inner_y0 - y0 : inner_y1 - y0, inner_x0 - x0 : inner_x1 - x0] = window
        box = (left - x0, top - y0, left - x0 + length, top - y0 + length)
        patch = Image.fromarray(canvas).resize((patch_px, patch_px), Image.Resampling.BILINEAR, box=box)
        patches[i] = np.asarray(patch).transpose(2, 0, 1)
    return patches[:, : image.channels]


def enlarged(patches: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    """Return patches `(n, channels, p, p)` as `(n, channels, px, px)`, as those of a coarse image are enlarged."""
    from PIL import Image

    out = np.empty((*patches.shape[:2], px, px), dtype=np.uint8)
    for i, patch in enumerate(patches):
        for c, channel in enumerate(patch):
            out[i, c] = np.asarray(Image.fromarray(channel).resize((px, px), Image.Resampling.BILINEAR))
    return out


def thumbnail_grid(image: SectionImage, longest: int) -> tuple[int, int]:
    """Return the level and the step over it that give a small image, its longer side about `longest` pixels."""
    level = image.level_for(longest * image.scale / max(image.size()))
    return level, max(1, max(image.size(level)) // longest)


def thumbnail(image: SectionImage, longest: int = LONGEST_THUMBNAIL) -> tuple[NDArray[np.uint8], float]:
    """Return a small image by striding over the level that is just fine enough, and its scale to full resolution."""
    level, step = thumbnail_grid(image, longest)
    size = -(-np.array(image.size(level)) // step)
    return image.strided(level, step, np.zeros(2, dtype=np.int64), size), image.scales[level] / step
