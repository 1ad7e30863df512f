"""Detection of zeros, from the predicted probability of a zero count."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hist2scrna.metrics.blocks import Floats, Table, pairs
from hist2scrna.metrics.correlation import rank_rows

NAMES = (
    "observed_zero_rate",
    "predicted_zero_rate",
    "accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "mae_nonzero",
    "auroc",
)


def auroc(positive: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve, from ranks (Mann and Whitney); ties count one half.

    Parameters
    ----------
    positive
        `(n,)` bool.
    score
        `(n,)`, higher for positives.

    Returns
    -------
    0..1; NaN if all are of one kind.

    Examples
    --------
    >>> h2s.metrics.auroc([True, False, True], [0.9, 0.2, 0.4])
    1.0
    """
    yes = np.asarray(positive, dtype=bool).ravel()
    return float(auroc_rows(yes[None], np.asarray(score, dtype=np.float64).reshape(1, -1))[0])


def auroc_rows(positive: np.ndarray, score: Floats) -> Floats:
    """Return :func:`auroc` of each row of two `(k, n)` blocks."""
    n_yes = positive.sum(axis=1)
    n_no = positive.shape[1] - n_yes
    ranks = np.einsum("ij,ij->i", rank_rows(score), positive.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (ranks - n_yes * (n_yes + 1) / 2) / (n_yes * n_no)


@dataclass
class ZeroTally:
    """Adds up blocks; a value is called non-zero where its probability of zero is below one half.

    A property without a case to judge is NaN.
    """

    n: int = 0
    n_zero: int = 0
    expected_zeros: float = 0.0
    n_called: int = 0
    n_right: int = 0
    error: float = 0.0
    present: list[NDArray[np.bool_]] = field(default_factory=list)
    p_zero: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, counts: Floats, p_zero: Floats, mean: Floats) -> None:
        """Take one block of counts, probabilities of zero and expected counts, all of one shape."""
        present, called = counts > 0, p_zero < 0.5
        self.n += counts.size
        self.n_zero += int(counts.size - present.sum())
        self.expected_zeros += float(p_zero.sum())
        self.n_called += int(called.sum())
        self.n_right += int((called & present).sum())
        self.error += float(np.abs(counts - mean)[present].sum())
        self.present.append(present.ravel())
        self.p_zero.append(p_zero.ravel().astype(np.float32))

    @property
    def observed_zero_rate(self) -> float:
        """Share of zeros."""
        return _share(self.n_zero, self.n)

    @property
    def predicted_zero_rate(self) -> float:
        """Mean of the predicted probabilities of zero."""
        return _share(self.expected_zeros, self.n)

    @property
    def accuracy(self) -> float:
        """Share of values that are called what they are."""
        return _share(self.n_right + self.n_zero - (self.n_called - self.n_right), self.n)

    @property
    def sensitivity(self) -> float:
        """Share of the non-zeros that are called non-zero."""
        return _share(self.n_right, self.n - self.n_zero)

    @property
    def specificity(self) -> float:
        """Share of the zeros that are called zero."""
        return _share(self.n_zero - (self.n_called - self.n_right), self.n_zero)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and sensitivity of the non-zeros."""
        return _share(2 * self.n_right, self.n - self.n_zero + self.n_called)

    @property
    def mae_nonzero(self) -> float:
        """Mean absolute error of the expected counts where counts are not zero."""
        return _share(self.error, self.n - self.n_zero)

    @property
    def auroc(self) -> float:
        """Area under the ROC curve of the non-zeros."""
        return auroc(np.concatenate(self.present), -np.concatenate(self.p_zero)) if self.n else float("nan")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def zero_scores(counts: Table, p_zero: ArrayLike, mean: ArrayLike) -> dict[str, float]:
    """Score the detection of zeros; non-zero is the positive class.

    Parameters
    ----------
    counts
        Spots x genes, sparse or dense.
    p_zero
        `(spots, genes)`, predicted P(X = 0): not a rounded mean.
    mean
        `(spots, genes)`, predicted expected counts.

    Returns
    -------
    `observed_zero_rate`; `predicted_zero_rate` (mean of `p_zero`); `accuracy`, `sensitivity` (non-zeros found),
    `specificity` (zeros found) and `f1` where `p_zero < 0.5` is called non-zero; `mae_nonzero` (of `mean`, where counts
    are not zero); `auroc` of `1 - p_zero`. NaN where a class is empty.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is not finite.

    Examples
    --------
    >>> counts, mean = np.array([[0, 1], [2, 0]]), np.array([[0.5, 1.0], [2.0, 0.1]])
    >>> h2s.metrics.zero_scores(counts, np.exp(-mean), mean)["auroc"]
    1.0
    """
    tally = ZeroTally()
    for (x, p), (_, m) in zip(pairs(counts, p_zero, axis=0), pairs(counts, mean, axis=0), strict=True):
        tally.add(x, p, m)
    return {name: getattr(tally, name) for name in NAMES}
