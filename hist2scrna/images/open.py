"""Which reader opens which file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hist2scrna.images.ome_zarr import OmeZarrImage
from hist2scrna.images.openslide import OpenSlideImage
from hist2scrna.images.raster import RasterImage
from hist2scrna.images.tiff import OpenSlideNeeded, TiffImage

if TYPE_CHECKING:
    from hist2scrna.images.base import SectionImage

TIFF_SUFFIXES = (".tif", ".tiff", ".svs", ".btf", ".tf8", ".qptiff")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OPENSLIDE_SUFFIXES = (".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm")


def open_file(path: str | Path, scale: float = 1.0) -> SectionImage:
    """Open an image: TIFF, OME-TIFF or SVS, OME-Zarr, JPEG or PNG, and other vendors' files by OpenSlide.

    Parameters
    ----------
    path
        A file, or the folder of an OME-Zarr.
    scale
        Image pixels per full-resolution pixel.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If it needs OpenSlide, which is not installed.
    ValueError
        If it is not an image that can be read, damaged, or too large to decode.
    """
    path = Path(path)
    if path.is_dir():
        return OmeZarrImage(path, scale)
    if not path.is_file():
        raise FileNotFoundError(f"No image file at '{path}'.")
    if path.suffix.lower() in OPENSLIDE_SUFFIXES:
        return OpenSlideImage(path, scale)
    with path.open("rb") as file:
        start = file.read(4)
    is_tiff = path.suffix.lower() in TIFF_SUFFIXES or start in TIFF_STARTS
    if not is_tiff:
        return RasterImage(path, scale)
    try:
        return TiffImage(path, scale)
    except OpenSlideNeeded:
        return OpenSlideImage(path, scale)
