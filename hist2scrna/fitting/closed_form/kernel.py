"""Ridge regressions on features or a kernel, each target with a penalty chosen on groups left out, and their mean.

The formulas stand at the head of `hist2scrna.models.kernel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.fitting.closed_form.folds import grouped_folds, penalties
from hist2scrna.metrics.blocks import Floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

PENALTIES = penalties(-2.5, 2.5)
# Directions of the kernel below this share of the largest are rounding.
NOISE = 1e-10


@dataclass(frozen=True)
class Regression:
    """What :func:`regress` returns.

    Attributes
    ----------
    weights
        `(k, targets)`: a prediction is space `(n, k)` @ weights + offset.
    offset
        `(targets,)`, their means.
    left_out
        `(penalties, n, targets)`, each spot predicted without its group, by each penalty.
    chosen
        `(targets,)`, the number of the penalty chosen for each.
    """

    weights: Floats
    offset: Floats
    left_out: Floats
    chosen: NDArray[np.int64]

    @property
    def best_left_out(self) -> Floats:
        """`(n, targets)`, each spot predicted without its group, by the penalty chosen for each target."""
        values: Floats = self.left_out[self.chosen, :, np.arange(len(self.chosen))].T
        return values


def regress(space: Floats, seen: Floats, targets: Floats, group: NDArray[np.int64]) -> Regression:
    """Regress targets, centered by their mean, on a space.

    Parameters
    ----------
    space
        `(n, k)`, of the spots.
    seen
        `(n, k)`, of the spots as one to predict is seen: what stands for `space` where a spot is left out.
    targets
        `(n, t)`.
    group
        `(n,)`, at least two different numbers: groups, or a fifth of them, are left out in turn.
    """
    tried = np.array(PENALTIES)
    left_out = np.empty((len(tried), *targets.shape))
    for rest, left in grouped_folds(group):
        weights, offset = _solve(space[rest], targets[rest], tried)
        left_out[:, left] = seen[left] @ weights + offset
    chosen = np.square(left_out - targets).mean(axis=1).argmin(axis=0)
    weights, offset = _solve(space, targets, tried)
    return Regression(weights[chosen, :, np.arange(targets.shape[1])].T, offset, left_out, chosen)


def to_kernel_space(landmarks: Floats) -> Floats:
    """Return the `(m, k)` that takes a kernel `(n, m)` to the space where kernel ridge regression is ridge regression.

    That is `K^(-1/2)`, with `K` `(m, m)` the kernel among landmarks. Exact where every spot is a landmark, the Nyström
    approximation (Williams and Seeger, NIPS 2000) where they are fewer.
    """
    values, vectors = np.linalg.eigh(landmarks)
    kept = values > NOISE * values[-1]
    space: Floats = vectors[:, kept] / np.sqrt(values[kept])
    return space


def _solve(space: Floats, targets: Floats, tried: Floats) -> tuple[Floats, Floats]:
    """Return the weights for each penalty that is tried, `(penalties, k, t)`, and the mean of the targets."""
    offset = targets.mean(axis=0)
    values, vectors = np.linalg.eigh(space.T @ space)
    projected = vectors.T @ (space.T @ (targets - offset))
    shrunk = projected / (np.maximum(values, 0)[:, None] + tried[:, None, None])
    return vectors @ shrunk, offset
