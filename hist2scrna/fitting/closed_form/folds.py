"""What is left out together in cross-validation: groups, sections, or blocks of spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hist2scrna.fitting.batches import spatial_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

# Of spots of one section; the most that are left out in turn.
BLOCKS = MOST_FOLDS = 5


def penalties(lowest: float, highest: float) -> tuple[float, ...]:
    """Return the penalties to try, by half powers of ten, from the logarithms of the lowest and the highest."""
    return tuple(float(p) for p in 10.0 ** np.arange(lowest, highest + 0.1, 0.5))


class LeftOutGroups(NamedTuple):
    """What is left out together: a number for each training spot, and the words for it."""

    number: NDArray[np.int64]
    what: str


def left_out_groups(spots: Spots, training: NDArray[np.int64]) -> LeftOutGroups:
    """Return what to leave out together.

    Its group of sections; with one group, its section; with one section, one of five contiguous blocks.
    """
    for what, group in (("each group", spots.group), ("each section", spots.section)):
        if group is not None and len(np.unique(group[training])) > 1:
            return LeftOutGroups(group[training], f"{what} left out in turn")
    blocks = spatial_blocks(spots.xy, training, -(-len(training) // BLOCKS))
    place = np.empty(len(spots.xy), dtype=np.int64)
    for number, block in enumerate(blocks):
        place[block] = number
    return LeftOutGroups(place[training], f"each of {len(blocks)} contiguous blocks left out in turn")


def grouped_folds(group: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the spots kept and those left out: group by group, or a fifth of the groups where there are more than five.

    Of one group, fifths in the order of the spots.
    """
    from sklearn.model_selection import GroupKFold, KFold

    n_groups = len(np.unique(group))
    if n_groups == 1:
        return KFold(min(MOST_FOLDS, len(group))).split(group)
    return GroupKFold(min(MOST_FOLDS, n_groups)).split(group, groups=group)
