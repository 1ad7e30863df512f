"""Which section each spot is of, and which sections belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna import keys
from hist2scrna.spots.library import library_entry

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def read_sections(adata: AnnData, library_key: str | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the sections and the number of the section of each spot.

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
        libraries = list(adata.uns.get(keys.SPATIAL, {}))
        if len(libraries) > 1:
            library_entry(adata, None)
        return (libraries[0] if libraries else "section",), np.zeros(adata.n_obs, dtype=np.int64)
    if library_key not in adata.obs:
        raise KeyError(f"Key {library_key!r} not found in adata.obs. Available keys: {list(adata.obs.columns)}.")
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
