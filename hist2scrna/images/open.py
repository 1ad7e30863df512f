"""Which reader opens which file: a row for each format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hist2scrna.images.ome_zarr import OmeZarrImage
from hist2scrna.images.openslide import OpenSlideImage
from hist2scrna.images.raster import RasterImage
from hist2scrna.images.tiff import OpenSlideNeeded, TiffImage

if TYPE_CHECKING:
    from collections.abc import Callable

    from hist2scrna.images.base import SectionImage


@dataclass(frozen=True)
class Format:
    """A kind of file, and what opens it.

    Attributes
    ----------
    open
        The class, or a function: called with the path and the image pixels per full-resolution pixel.
    suffixes
        How the names of such files end, in lower case; none: any file.
    starts
        First bytes that tell such a file, whatever its name.
    folder
        Whether it is a folder, not a file.
    """

    open: Callable[[Path, float], SectionImage]
    suffixes: tuple[str, ...] = ()
    starts: tuple[bytes, ...] = ()
    folder: bool = False

    def matches(self, path: Path, start: bytes) -> bool:
        """Tell whether a path is of this format, from its suffix or its first bytes."""
        if path.is_dir() != self.folder:
            return False
        if not self.suffixes and not self.starts:
            return True
        return path.suffix.lower() in self.suffixes or start.startswith(self.starts)


def open_tiff(path: Path, scale: float = 1.0) -> SectionImage:
    """Open a TIFF, by OpenSlide where its colors need that."""
    try:
        return TiffImage(path, scale)
    except OpenSlideNeeded:
        return OpenSlideImage(path, scale)


# The first that matches reads it. A new format is a class and a row here, before the last two, which take any.
FORMATS: list[Format] = [
    Format(OpenSlideImage, (".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm")),
    Format(
        open_tiff,
        (".tif", ".tiff", ".svs", ".btf", ".tf8", ".qptiff"),
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ),
    Format(OmeZarrImage, folder=True),
    Format(RasterImage),
]
LONGEST_START = 16
# Files of a folder that are images, where only their names are looked at.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png"}.union(*(kind.suffixes for kind in FORMATS)))


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
    start = b""
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"No image file at '{path}'.")
        with path.open("rb") as file:
            start = file.read(LONGEST_START)
    return next(kind for kind in FORMATS if kind.matches(path, start)).open(path, scale)
