"""The sections of an AnnData: their spots, images and scales, opened once; and which of them belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from hist2scrna import keys
from hist2scrna.images.nucleus_masks import finest_scale
from hist2scrna.messages import require_key
from hist2scrna.spots.library import (
    LibraryImages,
    check_entry,
    has_image,
    images_of,
    libraries,
    library_entry,
    no_library,
    open_given,
)
from hist2scrna.spots.scale import SectionScale, section_scale
from hist2scrna.spots.source import Source, image_of, resolve_library_key
from hist2scrna.stored import read_anndata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.images.base import SectionImage


@dataclass
class Section:
    """One section; its image is opened when it is first asked for, and kept.

    Attributes
    ----------
    name
        Its name.
    rows
        Numbers of its spots.
    entry
        Its entry in `.uns["spatial"]`; empty where there is none.
    source
        Where to read.
    libraries
        Names of all libraries in `.uns["spatial"]`, for messages.
    """

    name: str
    rows: NDArray[np.int64]
    entry: Mapping[str, Any]
    source: Source
    libraries: tuple[str, ...] = ()

    @cached_property
    def _library(self) -> LibraryImages:
        if not self.entry:
            raise KeyError(no_library(self.libraries, self.name))
        return images_of(self.name, self.entry)

    @property
    def has_image(self) -> bool:
        """Whether an image is there: one that was passed, in AnnData, or as a file that it names."""
        return self.source.image is not None or has_image(self.entry)

    @cached_property
    def image(self) -> SectionImage:
        """The image: the one that was passed, else that of `img_key`, else the finest.

        Raises
        ------
        KeyError, FileNotFoundError, ImportError, ValueError
            If it is missing or cannot be read.
        """
        if self.source.image is not None:
            return open_given(image_of(self.source.image, self.name))
        return self._library.image(self.source.img_key)

    def coarse_image(self, scale: float) -> SectionImage:
        """Return an image for drawing: the smallest in AnnData of at least this scale, else the finest.

        Raises
        ------
        KeyError, FileNotFoundError, ImportError, ValueError
            If it is missing or cannot be read.
        """
        return self.image if self.source.image is not None else self._library.coarse_image(scale)

    @cached_property
    def scale(self) -> SectionScale:
        """Microns per full-resolution pixel, and the diameter of a spot.

        Raises
        ------
        KeyError, ValueError
            If nothing tells the scale, or what tells it is not a positive number.
        """
        if not self.entry and not self.has_image and self.source.mpp is None:
            raise KeyError(no_library(self.libraries, self.name))
        return section_scale(self.name, self.entry, self.source.mpp, self.image if self.has_image else None)


@dataclass(frozen=True)
class OpenedSections:
    """All sections of an AnnData, with where they are read from.

    Attributes
    ----------
    adata
        The annotated data.
    source
        Where to read; `library_key` is resolved.
    members
        The sections.
    codes
        `(n,)` int64, number of the section of each spot.
    rows
        `(n,)` int64, numbers of the spots in the AnnData that was given; `adata` holds these alone.
    """

    adata: AnnData
    source: Source
    members: tuple[Section, ...]
    codes: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sections."""
        return tuple(section.name for section in self.members)

    @property
    def patches_are_files(self) -> bool:
        """Whether patches are files of their own, and no image was asked for instead.

        Raises
        ------
        ValueError
            If those of some sections are, and of others are not.
        """
        if self.source.image is not None or self.source.img_key is not None:
            return False
        without = [s.name for s in self.members if not (s.entry.get(keys.METADATA) or {}).get(keys.PATCH_FOLDER)]
        if without and len(without) < len(self.members):
            raise ValueError(
                f"Some sections have their patches in a folder, others have not: {without}. Write these with "
                "io.write_patch_folder too, or train on either kind."
            )
        return not without


def open_sections(adata: AnnData, source: Source) -> OpenedSections:
    """Resolve where to read, once; images are opened when they are needed, each at most once.

    Raises
    ------
    KeyError
        If the column of sections is missing.
    ValueError
        If a spot belongs to no section, an entry of `.uns["spatial"]` is none, one image was passed for several
        sections, or libraries cannot be told apart.
    """
    library_key = resolve_library_key(adata, source.library_key)
    resolved = replace(source, library_key=library_key, nuclei=_given_nuclei(source.nuclei))
    names, codes = read_sections(adata, library_key)
    if source.image is not None and not isinstance(source.image, Mapping) and len(names) > 1:
        raise ValueError(
            f"One `image` was given for {len(names)} sections: {list(names)}. Pass a dictionary of images by section."
        )
    if resolved.nuclei is not None and not isinstance(resolved.nuclei, Mapping | AnnData) and len(names) > 1:
        raise ValueError(
            f"One label image was given as `nuclei` for {len(names)} sections: {list(names)}. Pass a dictionary of "
            "these by section."
        )
    known = libraries(adata)
    for name in names:
        check_entry(name, known.get(name, {}))
    members = tuple(
        Section(name, np.flatnonzero(codes == code), known.get(name, {}), resolved, tuple(known))
        for code, name in enumerate(names)
    )
    return OpenedSections(adata, resolved, members, codes, np.arange(adata.n_obs))


def _given_nuclei(nuclei: Any) -> Any:
    """Return what was passed as `nuclei`: of a file with AnnData its content, of labels of SpatialData the finest."""
    if isinstance(nuclei, str | Path) and Path(nuclei).suffix == ".h5ad":
        if not Path(nuclei).is_file():
            raise FileNotFoundError(f"No file of nuclei at '{nuclei}'.")
        return read_anndata(Path(nuclei))
    return finest_scale(nuclei)


def read_sections(adata: AnnData, library_key: str | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the sections and the number of the section of each spot.

    Parameters
    ----------
    adata
        Annotated data.
    library_key
        Column of `.obs`, resolved (:func:`~hist2scrna.spots.source.resolve_library_key`); None: one section.

    Raises
    ------
    KeyError
        If the column is missing.
    ValueError
        If a spot belongs to no section, or there is no spot.
    """
    if adata.n_obs == 0:
        raise ValueError("adata has no spots (n_obs is 0).")
    if library_key is None:
        known = list(libraries(adata))
        if len(known) > 1:
            library_entry(adata, None)
        return (known[0] if known else "section",), np.zeros(adata.n_obs, dtype=np.int64)
    require_key(adata.obs, library_key, "adata.obs")
    column = adata.obs[library_key].astype("category").cat.remove_unused_categories()
    codes = column.cat.codes.to_numpy(dtype=np.int64)
    if (codes < 0).any():
        raise ValueError(
            f"{int((codes < 0).sum())} spots have no value in adata.obs[{library_key!r}] "
            f"(the first is {adata.obs_names[codes < 0][0]!r}). Fill it in, or drop them."
        )
    return tuple(str(c) for c in column.cat.categories), codes


def read_groups(
    adata: AnnData, library_key: str | None, group_key: str | None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the groups of sections, such as donors, and the number of the group of each spot.

    Without `group_key` each section is a group of its own.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a section lies in more than one group, or a spot in none.
    """
    sections, section = read_sections(adata, library_key)
    if group_key is None:
        return sections, section
    groups, group = read_sections(adata, group_key)
    for code, name in enumerate(sections):
        within = np.unique(group[section == code])
        if len(within) > 1:
            raise ValueError(
                f"Section {name!r} lies in {len(within)} groups of adata.obs[{group_key!r}]: "
                f"{[groups[g] for g in within]}. Neighboring spots are alike, so that a section must be held out as a "
                "whole: give each one group."
            )
    return groups, group
