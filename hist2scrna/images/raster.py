"""JPEG, PNG and other formats that Pillow reads: decoded as a whole when first read."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.images import pixels
from hist2scrna.images.pixels import ImageError, as_rgb, check_orientation, reading
from hist2scrna.images.tiles import CACHE, TiledImage
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

ORIENTATION = 0x0112
KINDS = "Give a TIFF, SVS, OME-Zarr, JPEG or PNG."


class RasterImage(TiledImage):
    """A JPEG or PNG file, one tile: its size is checked from the header, then it is decoded when first read.

    Raises
    ------
    ValueError
        If it is no image, damaged, over 2^30 pixels, or stored turned or mirrored.
    """

    def __init__(self, path: Path, scale: float = 1.0) -> None:
        with reading(f"File '{path}' is not an image that can be read", KINDS), _opened(path) as image:
            size, self._format = image.size, image.format
            has_exif = {"exif", "xmp"} & set(image.info)
            check_orientation(str(path), image.getexif().get(ORIENTATION) if has_exif else None)
        if size[0] * size[1] > pixels.MAX_DECODED_PIXELS:
            raise _too_large(path, f"{size[0]} x {size[1]}")
        self._lay_out(path, scale, [size], [size])

    def _decode(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        log.log(HINT, "decoding %s (%d x %d px)", self.path, *self.size())
        with reading(f"Image '{self.path}' is damaged"), _opened(self.path) as image:
            return _rgb(image, self.path)

    def strided(self, level: int, step: int, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return about every `step`th pixel between two corners, counted in steps; a JPEG is decoded small for that."""
        from PIL import Image

        if self._format != "JPEG" or step == 1 or CACHE.holds((self._key, 0, 0, 0)):
            return super().strided(level, step, first, last)
        size = tuple(-(-edge // step) for edge in self.size())
        with reading(f"Image '{self.path}' is damaged"), _opened(self.path) as image:
            draft = image.draft("RGB", size)
            edges = np.array(draft[1][2:] if draft else image.size) * step / self.size()
            boxes = (*(first * edges), *np.minimum(last * edges, image.size))
            wanted = int(last[0] - first[0]), int(last[1] - first[1])
            small = Image.fromarray(_rgb(image, self.path)).resize(wanted, Image.Resampling.BOX, box=boxes)
        return np.asarray(small)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; the limit here is explicit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path)
        except Image.DecompressionBombError as error:
            raise _too_large(path, "more than 178 million") from error
        with image:
            yield image


def _rgb(image: Any, path: Path) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return as_rgb(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise ImageError(
            f"Expected image '{path}' to hold gray or RGB pixels of 8 or 16 bits, found Pillow's mode "
            f"{image.mode!r}. Save the H&E image as 8-bit RGB."
        )
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return as_rgb(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _too_large(path: Path, size: str) -> ImageError:
    return ImageError(
        f"Image '{path}' has {size} pixels, over the budget for decoding it whole. "
        "Convert it to a tiled, pyramidal TIFF, which is read by window."
    )
