"""Ridge regression in the space of a kernel's landmarks, each target with a penalty chosen on groups left out.

The formula stands at the head of `hist2scrna.models.kernel`.
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
    dual
        `(landmarks, targets)`: a prediction is kernel `(n, landmarks)` @ dual + offset.
    offset
        `(targets,)`, their means.
    left_out
        `(n, targets)`, each spot predicted without its group.
    penalty
        `(targets,)`, the penalty chosen for each.
    errors
        `(penalties, targets)`, mean squared error over the spots left out.
    """

    dual: Floats
    offset: Floats
    left_out: Floats
    penalty: Floats
    errors: Floats


def regress(kernel: Floats, seen: Floats, landmarks: Floats, targets: Floats, group: NDArray[np.int64]) -> Regression:
    """Regress targets on a kernel.

    With `K` the kernel among landmarks, the spots are mapped to `kernel @ K^(-1/2)` and ridge regression is solved
    there: exactly kernel ridge regression where every spot is a landmark, its Nyström approximation (Williams and
    Seeger, NIPS 2000) where they are fewer. Targets are centered by their mean.

    Parameters
    ----------
    kernel
        `(n, m)`, of spots and landmarks.
    seen
        `(n, m)`, of the spots as one to predict is seen: what stands for `kernel` where a spot is left out.
    landmarks
        `(m, m)`, of landmarks among each other.
    targets
        `(n, t)`.
    group
        `(n,)`, at least two different numbers: groups, or a fifth of them, are left out in turn.
    """
    values, vectors = np.linalg.eigh(landmarks)
    kept = values > NOISE * values[-1]
    to_space = vectors[:, kept] / np.sqrt(values[kept])
    space = kernel @ to_space
    unseen = seen @ to_space
    tried = np.array(PENALTIES)
    left_out = np.empty((len(tried), *targets.shape))
    for rest, left in grouped_folds(group):
        weights, offset = _solve(space[rest], targets[rest], tried)
        left_out[:, left] = unseen[left] @ weights + offset
    errors = np.square(left_out - targets).mean(axis=1)
    best = errors.argmin(axis=0)
    columns = np.arange(targets.shape[1])
    weights, offset = _solve(space, targets, tried)
    return Regression(
        dual=to_space @ weights[best, :, columns].T,
        offset=offset,
        left_out=left_out[best, :, columns].T,
        penalty=tried[best],
        errors=errors,
    )


def _solve(space: Floats, targets: Floats, tried: Floats) -> tuple[Floats, Floats]:
    """Return the weights for each penalty that is tried, `(penalties, k, t)`, and the mean of the targets."""
    offset = targets.mean(axis=0)
    values, vectors = np.linalg.eigh(space.T @ space)
    projected = vectors.T @ (space.T @ (targets - offset))
    shrunk = projected / (np.maximum(values, 0)[:, None] + tried[:, None, None])
    return vectors @ shrunk, offset
