"""Which spots are held out together: whole sections, or all sections of a donor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.spots.sections import read_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Fold:
    """One group held out, and all others to train on.

    Attributes
    ----------
    name
        Of the group that is held out.
    test
        `(n,)`, true for its spots.
    """

    name: str
    test: NDArray[np.bool_]


def leave_one_group_out(
    adata: AnnData, library_key: str, group_key: str | None = None, only: Sequence[str] | None = None
) -> list[Fold]:
    """Return one fold a group.

    Parameters
    ----------
    adata
        All sections.
    library_key
        Column of `.obs` with the section of each spot.
    group_key
        Column of `.obs` with the group of each spot, for instance its donor; None: each section is one.
    only
        Names of the groups to hold out; None: each in turn. All others are trained on in any case.

    Raises
    ------
    KeyError
        If a column is missing, or a name in `only` is no group.
    ValueError
        If there are fewer than two groups, or a section is in more than one: its spots are alike, and would leak.
    """
    key = library_key if group_key is None else group_key
    groups, group = read_groups(adata, library_key, group_key)
    if len(groups) < 2:
        raise ValueError(
            f"Expected two groups or more in adata.obs[{key!r}], found {list(groups)}: one is held out, the others are "
            "trained on. Pass another group_key=, or data with more sections."
        )
    unknown = [str(name) for name in only or () if str(name) not in groups]
    if unknown:
        raise KeyError(f"Groups {unknown} in `folds` not found in adata.obs[{key!r}]. Available: {list(groups)}.")
    wanted = groups if only is None else [name for name in groups if name in {str(o) for o in only}]
    return [Fold(name, group == groups.index(name)) for name in wanted]


def describe_folds(library_key: str, group_key: str | None = None) -> str:
    """Say how the folds were made."""
    if group_key is None or group_key == library_key:
        return f"leave one section out ({library_key})"
    return f"leave one group out ({group_key})"
