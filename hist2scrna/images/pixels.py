"""Conversion of pixels to 8-bit RGB, and the errors for files that cannot be read."""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

WHITE = 255
# A 2^30-pixel RGB raster decodes to 3 GiB. This bounds what is decoded at once: a tile, a strip, a chunk, a JPEG.
MAX_DECODED_PIXELS = 2**30
# At 0.25 um a pixel, a quarter of a metre of glass.
MAX_SIDE = 2**20
AGAIN = "Copy or download it again."
# What the readers below raise on damaged files, from a bad magic number to a checksum that is wrong.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """An image cannot be read. The message names the file, the cause and a way out."""


@contextmanager
def reading(what: str, instead: str = AGAIN, reader_error: type[Exception] = ValueError) -> Iterator[None]:
    """Turn what a reader raises on a damaged file into :class:`ImageError`: `what`, the cause, the way out.

    `reader_error` is an exception of the reader that is none of Python's.
    """
    try:
        yield
    except ImageError:
        raise
    except (*DAMAGE, reader_error) as error:
        cause = " ".join(str(error).split())
        raise ImageError(f"{what}: {cause[:200] or type(error).__name__}. {instead}") from error


def check_size(origin: str, width: int, height: int, tile: tuple[int, int]) -> None:
    """Refuse an image that no scanner makes, or one whose `tile` (width, height) is over the budget for decoding.

    Raises
    ------
    ImageError
        If a side is 0 or over 2^20 pixels, or a tile has over 2^30.
    """
    if not 0 < min(width, height) <= max(width, height) <= MAX_SIDE:
        raise ImageError(
            f"Expected the sides of image '{origin}' to be 1 to {MAX_SIDE} pixels, its header says {width} x {height}. "
            "The header is damaged, or the file is no image of tissue."
        )
    if min(tile) < 1 or tile[0] * tile[1] > MAX_DECODED_PIXELS:
        raise ImageError(
            f"Image '{origin}' of {width} x {height} pixels is stored in pieces of {tile[0]} x {tile[1]}, and one is "
            f"over the budget of {MAX_DECODED_PIXELS} pixels for decoding at once. Convert it to a tiled, pyramidal "
            "TIFF, which is read by window."
        )


def check_orientation(origin: str, orientation: Any) -> None:
    """Refuse an image that is stored turned or mirrored (Exif and TIFF tag 274; 1, or 0 for unknown, is upright).

    Some programs rotate such an image and others do not, so it is unknown which version the coordinates refer to.
    """
    if orientation not in (None, 0, 1):
        raise ImageError(
            f"Expected image '{origin}' to be stored upright (orientation 1), found orientation {orientation}: it is "
            "to be turned or mirrored when shown, and programs differ in whether they do. Save it upright, as it was "
            "shown by the program that the coordinates come from."
        )


def is_eight_or_sixteen_bit(dtype: np.dtype[Any]) -> bool:
    """Whether pixels are unsigned, of one or two bytes in either order, or true and false."""
    return dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2)


def as_rgb(window: NDArray[Any], *, premultiplied: bool = False) -> NDArray[np.uint8]:
    """Return `(height, width, 3)` uint8 of pixels that are gray or have 1, 3 or 4 channels, the last the opacity.

    Sixteen bits are divided by 257, floats in 0..1 multiplied by 255: by the range of the type, never by the values
    in it, so that a stain is equally dark in every window and image. What lies behind transparent pixels is white.

    Parameters
    ----------
    window
        `(height, width)` or `(height, width, channels)`; bool, uint8, uint16 or float in 0..1.
    premultiplied
        Colors are already multiplied by their opacity (TIFF: associated alpha).
    """
    if window.dtype.kind == "f":
        window = np.round(window * 255).astype(np.uint8)
    elif window.dtype.kind == "u" and window.dtype.itemsize == 2:
        window = (window // 257).astype(np.uint8)
    elif window.dtype == np.bool_:
        window = window.astype(np.uint8) * 255
    if window.ndim == 2:
        window = window[:, :, None]
    if window.shape[2] == 1:
        window = np.repeat(window, 3, axis=2)
    if window.shape[2] == 4:
        opacity = window[:, :, 3:].astype(np.float32) / 255
        color = window[:, :, :3] * (1 if premultiplied else opacity)
        window = np.round(np.minimum(color + WHITE * (1 - opacity), WHITE)).astype(np.uint8)
    return window
