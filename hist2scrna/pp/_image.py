"""A section of which there is only the image: open it, find its scale, and make its entry for `.uns["spatial"]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from hist2scrna import keys
from hist2scrna.images.base import ArrayImage, thumbnail
from hist2scrna.spots.library import open_given

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.images.base import SectionImage

# Longer sides of the two images that Space Ranger writes.
PREVIEWS = {"hires": 2000, "lowres": 600}


def positive(value: Any, argument: str) -> float:
    """Return an argument as a number above zero.

    Raises
    ------
    ValueError
        If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise ValueError(f"Expected `{argument}` to be a positive number, found {value!r}.")
    return float(value)


def open_scaled(image: Any, mpp: float | None) -> tuple[SectionImage, float]:
    """Return the image and its microns per full-resolution pixel: `mpp`, else what the file says.

    Raises
    ------
    TypeError
        If `image` is neither a path nor an array.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an RGB image, or nothing tells its scale.
    """
    if isinstance(image, AnnData) or not (isinstance(image, str | Path) or hasattr(image, "dtype")):
        raise TypeError(
            "Expected `image` to be the path of an image or an array (height, width, 3), found "
            f"{type(image).__name__}. For an AnnData, pass the image in "
            f"adata.uns['{keys.SPATIAL}'][library]['{keys.IMAGES}'], or the path in '{keys.METADATA}'."
        )
    opened = open_given(image)
    if mpp is not None:
        return opened, positive(mpp, "mpp")
    if opened.mpp is None:
        raise ValueError(
            f"Nothing tells the microns per pixel of the image ({opened.origin}). Pass mpp= (about 0.25 for a scan "
            "at 40x, 0.5 at 20x)."
        )
    return opened, float(opened.mpp)


def library_entry(image: Any, opened: SectionImage, mpp: float, spot_px: float | None) -> dict[str, dict[str, Any]]:
    """Return the entry of the section in `.uns["spatial"]`.

    For a file, its path and two previews (2,000 and 600 pixels) are kept; an array is kept itself, as `hires`.

    Parameters
    ----------
    image
        The argument of the user.
    opened
        The same, opened.
    mpp
        Microns per full-resolution pixel.
    spot_px
        Diameter of a spot in full-resolution pixels; None: no spots.
    """
    factors: dict[str, float] = {keys.MPP: mpp}
    if spot_px is not None:
        factors[keys.SPOT_DIAMETER] = spot_px
    images: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    if isinstance(image, str | Path):
        metadata[keys.SOURCE_IMAGE_PATH] = str(Path(image).resolve())
        for name, longest in PREVIEWS.items():
            images[name], factors[keys.image_scale(name)] = _preview(opened, longest)
    else:
        assert isinstance(opened, ArrayImage)
        images["hires"], factors[keys.image_scale("hires")] = opened.array, 1.0
    return {keys.IMAGES: images, keys.SCALEFACTORS: factors, keys.METADATA: metadata}


def _preview(opened: SectionImage, longest: int) -> tuple[NDArray[np.uint8], float]:
    """Return an image of at most `longest` pixels, shrunk from one about twice as fine, and its scale."""
    from PIL import Image

    fine, scale = thumbnail(opened, 2 * longest)
    shrink = min(1.0, longest / max(fine.shape))
    if shrink == 1:
        return fine, scale
    size = max(1, round(fine.shape[1] * shrink)), max(1, round(fine.shape[0] * shrink))
    small = Image.fromarray(np.ascontiguousarray(fine)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(small), scale * small.width / fine.shape[1]
