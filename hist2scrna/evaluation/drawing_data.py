"""What the plots of an evaluation need beside its numbers: points drawn at random, and calibration of cell types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hist2scrna.evaluation.predictors import Expression, Predictor
from hist2scrna.evaluation.summary import HEADLINE
from hist2scrna.metrics.blocks import blocks
from hist2scrna.metrics.labels import N_BINS

MOST_POINTS = 10_000
# Of a value drawn: finer than any screen, and a third of the text of a float.
DIGITS = 4


def scatter_points(
    truth: Expression, model: Predictor, seed: int, most: int = MOST_POINTS
) -> dict[str, NDArray[np.float64]]:
    """Return `truth` and `prediction` of (spot, gene) pairs drawn at random without replacement, log-normalized."""
    n_spots, n_genes = truth.shape
    n = min(most, n_spots * n_genes)
    drawn = np.sort(np.random.default_rng(seed).choice(n_spots * n_genes, n, replace=False))
    spot, gene = np.divmod(drawn, n_genes)
    present, place = np.unique(spot, return_inverse=True)
    found = {"truth": np.empty(n), "prediction": np.empty(n)}
    for part in blocks(len(present), n_genes):
        here = slice(*np.searchsorted(place, (part.start, part.stop)))
        at = place[here] - part.start, gene[here]
        for name, source in (("truth", truth), ("prediction", model)):
            found[name][here] = source.region(present[part], slice(None), HEADLINE)[at]
    return {name: np.round(values, DIGITS) for name, values in found.items()}


def extreme_genes(pearson: pd.Series, n: int) -> tuple[list[str], list[str]]:
    """Return the `n` best genes, best first, and the `n` worst, worst first, of those that vary; none is in both."""
    order = [str(g) for g in pearson.dropna().sort_values(ascending=False, kind="stable").index]
    n_best = min(n, (len(order) + 1) // 2)
    return order[:n_best], order[n_best:][-n:][::-1]


def reliability(right: ArrayLike, confidence: ArrayLike, n_bins: int = N_BINS) -> dict[str, Any]:
    """Return `confidence` and `accuracy`, means of each bin of confidence, and `n`, its number of spots.

    The bins are those of :func:`~hist2scrna.metrics.expected_calibration_error`; means of empty ones are NaN.
    """
    yes, sure = np.asarray(right, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    place = np.clip(np.ceil(sure * n_bins).astype(int) - 1, 0, n_bins - 1)
    n = np.bincount(place, minlength=n_bins)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(place, weights=values, minlength=n_bins)
        return np.divide(total, n, out=np.full(n_bins, np.nan), where=n > 0)

    return {"edges": np.linspace(0, 1, n_bins + 1), "n": n, "confidence": mean(sure), "accuracy": mean(yes)}
