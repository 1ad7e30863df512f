"""Models that are solved at once instead of trained step by step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from hist2scrna.fitting.batches import spatial_blocks
from hist2scrna.fitting.gradient import Trained
from hist2scrna.fitting.objective import log_normalized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.models.ridge import Ridge
    from hist2scrna.spots.read import Spots

BLOCKS = 5


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


def solve(model: Ridge, spots: Spots, training: NDArray[np.int64]) -> Trained:
    """Solve the ridge regression on the training spots, its penalty chosen on groups or sections left out in turn.

    With one section, five contiguous blocks take their place. The history has a row for each penalty.

    Parameters
    ----------
    model
        Solved in place.
    spots
        All spots, with counts and features.
    training
        Numbers of the spots to solve on.
    """
    if spots.counts is None or spots.features is None:
        raise ValueError("Ridge regression needs spots with counts and features.")
    start = time.perf_counter()
    group = left_out_groups(spots, training)
    target = log_normalized(torch.from_numpy(spots.counts[training].toarray())).numpy()
    label = None if spots.label is None else spots.label[training]
    errors = model.solve(spots.features[training], target, group, label)
    history = pd.DataFrame({"penalty": list(errors), "validation_loss": list(errors.values())})
    history["seconds"] = time.perf_counter() - start
    history.index.name = "epoch"
    best = int(history["validation_loss"].to_numpy().argmin())
    return Trained(history, best, time.perf_counter() - start)
