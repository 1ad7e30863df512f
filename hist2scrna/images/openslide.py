"""Whole-slide files of other vendors, by OpenSlide."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.images.pixels import as_rgb, reading
from hist2scrna.images.resolution import in_microns, square
from hist2scrna.images.tiles import TiledImage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TILE = 512


class OpenSlideImage(TiledImage):
    """A file that OpenSlide reads, in tiles of 512 x 512 pixels; where nothing was scanned, it is white.

    Parameters
    ----------
    path
        The file.
    scale
        Image pixels per full-resolution pixel.

    Raises
    ------
    ImportError
        If OpenSlide is not installed.
    ValueError
        If it cannot be read.
    """

    def __init__(self, path: Path, scale: float = 1.0) -> None:
        try:
            import openslide
        except ImportError as error:
            raise ImportError(
                f"Reading '{path}' needs OpenSlide, an extra: pip install 'hist2scrna[openslide]'. Or convert the file "
                "to a pyramidal TIFF or OME-Zarr."
            ) from error
        # OpenSlide opens the file for each read: only the process is to be its own.
        self._slides: dict[int, Any] = {}
        self.path = path
        unreadable = f"File '{path}' is not a whole-slide image that OpenSlide can read"
        with reading(unreadable, reader_error=openslide.OpenSlideError):
            slide = self._slide()
            sizes = list(slide.level_dimensions)
            x, y = (
                in_microns(slide.properties.get(key), "um")
                for key in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
            )
        self._levels = self._lay_out(path, scale, sizes, [(TILE, TILE)] * len(sizes), square(x, y, str(path)))
        self.in_one_piece = False

    def _slide(self) -> Any:
        import openslide

        if os.getpid() not in self._slides:
            self._slides = {os.getpid(): openslide.OpenSlide(str(self.path))}
        return self._slides[os.getpid()]

    def _decode(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        left, top, width, height = self.extent(level, row, column)
        shrunk = self.scale / self.scales[level]
        corner = (round(left * shrunk), round(top * shrunk))
        from openslide import OpenSlideError

        with reading(f"Image '{self.path}' is damaged at {corner}", reader_error=OpenSlideError):
            return as_rgb(np.asarray(self._slide().read_region(corner, self._levels[level], (width, height))))
