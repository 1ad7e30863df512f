"""Where pixels come from: arrays in AnnData and files on disk, behind one interface."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
log = logging.getLogger(__name__)

# A 2^30-pixel RGB raster decodes to 3 GiB; tiled files are read by window and may be of any size.
MAX_DECODED_PIXELS = 2**30
TIFF_SUFFIXES = (".tif", ".tiff", ".svs", ".btf", ".ndpi", ".qptiff")
WHITE = 255


class SlideImage(ABC):
    """An RGB picture of one section, at one or more resolutions.

    Attributes
    ----------
    scales
        Image pixels per full-resolution pixel of each level, finest first.
    origin
        What the image was read from, for messages.
    """

    scales: tuple[float, ...]
    origin: str

    @abstractmethod
    def size(self, level: int = 0) -> tuple[int, int]:
        """Width and height of a level in its own pixels."""

    @abstractmethod
    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a window that lies within the level, `(height, width, 3)`."""

    @property
    def scale(self) -> float:
        """Image pixels per full-resolution pixel at the finest level."""
        return self.scales[0]

    def level_for(self, scale: float) -> int:
        """Return the coarsest level with at least `scale` image pixels per full-resolution pixel (else the finest)."""
        fine = [i for i, own in enumerate(self.scales) if own >= scale * 0.999]
        return max(fine, key=lambda i: -self.scales[i]) if fine else 0


def to_image_pixels(xy: NDArray[np.floating], scale: float) -> NDArray[np.floating]:
    """Map full-resolution coordinates `(n, 2)`, x right and y down, to pixels of an image at `scale`."""
    return np.asarray(xy, dtype=np.float64) * scale


class ArrayImage(SlideImage):
    """A picture held as an array (NumPy, Dask, Zarr or xarray), read lazily where the array is lazy."""

    def __init__(self, array: Any, scale: float, origin: str) -> None:
        dims = getattr(array, "dims", None)
        if dims is not None and set(dims) >= {"y", "x"}:
            order = [d for d in ("y", "x", "c", "channel", "channels") if d in dims]
            array = array.transpose(*order).data
        if len(array.shape) not in (2, 3) or (len(array.shape) == 3 and array.shape[2] not in (1, 3, 4)):
            raise ValueError(
                f"Expected the image in {origin} to be (height, width) or (height, width, 1, 3 or 4), "
                f"found shape {tuple(array.shape)}. Move the channels last, and drop those that are not RGB."
            )
        self.array = array
        self.scales = (float(scale),)
        self.origin = origin
        self._unit_range = np.issubdtype(array.dtype, np.floating)
        if self._unit_range:
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
        return _as_rgb(np.asarray(self.array[y : y + height, x : x + width]))


class RasterImage(SlideImage):
    """A JPEG or PNG file: its size is checked from the header, then it is decoded once, when first read."""

    def __init__(self, path: Path, scale: float) -> None:
        from PIL import Image, UnidentifiedImageError

        self.path = path
        self.origin = str(path)
        self.scales = (float(scale),)
        self._pixels: NDArray[np.uint8] | None = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as picture:
                    self._size = picture.size
        except UnidentifiedImageError as error:
            raise ValueError(
                f"File '{path}' is not an image that can be read. Give a TIFF, SVS, JPEG or PNG."
            ) from error
        except Image.DecompressionBombError as error:
            raise _too_large(path, "more than 178 million") from error
        if self._size[0] * self._size[1] > MAX_DECODED_PIXELS:
            raise _too_large(path, f"{self._size[0]} x {self._size[1]}")

    def size(self, level: int = 0) -> tuple[int, int]:
        """Width and height."""
        return self._size

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a window; the first call decodes the file."""
        if self._pixels is None:
            from PIL import Image

            log.info("decoding %s (%d x %d px)", self.path, *self._size)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                try:
                    with Image.open(self.path) as picture:
                        self._pixels = np.asarray(picture.convert("RGB"))
                except OSError as error:
                    raise ValueError(f"Image '{self.path}' is damaged: {error}. Copy or download it again.") from error
        return self._pixels[y : y + height, x : x + width]


class TiffImage(SlideImage):
    """A TIFF or SVS file, pyramidal or not: windows are read from the level that a patch needs."""

    def __init__(self, path: Path, scale: float) -> None:
        import tifffile
        import zarr

        try:
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                shapes = [level.shape for level in series.levels]
                axes = series.axes
        except (tifffile.TiffFileError, IndexError) as error:
            raise ValueError(f"File '{path}' is not a TIFF that can be read: {error}.") from error
        if axes not in ("YXS", "YXC", "YX"):
            raise ValueError(
                f"Expected the first series of '{path}' to be an RGB picture (axes YXS), found axes {axes!r} with "
                f"shape {shapes[0]}. Save the H&E picture alone, channels last."
            )
        self.path = path
        self.origin = str(path)
        self._shapes = shapes
        self._levels = [
            zarr.open_array(tifffile.imread(path, aszarr=True, series=0, level=i), mode="r") for i in range(len(shapes))
        ]
        if self._levels[0].dtype not in (np.uint8, np.uint16):
            raise ValueError(f"Expected '{path}' to hold uint8 or uint16 pixels, found {self._levels[0].dtype}.")
        self.scales = tuple(float(scale) * shape[1] / shapes[0][1] for shape in shapes)

    def size(self, level: int = 0) -> tuple[int, int]:
        """Width and height."""
        return int(self._shapes[level][1]), int(self._shapes[level][0])

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a window."""
        return _as_rgb(np.asarray(self._levels[level][y : y + height, x : x + width]))


def _too_large(path: Path, found: str) -> ValueError:
    return ValueError(
        f"Image '{path}' has {found} pixels, over the budget for decoding it whole. "
        "Convert it to a tiled, pyramidal TIFF, which is read by window."
    )


def _as_rgb(window: NDArray[Any]) -> NDArray[np.uint8]:
    if np.issubdtype(window.dtype, np.floating):
        window = np.round(window * 255).astype(np.uint8)
    elif window.dtype == np.uint16:
        window = (window // 257).astype(np.uint8)
    elif window.dtype == np.bool_:
        window = window.astype(np.uint8) * 255
    if window.ndim == 2:
        window = window[:, :, None]
    if window.shape[2] == 1:
        window = np.repeat(window, 3, axis=2)
    if window.shape[2] == 4:
        opacity = window[:, :, 3:].astype(np.float32) / 255
        window = np.round(window[:, :, :3] * opacity + WHITE * (1 - opacity)).astype(np.uint8)
    return window


def open_file(path: str | Path, scale: float = 1.0) -> SlideImage:
    """Open an image file by its suffix, `scale` image pixels per full-resolution pixel.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a picture that can be read, or too large to decode whole.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No image file at '{path}'.")
    return TiffImage(path, scale) if path.suffix.lower() in TIFF_SUFFIXES else RasterImage(path, scale)


def cut_patches(image: SlideImage, xy: NDArray[np.floating], side: float, patch_px: int) -> NDArray[np.uint8]:
    """Cut square patches around centres, padded with white where they reach over the border.

    Parameters
    ----------
    image
        The picture.
    xy
        `(n, 2)` centres in full-resolution pixels, x right, y down.
    side
        Side of a patch in full-resolution pixels.
    patch_px
        Side of the returned patches in pixels; resampled with antialiasing, to a fraction of a pixel.

    Returns
    -------
    `(n, 3, patch_px, patch_px)` uint8.
    """
    from PIL import Image

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
    return patches


def thumbnail(image: SlideImage, longest: int = 256) -> tuple[NDArray[np.uint8], float]:
    """Return a small picture by striding over the coarsest level, and its scale to full resolution."""
    level = len(image.scales) - 1
    width, height = image.size(level)
    step = max(1, max(width, height) // longest)
    if isinstance(image, ArrayImage):
        small = _as_rgb(np.asarray(image.array[::step, ::step]))
    else:
        small = image.read(level, 0, 0, width, height)[::step, ::step]
    return small, image.scales[level] / step
