"""Several stains of one section: images in one frame, seen as the channels of one patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.arguments import shown
from hist2scrna.images.base import ArrayImage, SectionImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LARGEST_SHIFT = 0.01
# More are rather the rows of an image with its channels first.
MOST_CHANNELS = 64


class StainStack(SectionImage):
    """Registered images of one section, the first of which is shown where an image is.

    Parameters
    ----------
    parts
        Images in the same full-resolution coordinates; each gives its own channels to a patch, in this order.

    Raises
    ------
    ValueError
        If there is none, or they are of different extent, so that they cannot be in one frame.
    """

    def __init__(self, parts: Sequence[SectionImage]) -> None:
        if not parts:
            raise ValueError("No image: the list of stains is empty.")
        first = parts[0]
        extent = np.array(first.size()) / first.scale
        for part in parts[1:]:
            size = np.array(part.size()) / part.scale
            if (np.abs(size / extent - 1) > LARGEST_SHIFT).any():
                raise ValueError(
                    f"The stains of a section must be registered: {first.origin} is {extent[0]:.0f} x {extent[1]:.0f} "
                    f"full-resolution pixels, {part.origin} is {size[0]:.0f} x {size[1]:.0f}. Align them, or check "
                    "their scale factors."
                )
        self.parts = tuple(parts)
        self.scales = first.scales
        self.origin = " + ".join(part.origin for part in parts)
        self.mpp = first.mpp
        self.channels = sum(part.channels for part in parts)
        self.in_one_piece = any(part.in_one_piece for part in parts)

    def size(self, level: int = 0) -> tuple[int, int]:
        """Width and height of a level of the first image."""
        return self.parts[0].size(level)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a window of the first image."""
        return self.parts[0].read(level, x, y, width, height)

    def strided(self, level: int, step: int, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return every `step`th pixel of the first image."""
        return self.parts[0].strided(level, step, first, last)

    def release(self) -> None:
        """Forget what was decoded of any of them."""
        for part in self.parts:
            part.release()


class OneChannel(ArrayImage):
    """One marker, as of immunofluorescence: a single channel of a patch."""

    channels = 1


def stack_of_array(array: Any, scale: float, origin: str) -> SectionImage:
    """Open an array; one with more channels than colors is a stack of an RGB image and single markers.

    Parameters
    ----------
    array
        `(height, width)`, or `(height, width, channels)`: 1, 3 or 4 are gray, RGB and RGBA; of 2, all are markers; of 5
        and more the first three are RGB, the others markers.
    scale
        Its pixels per full-resolution pixel.
    origin
        For messages.
    """
    if not hasattr(array, "shape"):
        path = " If it is the path of a file, pass it as image=." if isinstance(array, str) else ""
        raise ValueError(f"Expected {origin} to be an image, an array of pixels, found {shown(array)}.{path}")
    dims = getattr(array, "dims", None)
    if dims is not None and set(dims) >= {"y", "x"}:
        array = array.transpose(*[d for d in ("y", "x", "c", "channel", "channels") if d in dims]).data
    shape = tuple(array.shape)
    if len(shape) != 3 or shape[2] in (1, 3, 4) or shape[2] > MOST_CHANNELS or min(shape) == 0:
        return ArrayImage(array, scale, origin)
    colors = 3 if shape[2] > 4 else 0
    parts: list[SectionImage] = [ArrayImage(array[:, :, :3], scale, origin)] if colors else []
    parts += [OneChannel(array[:, :, c], scale, f"{origin} (channel {c})") for c in range(colors, shape[2])]
    return StainStack(parts)
