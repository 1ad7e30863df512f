"""What is trained on and what is held out: each section or donor in turn, or training and test groups as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hist2scrna.messages import nearest
from hist2scrna.spots.sections import read_groups, read_sections

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

Names: TypeAlias = Sequence[str] | str
# By the name of the split, what trains and what is tested.
Splits: TypeAlias = Mapping[str, tuple[Names, Names]]


@dataclass(frozen=True)
class Fold:
    """Spots to train on, and spots that are held out.

    Attributes
    ----------
    name
        Of the group that is held out, or of the split.
    train, test
        `(n,)`, true for the spots to train on and for those held out.
    split
        How the data were divided, in words; of a split that was given, its name.
    trained_on
        Names of the sections to train on, of a split that was given.
    scored
        Names of the sections that are scored each by itself; empty: all that is held out is scored together.
    """

    name: str
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    split: str
    trained_on: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()


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
    held_out = {name: group == groups.index(name) for name in wanted}
    how = "section" if key == library_key else "group"
    return [Fold(name, ~test, test, f"leave one {how} out ({key})") for name, test in held_out.items()]


def given_splits(adata: AnnData, library_key: str, splits: Splits, group_key: str | None = None) -> list[Fold]:
    """Return one fold a split, of which each test section is scored by itself.

    Parameters
    ----------
    adata
        All sections.
    library_key
        Column of `.obs` with the section of each spot.
    splits
        By the name of the split, names of what trains and of what is tested. What is in neither is not used.
    group_key
        Column of `.obs` whose values the names are; None: the sections themselves.

    Raises
    ------
    KeyError
        If a column is missing, or a name is in none of its rows; the nearest is named.
    TypeError, ValueError
        If the splits or one of them is empty or no pair, or something is on both sides.
    """
    if not isinstance(splits, Mapping) or not splits:
        raise ValueError(
            f"Expected `splits` to map names to pairs (training, test), found {splits!r}. Pass for instance "
            '{"C to B4": (["C2", "C3"], ["B4"])}, or leave it out to hold out each group in turn.'
        )
    key = library_key if group_key is None else group_key
    groups, group = read_groups(adata, library_key, group_key)
    sections, section = read_sections(adata, library_key)
    folds = []
    for name, pair in splits.items():
        train, test = (
            np.isin(group, [groups.index(member) for member in side]) for side in _sides(str(name), pair, groups, key)
        )
        trained_on, scored = (
            tuple(one for code, one in enumerate(sections) if (section[spots] == code).any()) for spots in (train, test)
        )
        folds.append(Fold(str(name), train, test, str(name), trained_on, scored))
    return folds


def _sides(name: str, pair: Any, groups: Sequence[str], key: str) -> tuple[list[str], list[str]]:
    """Return the names of what trains and of what is tested in one split, checked."""
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise TypeError(
            f"Expected split {name!r} to be a pair (training, test), each a list of values of adata.obs[{key!r}]; "
            f"found {pair!r}."
        )
    training, test = ([side] if isinstance(side, str) else [str(one) for one in side] for side in pair)
    for what, side in (("training", training), ("test", test)):
        if not side:
            raise ValueError(
                f"Split {name!r} has no {what} group: expected one value or more of adata.obs[{key!r}], {list(groups)}."
            )
        for one in side:
            if one not in groups:
                near = nearest(one, groups)
                hint = "" if near is None else f" Did you mean {near!r}?"
                raise KeyError(
                    f"Split {name!r}: {one!r} not found in adata.obs[{key!r}].{hint} Available: {list(groups)}."
                )
    if both := sorted(set(training) & set(test)):
        raise ValueError(f"Split {name!r} trains on {both} and tests on the same: take each out of one of the two.")
    return training, test
