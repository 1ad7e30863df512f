"""Ridge regression in the space of a kernel's landmarks, each target with a penalty chosen on groups left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import GroupKFold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PENALTIES = tuple(float(p) for p in 10.0 ** np.arange(-2.5, 2.6, 0.5))
MOST_FOLDS = 5
# Directions of the kernel below this share of the largest are rounding.
NOISE = 1e-10


@dataclass(frozen=True)
class KernelRegression:
    """What :func:`regress` found.

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


def regress(
    kernel: Floats, seen: Floats, landmarks: Floats, targets: Floats, group: NDArray[np.int64]
) -> KernelRegression:
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
    penalties = np.array(PENALTIES)
    tried = np.empty((len(penalties), *targets.shape))
    for rest, left in GroupKFold(min(MOST_FOLDS, len(np.unique(group)))).split(space, groups=group):
        weights, offset = _solve(space[rest], targets[rest], penalties)
        tried[:, left] = unseen[left] @ weights + offset
    errors = np.square(tried - targets).mean(axis=1)
    best = errors.argmin(axis=0)
    columns = np.arange(targets.shape[1])
    weights, offset = _solve(space, targets, penalties)
    return KernelRegression(
        dual=to_space @ weights[best, :, columns].T,
        offset=offset,
        left_out=tried[best, :, columns].T,
        penalty=penalties[best],
        errors=errors,
    )


def _solve(space: Floats, targets: Floats, penalties: Floats) -> tuple[Floats, Floats]:
    """Return the weights for each penalty, `(penalties, k, t)`, and the mean of the targets."""
    offset = targets.mean(axis=0)
    values, vectors = np.linalg.eigh(space.T @ space)
    projected = vectors.T @ (space.T @ (targets - offset))
    shrunk = projected / (np.maximum(values, 0)[:, None] + penalties[:, None, None])
    return vectors @ shrunk, offset
