"""The entry of a library in `.uns["spatial"]`: its images and their scale factors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.images.open import open_file
from hist2scrna.images.stains import StainStack, stack_of_array
from hist2scrna.messages import warn_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from hist2scrna.images.base import SectionImage

# What an entry must hold one of to be a library: some files keep flags next to their libraries.
PARTS = (keys.IMAGES, keys.SCALEFACTORS, keys.METADATA)
# Files of CELLxGENE keep the full-resolution image under these names, without a scale factor.
AT_FULL_RESOLUTION = ("fullres", "full")


def libraries(adata: AnnData) -> dict[str, Mapping[str, Any]]:
    """Return the libraries of `.uns["spatial"]` by name; entries that are no library, such as a flag, are left out."""
    entries = adata.uns.get(keys.SPATIAL) or {}
    if not isinstance(entries, Mapping):
        return {}
    return {
        str(name): entry
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and (not entry or any(part in entry for part in PARTS))
    }


def library_entry(adata: AnnData, library: str | None) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the entry of a library in `.uns["spatial"]`; `library=None` takes the only one.

    Raises
    ------
    KeyError
        If the slot, or the library in it, is missing.
    ValueError
        If `library` is None and there are several.
    """
    where = f"adata.uns['{keys.SPATIAL}']"
    known = libraries(adata)
    if not known:
        raise KeyError(
            f"No {where} with a library: images and scale factors are looked up there by library. Read the section "
            "with squidpy.read.visium, or write {library: {'images': ..., 'scalefactors': ...}} there."
        )
    names = list(known)
    if library is None:
        if len(names) > 1:
            raise ValueError(
                f"{where} holds {len(names)} libraries: {names}. Pass library_key=, the column of adata.obs that tells "
                "which spot belongs to which."
            )
        library = names[0]
    if library not in known:
        raise KeyError(f"Library {library!r} not found in {where}. Available libraries: {names}.")
    return library, known[library]


def open_given(image: Any) -> SectionImage:
    """Open an image that was passed as an argument, in full-resolution pixels.

    Parameters
    ----------
    image
        A path (TIFF, OME-TIFF, SVS, OME-Zarr, JPEG, PNG, and with OpenSlide other vendors' files), an array `(h, w,
        channels)`, RGB first, or a list of these for several registered stains.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        If a file is missing, needs OpenSlide, or cannot be read.
    """
    if isinstance(image, list | tuple):
        return StainStack([open_given(one) for one in image])
    if isinstance(image, str | Path):
        return open_file(image)
    return stack_of_array(image, 1.0, "the argument `image`")


def open_image(adata: AnnData, library: str | None, *, img_key: str | Sequence[str] | None = None) -> SectionImage:
    """Open the image of a library: the finest available, unless `img_key` names one, or several stains to stack.

    Raises
    ------
    KeyError
        If the library, the image or its scale factor is missing.
    FileNotFoundError, ImportError, ValueError
        If a file is missing, needs OpenSlide, or cannot be read.
    """
    if img_key is not None and not isinstance(img_key, str):
        return StainStack([open_image(adata, library, img_key=name) for name in img_key])
    library, entry = library_entry(adata, library)
    where = f"adata.uns['{keys.SPATIAL}']['{library}']"
    images = entry.get(keys.IMAGES) or {}
    if img_key is not None and img_key not in images:
        raise KeyError(f"Image {img_key!r} not found in {where}['images']. Available images: {list(images)}.")
    source = (entry.get(keys.METADATA) or {}).get(keys.SOURCE_IMAGE_PATH)
    if img_key is None and source:
        if Path(str(source)).exists():
            return open_file(str(source))
        instead = f"using the finest of {list(images)} instead" if images else "and there is no other image"
        warn_user(
            f"{where}['metadata']['{keys.SOURCE_IMAGE_PATH}'] names '{source}', which is not there; {instead}. "
            "Pass image= with the right path."
        )
    if not images:
        raise KeyError(f"No images in {where}['images']. Pass image= (a path or an array), or features_key=.")
    scales = {name: image_scale(entry, name, where) for name in ([img_key] if img_key else images)}
    name = max(scales, key=lambda key: scales[key])
    return stack_of_array(images[name], scales[name], f"{where}['images']['{name}']")


def has_image(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry of `.uns["spatial"]` holds an image, or names a file of one."""
    return bool(entry.get(keys.IMAGES) or (entry.get(keys.METADATA) or {}).get(keys.SOURCE_IMAGE_PATH))


def image_scale(entry: Mapping[str, Any], img_key: str, where: str) -> float:
    """Return the scale factor of an image, checked; 1 for an image called `fullres` or `full` without one."""
    key = keys.image_scale(img_key)
    factors = entry.get(keys.SCALEFACTORS) or {}
    if key not in factors and img_key in AT_FULL_RESOLUTION:
        return 1.0
    if key not in factors:
        raise KeyError(
            f"Scale factor {key!r} not found in {where}['scalefactors']. Available: {list(factors)}. It is the number "
            f"of pixels of the image {img_key!r} per full-resolution pixel."
        )
    scale = float(factors[key])
    if not np.isfinite(scale) or scale <= 0:
        raise ValueError(f"Expected {where}['scalefactors']['{key}'] to be a positive number, found {scale}.")
    return scale
