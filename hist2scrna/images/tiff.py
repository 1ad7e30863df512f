"""TIFF, OME-TIFF and Aperio's SVS, classic and BigTIFF, tiled or in strips, with and without a pyramid."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.images.pixels import (
    AGAIN,
    WHITE,
    ImageError,
    as_rgb,
    check_orientation,
    is_eight_or_sixteen_bit,
    reading,
)
from hist2scrna.images.resolution import aperio_mpp, ome_xml_mpp, tiff_tags_mpp
from hist2scrna.images.tiles import TiledImage
from hist2scrna.messages import log_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

AXES = ("YXS", "YXC", "YX", "SYX", "CYX")
MIN_IS_WHITE, MIN_IS_BLACK, RGB, YCBCR = 0, 1, 2, 6
# Compressions that are decoded to RGB when the pixels are stored as YCbCr.
JPEG = (6, 7, 34892, 33007)
APERIO_JPEG2000_YCBCR = 33003
# Kinds of files, as tifffile has them, that do not say which pages are levels of one image.
WITHOUT_NAMES = ("generic", "shaped", "uniform")
UNSPECIFIED, PREMULTIPLIED = 0, 1
BITS = (1, 8, 16)
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296


class OpenSlideNeeded(ImageError):
    """A TIFF whose colors only OpenSlide decodes."""


@dataclass(frozen=True)
class _Plane:
    """One page of the file: where its tiles (or strips) are, and how they are decoded."""

    path: str
    offsets: Sequence[int]
    counts: Sequence[int]
    options: dict[str, bytes | None]
    decode: Callable[..., Any]

    def read(self, index: int) -> NDArray[Any] | None:
        """Return tile `index` decoded, `(height, width, samples)`; None where the file has none."""
        if self.counts[index] == 0:
            return None
        with open(self.path, "rb") as file:
            file.seek(self.offsets[index])
            data = file.read(self.counts[index])
        decoded, _, _ = self.decode(data, index, **self.options)
        return decoded[0]


@dataclass(frozen=True)
class _Level:
    """A level: its size and that of its tiles, and the planes or pages in which its channels are."""

    size: tuple[int, int]
    tile: tuple[int, int]
    planes: tuple[_Plane, ...]
    separate: int
    inverted: bool
    premultiplied: bool
    channels: int

    def read(self, row: int, column: int) -> NDArray[Any] | None:
        """Return a tile, `(height, width, channels)`; None where the file has none."""
        across, down = (-(-edge // tile) for edge, tile in zip(self.size, self.tile, strict=True))
        index = row * across + column
        parts = [plane.read(index + sample * across * down) for plane in self.planes for sample in range(self.separate)]
        there = [part for part in parts if part is not None]
        return np.concatenate(there, axis=2)[:, :, : self.channels] if len(there) == len(parts) else None


class TiffImage(TiledImage):
    """A TIFF file: windows are read from the level that a patch needs, tile by tile. Of several images, the largest.

    Parameters
    ----------
    path
        The file.
    scale
        Image pixels per full-resolution pixel.

    Raises
    ------
    ValueError
        If it is no TIFF, damaged or cut off, holds no RGB or gray image of 8 or 16 bits, or is stored turned.
    """

    def __init__(self, path: Path, scale: float = 1.0) -> None:
        import tifffile

        unreadable = f"File '{path}' is not a TIFF that can be read"
        with reading(unreadable), tifffile.TiffFile(path) as file:
            series = _largest(file.series, path)
            first = series.levels[0].keyframe
            check_orientation(str(path), first.tags.valueof(ORIENTATION))
            levels = [_level(level, series.axes, path) for level in _levels(series, file.series)]
            mpp = _mpp(file, first, levels[0].size, str(path))
        kept = self._lay_out(path, scale, [level.size for level in levels], [level.tile for level in levels], mpp)
        self._levels = [levels[i] for i in kept]
        for level in self._levels:
            _check_complete(level, path)

    def _decode(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        source = self._levels[level]
        _, _, width, height = self.extent(level, row, column)
        with reading(f"Image '{self.path}' is damaged in row {row}, column {column} of its tiles of level {level}"):
            tile = source.read(row, column)
            if tile is None:
                return np.full((height, width, 3), WHITE, dtype=np.uint8)
            pixels = as_rgb(tile[:height, :width], premultiplied=source.premultiplied)
            if pixels.shape[:2] != (height, width):
                raise ImageError(f"Image '{self.path}' is damaged: a tile of level {level} is too small. {AGAIN}")
        return WHITE - pixels if source.inverted else pixels


def _largest(series: Sequence[Any], path: Path) -> Any:
    """Return the largest of the images in the file that can be H&E."""
    if not series:
        raise ImageError(f"File '{path}' holds no image. {AGAIN}")

    def area(one: Any) -> int:
        keyframe = one.levels[0].keyframe
        return int(keyframe.imagewidth) * int(keyframe.imagelength)

    images = [one for one in series if one.axes in AXES and one.dtype is not None and _channels(one) in (1, 3, 4)]
    if not images:
        one = max(series, key=area)
        raise ImageError(
            f"Expected '{path}' to hold an RGB or gray image (axes YXS, CYX or YX; 1, 3 or 4 channels), found axes "
            f"{one.axes!r} with shape {one.shape}. Save the H&E image alone, channels last."
        )
    largest = max(images, key=area)
    if len(series) > 1:
        log_once(
            log,
            "%s: reading the largest of %d images, %s %s; the others are %s",
            path,
            len(series),
            largest.name or "the first",
            largest.shape,
            [(one.name, one.shape) for one in series if one is not largest],
        )
    return largest


def _levels(largest: Any, series: Sequence[Any]) -> list[Any]:
    """Return the levels of an image, finest first.

    Where the file does not name them, tifffile finds those that shrink by the same factor from each to the next; the
    others are found here, by their mark of being a reduced image.
    """
    levels = list(largest.levels)
    if largest.kind in WITHOUT_NAMES:
        for one in series:
            reduced = one.levels[0].keyframe.is_reduced or one.levels[0].keyframe.is_subifd
            if one is not largest and reduced and one.axes == largest.axes and one.dtype == largest.dtype:
                levels += one.levels
    return sorted(levels, key=lambda level: -int(level.keyframe.imagewidth))


def _channels(series: Any) -> int:
    return int(dict(zip(series.axes, series.shape, strict=True)).get("C", 0)) or int(
        dict(zip(series.axes, series.shape, strict=True)).get("S", 1)
    )


def _level(series: Any, axes: str, path: Path) -> _Level:
    """Take from an open file what is needed to read a level when it is closed."""
    page = series.keyframe
    if not is_eight_or_sixteen_bit(page.dtype) or page.bitspersample not in BITS:
        raise ImageError(f"Expected '{path}' to hold pixels of 8 or 16 bits, found {page.bitspersample} {page.dtype}.")
    if page.compression == APERIO_JPEG2000_YCBCR:
        raise OpenSlideNeeded(f"Image '{path}' holds YCbCr in JPEG 2000, which needs OpenSlide.")
    if page.photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB) and not (
        page.photometric == YCBCR and page.compression in JPEG
    ):
        raise ImageError(
            f"Expected '{path}' to hold gray or RGB pixels, or YCbCr in JPEG, found {page.photometric!r} with "
            f"{page.compression!r}. Save the H&E image as RGB."
        )
    pages = list(series.pages)
    stacked = axes == "CYX" and page.samplesperpixel == 1
    if any(one is None for one in pages) or len(pages) != (_channels(series) if stacked else 1):
        raise ImageError(f"File '{path}' lacks pages of its image ({series.shape}, axes {axes}). {AGAIN}")
    channels = 1 if stacked else int(page.samplesperpixel)
    extra = tuple(page.extrasamples)
    if channels == 4 and extra[-1:] == (UNSPECIFIED,):
        channels = 3
    width, height = int(page.imagewidth), int(page.imagelength)
    tile = (page.tilewidth, page.tilelength) if page.is_tiled else (width, min(page.rowsperstrip, height))
    return _Level(
        size=(width, height),
        tile=(int(tile[0]), int(tile[1])),
        planes=tuple(_plane(one) for one in pages),
        separate=int(page.samplesperpixel) if page.planarconfig == 2 else 1,
        inverted=page.photometric == MIN_IS_WHITE,
        premultiplied=extra[-1:] == (PREMULTIPLIED,),
        channels=len(pages) if stacked else channels,
    )


def _plane(page: Any) -> _Plane:
    options = {"jpegtables": page.jpegtables, "jpegheader": page.keyframe.jpegheader}
    path = str(page.parent.filehandle.path)
    return _Plane(path, page.dataoffsets, page.databytecounts, options, page.keyframe.decode)


def _check_complete(level: _Level, path: Path) -> None:
    from pathlib import Path as File

    tiles = [-(-edge // tile) for edge, tile in zip(level.size, level.tile, strict=True)]
    for plane in level.planes:
        needed, listed = tiles[0] * tiles[1] * level.separate, min(len(plane.offsets), len(plane.counts))
        if listed < needed:
            raise ImageError(f"Image '{path}' is damaged: {listed} of {needed} tiles are listed. {AGAIN}")
        end = int(np.max(np.add(plane.offsets[:needed], plane.counts[:needed])))
        size = File(plane.path).stat().st_size
        if end > size:
            raise ImageError(f"Image '{path}' is cut off: its tiles reach to byte {end}, the file to {size}. {AGAIN}")


def _mpp(file: Any, page: Any, size: tuple[int, int], origin: str) -> float | None:
    """Return microns per pixel, from Aperio's description, else OME-XML, else the resolution tags."""
    mpp = aperio_mpp(file.pages.first.description)
    if mpp is None and file.is_ome:
        mpp = ome_xml_mpp(file.ome_metadata or "", *size, origin)
    if mpp is None:
        tags = page.tags
        both = tags.valueof(X_RESOLUTION), tags.valueof(Y_RESOLUTION)
        mpp = tiff_tags_mpp(both, tags.valueof(RESOLUTION_UNIT), origin)
    return mpp
