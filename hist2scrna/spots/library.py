"""The entry of a library in `.uns["spatial"]`: its images and their scale factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.arguments import positive_number, shown
from hist2scrna.images.open import open_file
from hist2scrna.images.stains import StainStack, stack_of_array
from hist2scrna.messages import require_key, warn_of_section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

    from hist2scrna.images.base import SectionImage

# What an entry must hold one of to be a library: some files keep flags next to their libraries.
PARTS = (keys.IMAGES, keys.SCALEFACTORS, keys.METADATA)
WHERE = f"adata.uns['{keys.SPATIAL}']"
# Files of CELLxGENE keep the full-resolution image under these names, without a scale factor.
AT_FULL_RESOLUTION = ("fullres", "full")

# By the identity of the entry, which its images keep alive.
_shared: ContextVar[dict[int, LibraryImages] | None] = ContextVar("_shared", default=None)


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
    known = libraries(adata)
    names = list(known)
    if library is None and len(names) > 1:
        raise ValueError(
            f"{WHERE} holds {len(names)} libraries: {names}. Pass library_key=, the column of adata.obs that tells "
            "which spot belongs to which."
        )
    name = library if library is not None else names[0] if names else None
    if name is None or name not in known:
        raise KeyError(no_library(names, name))
    return name, known[name]


def no_library(names: Sequence[str], library: str | None) -> str:
    """Return the sentence for a library that is missing among those of these names."""
    if library is None or not names:
        return (
            f"No library in {WHERE}: images and scale factors are looked up there by library. Read the section with "
            "squidpy.read.visium, or write {library: {'images': ..., 'scalefactors': ...}} there."
        )
    return f"Library {library!r} not found in {WHERE}. Available libraries: {list(names)}."


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
    return images_of(*library_entry(adata, library)).image(img_key)


@contextmanager
def images_shared() -> Iterator[None]:
    """Within the block, all that reads the same entry of `.uns["spatial"]` shares its opened images.

    For functions that call others with the same AnnData, as evaluating calls predicting.
    """
    if _shared.get() is not None:
        yield
        return
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def images_of(name: str, entry: Mapping[str, Any]) -> LibraryImages:
    """Return the images of a library: within :func:`images_shared`, those that are open already."""
    shared = _shared.get()
    if shared is None:
        return LibraryImages(name, entry)
    return shared.setdefault(id(entry), LibraryImages(name, entry))


class LibraryImages:
    """The images of a library, each opened when it is first asked for, and kept.

    Parameters
    ----------
    name
        Name of the library, for messages.
    entry
        Its entry in `.uns["spatial"]`.
    """

    def __init__(self, name: str, entry: Mapping[str, Any]) -> None:
        self.name = name
        self.where = f"adata.uns['{keys.SPATIAL}']['{name}']"
        self.entry = entry
        self._opened: dict[str | Path, SectionImage] = {}

    def image(self, img_key: str | Sequence[str] | None = None) -> SectionImage:
        """Return the image of that name, or several as a stack; None: the finest available, which may be a file."""
        if img_key is not None and not isinstance(img_key, Iterable):
            raise ValueError(f"Expected `img_key` to be the name of an image, or a list of names, found {img_key!r}.")
        if img_key is not None and not isinstance(img_key, str):
            return StainStack([self.image(name) for name in img_key])
        return self._open(self._finest() if img_key is None else img_key)

    def coarse_image(self, scale: float) -> SectionImage:
        """Return the smallest image in AnnData of at least this scale, else the finest; a file if there is no other."""
        scales = self._scales()
        fine = [name for name in scales if scales[name] >= scale]
        if fine:
            return self._open(min(fine, key=lambda name: scales[name]))
        return self._open(max(scales, key=lambda name: scales[name]) if scales else self._finest())

    def _scales(self) -> dict[str, float]:
        return {name: image_scale(self.entry, name, self.where) for name in self.entry.get(keys.IMAGES) or {}}

    def _finest(self) -> str | Path:
        """Return the path of the full-resolution file, else the name of the finest image in AnnData."""
        images = self.entry.get(keys.IMAGES) or {}
        source = (self.entry.get(keys.METADATA) or {}).get(keys.SOURCE_IMAGE_PATH)
        if source:
            if Path(str(source)).exists():
                return Path(str(source))
            instead = f"using the finest of {list(images)} instead" if images else "and there is no other image"
            warn_of_section(
                self.name,
                "file that is not there",
                f"{self.where}['{keys.METADATA}']['{keys.SOURCE_IMAGE_PATH}'] names '{source}', which is not there; "
                f"{instead}. Pass image= with the right path.",
            )
        if not images:
            raise KeyError(
                f"No images in {self.where}['{keys.IMAGES}']. Pass image= (a path or an array), or features_key=."
            )
        scales = self._scales()
        return max(scales, key=lambda name: scales[name])

    def _open(self, which: str | Path) -> SectionImage:
        if which not in self._opened:
            if isinstance(which, Path):
                self._opened[which] = open_file(which)
            else:
                where = f"{self.where}['{keys.IMAGES}']"
                images = self.entry.get(keys.IMAGES) or {}
                require_key(images, which, where)
                scale = image_scale(self.entry, which, self.where)
                self._opened[which] = stack_of_array(images[which], scale, f"{where}['{which}']")
        return self._opened[which]


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
    return positive_number(factors[key], f"{where}['scalefactors']['{key}']")


def check_entry(name: str, entry: Mapping[str, Any]) -> None:
    """Refuse an entry of `.uns["spatial"]` whose parts are no dictionaries.

    Raises
    ------
    ValueError
        If one is something else.
    """
    for part in PARTS:
        if not isinstance(entry.get(part), Mapping | None):
            raise ValueError(
                f"Expected {WHERE}['{name}']['{part}'] to be a dictionary, found {shown(entry[part])}. Read the "
                "section with squidpy.read.visium, which writes it so."
            )
