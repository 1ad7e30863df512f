"""What is left out together in cross-validation: groups, sections, or blocks of spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def left_out_groups(spots: Spots, training: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what to leave out together, as a number a training spot.

    Its group of sections; with one group, its section; with one section, one of five contiguous blocks.
    """
    for group in (spots.group, spots.section):
        if group is not None and len(np.unique(group[training])) > 1:
            return group[training]
    blocks = spatial_blocks(spots.xy, training, -(-len(training) // BLOCKS))
    place = {spot: number for number, block in enumerate(blocks) for spot in block}
    return np.array([place[spot] for spot in training])


def grouped_folds(group: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the spots kept and those left out: group by group, or a fifth of the groups where there are more than five.

    Of one group, fifths in the order of the spots.
    """
    from sklearn.model_selection import GroupKFold, KFold

    n_groups = len(np.unique(group))
    if n_groups == 1:
        return KFold(min(MOST_FOLDS, len(group))).split(group)
    return GroupKFold(min(MOST_FOLDS, n_groups)).split(group, groups=group)
