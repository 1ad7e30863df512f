"""The entry of a section in `.uns["spatial"]`: its picture and its scale factors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.images.open import open_file
from hist2scrna.images.stains import StainStack, stack_of_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from hist2scrna.images.base import SlideImage


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
    libraries = adata.uns.get(keys.SPATIAL)
    if not libraries:
        raise KeyError(
            f"No {where}: images and scale factors are looked up there by library. Read the section with "
            "squidpy.read.visium, or write {library: {'images': ..., 'scalefactors': ...}} there."
        )
    names = list(libraries)
    if library is None:
        if len(names) > 1:
            raise ValueError(
                f"{where} holds {len(names)} libraries: {names}. Pass library_key=, the column of adata.obs that tells "
                "which spot belongs to which."
            )
        library = names[0]
    if library not in libraries:
        raise KeyError(f"Library {library!r} not found in {where}. Available libraries: {names}.")
    return str(library), libraries[library]


def open_image(
    adata: AnnData,
    library: str | None,
    *,
    img_key: str | Sequence[str] | None = None,
    image: Any | Mapping[str, Any] | None = None,
) -> SlideImage:
    """Open the picture of one section: the finest available, unless told otherwise.

    Parameters
    ----------
    adata
        Annotated data with `.uns["spatial"]`.
    library
        Its name in `.uns["spatial"]`; None for the only one.
    img_key
        Name in `images`; then no file is looked for. Several names: registered stains, stacked in this order.
    image
        A path or an array in full-resolution pixels, a list of these for several registered stains, or a dictionary
        by library; wins over all others. An array may have more channels: RGB, then one for each marker. Of a
        path, TIFF, OME-TIFF, SVS, OME-Zarr, JPEG, PNG, and with OpenSlide other vendors' files.

    Raises
    ------
    KeyError
        If the library, the image or its scale factor is missing.
    FileNotFoundError, ImportError, ValueError
        If a file is missing, needs OpenSlide, or cannot be read.
    """
    if image is not None:
        if isinstance(image, dict):
            if library not in image:
                raise KeyError(f"No image for library {library!r} in `image`. Given: {list(image)}.")
            image = image[library]
        if isinstance(image, list | tuple):
            return StainStack([open_image(adata, library, image=one) for one in image])
        if isinstance(image, str | Path):
            return open_file(image)
        return stack_of_array(image, 1.0, "the argument `image`")
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
        warnings.warn(
            f"{where}['metadata']['{keys.SOURCE_IMAGE_PATH}'] names '{source}', which is not there; {instead}. "
            "Pass image= with the right path.",
            UserWarning,
            stacklevel=2,
        )
    if not images:
        raise KeyError(f"No images in {where}['images']. Pass image= (a path or an array), or features_key=.")
    scales = {name: image_scale(entry, name, where) for name in ([img_key] if img_key else images)}
    name = max(scales, key=lambda key: scales[key])
    return stack_of_array(images[name], scales[name], f"{where}['images']['{name}']")


def image_scale(entry: Mapping[str, Any], img_key: str, where: str) -> float:
    """Return the scale factor of an image, checked."""
    key = keys.image_scale(img_key)
    factors = entry.get(keys.SCALEFACTORS) or {}
    if key not in factors:
        raise KeyError(
            f"Scale factor {key!r} not found in {where}['scalefactors']. Available: {list(factors)}. It is the number "
            f"of pixels of the image {img_key!r} per full-resolution pixel."
        )
    scale = float(factors[key])
    if not np.isfinite(scale) or scale <= 0:
        raise ValueError(f"Expected {where}['scalefactors']['{key}'] to be a positive number, found {scale}.")
    return scale
