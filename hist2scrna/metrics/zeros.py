"""Detection of zeros, from the predicted probability of a zero count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hist2scrna.metrics.blocks import Floats, Table, pairs
from hist2scrna.metrics.correlation import rank_rows


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
    """Adds up blocks; a value is called non-zero where its probability of zero is below one half."""

    n: int = 0
    zeros: int = 0
    expected_zeros: float = 0.0
    called: int = 0
    found: int = 0
    error: float = 0.0

    def add(self, counts: Floats, p_zero: Floats, mean: Floats) -> None:
        """Take one block of counts, probabilities of zero and expected counts, all of one shape."""
        present, called = counts > 0, p_zero < 0.5
        self.n += counts.size
        self.zeros += int(counts.size - present.sum())
        self.expected_zeros += float(p_zero.sum())
        self.called += int(called.sum())
        self.found += int((called & present).sum())
        self.error += float(np.abs(counts - mean)[present].sum())

    def scores(self) -> dict[str, float]:
        """Return all scores but the AUROC; those without a case to judge are NaN."""
        present = self.n - self.zeros
        wrong = self.called - self.found
        return {
            "observed_zero_rate": _share(self.zeros, self.n),
            "predicted_zero_rate": _share(self.expected_zeros, self.n),
            "accuracy": _share(self.found + self.zeros - wrong, self.n),
            "sensitivity": _share(self.found, present),
            "specificity": _share(self.zeros - wrong, self.zeros),
            "f1": _share(2 * self.found, present + self.called),
            "mae_nonzero": _share(self.error, present),
        }


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
    """
    tally, present, probability = ZeroTally(), [], []
    for (x, p), (_, m) in zip(pairs(counts, p_zero, axis=0), pairs(counts, mean, axis=0), strict=True):
        tally.add(x, p, m)
        present.append((x > 0).ravel())
        probability.append(p.ravel())
    return {**tally.scores(), "auroc": auroc(np.concatenate(present), 1 - np.concatenate(probability))}
