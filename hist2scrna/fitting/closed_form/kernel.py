"""Ridge regressions on features or a kernel, each target with a penalty chosen on groups left out, and their mean.

The formulas stand at the head of `hist2scrna.models.kernel`. Rows are read block by block, and what is kept of them are
sums of products: of `n` spots nothing is held but the targets and what is predicted of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from hist2scrna.fitting.closed_form.folds import grouped_folds, penalties
from hist2scrna.metrics.blocks import Floats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hist2scrna.fitting.closed_form.donors import Donors

PENALTIES = penalties(-2.5, 2.5)
# Directions of the kernel below this share of the largest are rounding.
NOISE = 1e-10
# Spots whose kernel is held at once: 16 MB of float64 with 2,000 landmarks.
ROWS = 1024


@dataclass(frozen=True)
class Space:
    """What a ridge regression is on, made from a table of a row a spot.

    Attributes
    ----------
    buffer
        Name of the buffer that holds its weights.
    of_depth
        Whether the library size is predicted from it; programs and classes are from all.
    back
        From rows of the table, `(n, r)`, to the space, and from weights in the space, `(k, t)`, to those of the table,
        which the buffer holds: a matrix `(r, k)`, or a factor.
    """

    buffer: str
    of_depth: bool
    back: Floats | float

    def of(self, table: Floats) -> Floats:
        """Return rows of the table in the space, `(n, k)`."""
        return table @ self.back if isinstance(self.back, np.ndarray) else table * self.back

    def weights(self, weights: Floats) -> Floats:
        """Return weights as the buffer holds them."""
        return self.back @ weights if isinstance(self.back, np.ndarray) else self.back * weights


class Tables(Protocol):
    """Where rows are read from; a table, `(b, r)`, for each of the spaces."""

    spaces: Sequence[Space]

    @property
    def one_look(self) -> bool:
        """Whether `spots` and `seen` are the same."""
        ...

    def spots(self, rows: NDArray[np.int64]) -> Sequence[Floats]:
        """Return the tables of spots to learn from."""
        ...

    def seen(self, rows: NDArray[np.int64]) -> Sequence[Floats]:
        """Return those of spots as one to predict is seen, which stand for them where they are left out."""
        ...


@dataclass(frozen=True)
class Regression:
    """What :func:`regress` returns.

    Attributes
    ----------
    weights
        For each space `(r, targets)`: a prediction is the sum of table `(n, r)` @ weights, + offset.
    offset
        `(targets,)`.
    left_out
        `(n, targets)`, each spot predicted without its group, by the penalty chosen for each space and target, at the
        level of its donor.
    error
        `(penalties, targets)`, mean squared error of what was left out, by one penalty for all spaces.
    chosen
        `(spaces, targets)`, the number of the penalty chosen for each.
    """

    weights: list[Floats]
    offset: Floats
    left_out: Floats
    error: Floats
    chosen: NDArray[np.int64]


def regress(tables: Tables, targets: Floats, group: NDArray[np.int64], donors: Donors) -> Regression:
    """Regress targets on each space within donors, and average the regressions.

    Parameters
    ----------
    tables
        The spaces, and where the rows are read.
    targets
        `(n, t)`, the first the library size.
    group
        `(n,)`, at least two different numbers: groups, or a fifth of them, are left out in turn.
    donors
        Whose spots they are; everything is centered by donor.
    """
    spaces, folds = tables.spaces, [left for _, left in grouped_folds(group)]
    level = donors.means(targets)
    n_by = np.stack([np.bincount(donors.code[left], minlength=len(donors)) for left in folds])
    sums = _sums(tables, folds, donors, seen=False)
    centers = [each.sum(axis=0) / np.maximum(n_by.sum(axis=0), 1)[:, None] for each in sums]
    moments = _moments(tables, folds, targets, level, centers, donors)
    share = np.full((len(spaces), targets.shape[1]), 1 / len(spaces))
    share[:, 0] = [space.of_depth / sum(other.of_depth for other in spaces) for space in spaces]
    seen = sums if tables.one_look else _sums(tables, folds, donors, seen=True)
    without = [LeftOut.of(space, parts, each, n_by) for space, parts, each in zip(spaces, moments, seen, strict=True)]
    chosen, error = _choose(tables, folds, targets, level, share, without, donors)
    picked = [part.picked(best) for part, best in zip(without, chosen, strict=True)]
    left_out = level[donors.code]
    for number, rows in _pieces(folds):
        for part, table, by in zip(picked, tables.seen(rows), share, strict=True):
            left_out[rows] += part.predict(table, number, donors.code[rows])[:, 0] * by
    weights, offset = [], level[donors.present].mean(axis=0)
    for space, parts, best, by, center in zip(spaces, moments, chosen, share, centers, strict=True):
        every = np.arange(len(best))
        solved = _total(parts).solve()[0][best, :, every].T
        weights.append(space.weights(solved) * by)
        offset = offset - center[donors.present].mean(axis=0) @ weights[-1]
    return Regression(weights, offset, left_out, error, chosen)


def to_kernel_space(landmarks: Floats) -> Floats:
    """Return the `(m, k)` that takes a kernel `(n, m)` to the space where kernel ridge regression is ridge regression.

    That is `K^(-1/2)`, with `K` `(m, m)` the kernel among landmarks. Exact where every spot is a landmark, the Nyström
    approximation (Williams and Seeger, NIPS 2000) where they are fewer.
    """
    values, vectors = np.linalg.eigh(landmarks)
    kept = values > NOISE * values[-1]
    space: Floats = vectors[:, kept] / np.sqrt(values[kept])
    return space


class Moments(NamedTuple):
    """Sums over some spots, of their rows in a space and their targets: what a ridge regression is solved from."""

    n: int
    gram: Floats
    cross: Floats
    rows: Floats
    targets: Floats

    @classmethod
    def of(cls, rows: Floats, targets: Floats) -> Moments:
        """Return those of `(n, k)` and `(n, t)`."""
        return cls(len(rows), rows.T @ rows, rows.T @ targets, rows.sum(axis=0), targets.sum(axis=0))

    def solve(self) -> tuple[Floats, Floats]:
        """Return the weights for each penalty that is tried, `(penalties, k, t)`, and the mean of the targets."""
        offset = self.targets / self.n
        values, vectors = np.linalg.eigh(self.gram)
        projected = vectors.T @ (self.cross - np.outer(self.rows, offset))
        shrunk = projected / (np.maximum(values, 0)[:, None] + np.array(PENALTIES)[:, None, None])
        return vectors @ shrunk, offset


def _total(parts: Sequence[Moments]) -> Moments:
    """Return the sums over several sets of spots."""
    return Moments(*(sum(values[1:], values[0]) for values in zip(*parts, strict=True)))


def _pieces(folds: Sequence[NDArray[np.int64]]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the spots of each fold in blocks, each with the number of its fold."""
    for number, left in enumerate(folds):
        for start in range(0, len(left), ROWS):
            yield number, left[start : start + ROWS]


def _sums(tables: Tables, folds: Sequence[NDArray[np.int64]], donors: Donors, *, seen: bool) -> list[Floats]:
    """Return the sums of each table by fold and donor, `(folds, donors, r)`."""
    sums: list[Floats] = []
    for number, rows in _pieces(folds):
        read = tables.seen(rows) if seen else tables.spots(rows)
        member = (np.arange(len(donors))[:, None] == donors.code[rows]).astype(np.float64)
        sums = sums or [np.zeros((len(folds), len(donors), table.shape[1])) for table in read]
        for total, table in zip(sums, read, strict=True):
            total[number] += member @ table
    return sums


def _moments(
    tables: Tables,
    folds: Sequence[NDArray[np.int64]],
    targets: Floats,
    level: Floats,
    centers: Sequence[Floats],
    donors: Donors,
) -> list[list[Moments]]:
    """Return the sums of each space and fold, rows and targets centered by donor."""
    found: list[list[Moments]] = [[] for _ in centers]
    for number, rows in _pieces(folds):
        code = donors.code[rows]
        within = targets[rows] - level[code]
        for parts, space, table, center in zip(found, tables.spaces, tables.spots(rows), centers, strict=True):
            block = Moments.of(space.of(table - center[code]), within)
            parts[number:] = [_total([*parts[number:], block])]
    return found


@dataclass(frozen=True)
class LeftOut:
    """A regression without each fold, by several penalties, as it predicts the spots of that fold.

    Attributes
    ----------
    weights
        For each fold `(r, penalties, t)`, on rows of the table.
    constant
        For each fold `(donors, penalties, t)`: what is added where rows are centered by donor.
    mean
        `(donors, penalties, t)`, mean over the spots of a donor.
    """

    weights: list[Floats]
    constant: list[Floats]
    mean: Floats

    @classmethod
    def of(cls, space: Space, parts: Sequence[Moments], seen: Floats, n_by: NDArray[np.int64]) -> LeftOut:
        """Solve it without each fold in turn.

        `seen` are the sums of the table by fold and donor, of spots as one to predict is seen; `n_by` their numbers.
        """
        n_donor = np.maximum(n_by.sum(axis=0), 1)
        center = seen.sum(axis=0) / n_donor[:, None]
        weights, constant = [], []
        for number in range(len(parts)):
            solved, offset = _total([part for other, part in enumerate(parts) if other != number]).solve()
            weights.append(np.stack([space.weights(by_penalty) for by_penalty in solved], axis=1))
            constant.append(offset - np.tensordot(center, weights[-1], 1))
        totals = [
            np.tensordot(table, by_fold, 1) + n[:, None, None] * added
            for table, by_fold, n, added in zip(seen, weights, n_by, constant, strict=True)
        ]
        return cls(weights, constant, np.sum(totals, axis=0) / n_donor[:, None, None])

    def picked(self, chosen: NDArray[np.int64]) -> LeftOut:
        """Return it by the penalty chosen for each target alone."""
        every = np.arange(len(chosen))
        weights, constant = (
            [part[:, chosen, every][:, None] for part in all_] for all_ in (self.weights, self.constant)
        )
        return LeftOut(weights, constant, self.mean[:, chosen, every][:, None])

    def predict(self, table: Floats, fold: int, code: NDArray[np.int64]) -> Floats:
        """Return `(b, penalties, t)` for spots of a fold, by their rows and donors, less the mean of the donor."""
        predicted: Floats = np.tensordot(table, self.weights[fold], 1)
        return predicted + (self.constant[fold] - self.mean)[code]


def _choose(
    tables: Tables,
    folds: Sequence[NDArray[np.int64]],
    targets: Floats,
    level: Floats,
    share: Floats,
    without: Sequence[LeftOut],
    donors: Donors,
) -> tuple[NDArray[np.int64], Floats]:
    """Return the penalty of least error by space and target, and the error of the mean of all spaces by each."""
    errors = np.zeros((len(without), len(PENALTIES), targets.shape[1]))
    of_mean = np.zeros(errors.shape[1:])
    for number, rows in _pieces(folds):
        code = donors.code[rows]
        within = (targets[rows] - level[code])[:, None]
        mean = -within
        for error, part, table, by in zip(errors, without, tables.seen(rows), share, strict=True):
            predicted = part.predict(table, number, code)
            mean = mean + predicted * by
            predicted += part.mean[code]
            error += np.square(predicted - within).sum(axis=0)
        of_mean += np.square(mean).sum(axis=0)
    return errors.argmin(axis=1), of_mean / len(targets)
