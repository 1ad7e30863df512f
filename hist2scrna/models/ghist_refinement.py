"""Types of nuclei, drawn anew by the composition of their tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


def candidates_of(
    probability: NDArray[np.float64], types: Sequence[int], sure: Mapping[int, float]
) -> NDArray[np.int64]:
    """Return the nuclei whose most probable type is one of `types`, but for those that are surely of one in `sure`."""
    chosen = np.isin(probability.argmax(axis=1), types)
    for number, threshold in sure.items():
        chosen &= probability[:, number] <= threshold
    return np.flatnonzero(chosen)


def refine_tile(
    probability: NDArray[np.float64],
    composition: NDArray[np.float64],
    types: Sequence[int],
    candidates: NDArray[np.int64],
    noise: NDArray[np.float64],
    strength: float,
    toward: int | None = None,
) -> NDArray[np.int64]:
    """Return the types of the nuclei of one tile, some of them changed towards the composition of the tile.

    A type of which the tile is said to have more than its nuclei show gains, by its lack times the number of nuclei
    times noise about its share: the greatest of log probability and gain is the new type. Source: GHIST.

    Parameters
    ----------
    probability
        `(n, C)` probability of each type.
    composition
        `(C,)` estimated shares.
    types
        Numbers of the `k` types that may be exchanged.
    candidates
        `(m,)` numbers of the nuclei that may change.
    noise
        `(m, k)` drawn from the standard normal distribution.
    strength
        Factor of the gain.
    toward
        The one type that gains, by its whole share, whatever the nuclei show; None: each gains by its lack.
    """
    best = probability.argmax(axis=1)
    if len(candidates) == 0:
        return best
    wanted = composition[list(types)]
    shown = np.bincount(best, minlength=len(composition))[list(types)] / len(best)
    lack = wanted - shown if toward is None else np.where(np.asarray(types) == toward, wanted, 0)
    gain = strength * len(best) * lack * np.abs(noise - noise.mean(axis=0) + wanted)
    level = np.log(np.maximum(probability[candidates][:, list(types)], 1e-30)) + gain
    refined = best.copy()
    refined[candidates] = np.asarray(types)[level.argmax(axis=1)]
    return refined
