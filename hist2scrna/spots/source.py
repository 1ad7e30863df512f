"""Where a function reads: which slots, which image, which scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.messages import require_key
from hist2scrna.spots.library import libraries

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Source:
    """The arguments that say where to read, as the public functions take them; resolved once, then handed on.

    Attributes
    ----------
    library_key
        Column of `.obs` with the section of each spot. None: `"library_id"` if it is there and names libraries of
        `.uns["spatial"]` (or that is empty), else all spots are one section.
    spatial_key
        Slot of `.obsm` with the coordinates.
    img_key
        Name, or several names, of images in `.uns["spatial"][library]["images"]`; None: the finest available.
    image
        A full-resolution image in place of these: a path, an array, a list of stains, or a dictionary by section.
    features_key
        Slot of `.obsm` with features.
    mpp
        Microns per full-resolution pixel; None: from the metadata, the image file, or the spot diameter.
    nuclei
        Label image or polygons of the nuclei, or a dictionary of these by section; or AnnData of nuclei, where the rows
        are spots; None: nuclei are drawn. For models on tiles.
    """

    library_key: str | None = None
    spatial_key: str = keys.SPATIAL
    img_key: str | Sequence[str] | None = None
    image: Any = None
    features_key: str | None = None
    mpp: float | None = None
    nuclei: Any = None


def resolve_library_key(adata: AnnData, library_key: str | None) -> str | None:
    """Return the column of `.obs` that tells the sections apart, None where all spots are one section.

    Raises
    ------
    KeyError
        If the column that was named is missing.
    """
    if library_key is not None:
        require_key(adata.obs, library_key, "adata.obs")
        return library_key
    if keys.LIBRARY not in adata.obs:
        return None
    known = libraries(adata)
    names = set(adata.obs[keys.LIBRARY].dropna().astype(str))
    return keys.LIBRARY if not known or names <= set(known) else None


def image_of(image: Any, section: str, argument: str = "image") -> Any:
    """Return the image of one section that was passed as `argument`: of a dictionary its entry, else the image itself.

    Raises
    ------
    KeyError
        If a dictionary has no entry of that name.
    """
    if not isinstance(image, Mapping):
        return image
    if section not in image:
        raise KeyError(f"No image for section {section!r} in `{argument}`. Given: {list(image)}.")
    return image[section]
