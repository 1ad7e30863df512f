"""What the plots of an evaluation need besides its numbers, as plain numbers: its JSON is enough to draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hist2scrna.evaluation.predictors import HEADLINE, Expression, Predictor
from hist2scrna.metrics.blocks import blocks
from hist2scrna.metrics.labels import N_BINS

if TYPE_CHECKING:
    from hist2scrna.evaluation.inputs import ScoredData
    from hist2scrna.evaluation.read_tissue import SectionMap

MOST_POINTS, N_EXTREME = 10_000, 4
# Digits of a value: finer than any screen, and a third of the text of a float.
DIGITS = 4


def collect_plot_data(data: ScoredData, pearson: pd.Series, seed: int) -> dict[str, Any]:
    """Return what :attr:`hist2scrna.evaluation.Evaluation.plot_data` describes."""
    best, worst = extreme_genes(pearson, N_EXTREME)
    sections = {one.name: _map_values(data, one, best + worst) for one in data.maps}
    plot_data: dict[str, Any] = {
        "scatter": scatter_points(data.truth, data.model, seed),
        "maps": {"best": best, "worst": worst, "sections": sections},
    }
    if data.cell_types is not None and data.cell_types.confidence is not None:
        plot_data["reliability"] = reliability(data.cell_types.right, data.cell_types.confidence)
    return plot_data


def _map_values(data: ScoredData, one: SectionMap, genes: list[str]) -> dict[str, Any]:
    """Return the spots of a section with measured and predicted expression of some genes."""
    columns = np.array([data.genes.index(gene) for gene in genes], dtype=np.int64)
    truth, prediction = (
        np.round(source.region(one.spots, columns, HEADLINE), DIGITS) for source in (data.truth, data.model)
    )
    return {
        "n_spots": one.n_spots,
        "xy": np.round(one.xy, 1),
        "spot_diameter": round(one.spot_diameter, 2),
        "truth": dict(zip(genes, truth.T, strict=True)),
        "prediction": dict(zip(genes, prediction.T, strict=True)),
        "image": one.image,
    }


def scatter_points(
    truth: Expression, model: Predictor, seed: int, most: int = MOST_POINTS
) -> dict[str, NDArray[np.float64]]:
    """Return `truth` and `prediction` of (spot, gene) pairs drawn at random without replacement, log-normalized."""
    n_spots, n_genes = truth.shape
    n = min(most, n_spots * n_genes)
    drawn = np.sort(np.random.default_rng(seed).choice(n_spots * n_genes, n, replace=False))
    spot, gene = np.divmod(drawn, n_genes)
    present, place = np.unique(spot, return_inverse=True)
    points = {"truth": np.empty(n), "prediction": np.empty(n)}
    for part in blocks(len(present), n_genes):
        here = slice(*np.searchsorted(place, (part.start, part.stop)))
        at = place[here] - part.start, gene[here]
        for name, source in (("truth", truth), ("prediction", model)):
            points[name][here] = source.region(present[part], slice(None), HEADLINE)[at]
    return {name: np.round(values, DIGITS) for name, values in points.items()}


def extreme_genes(pearson: pd.Series, n: int) -> tuple[list[str], list[str]]:
    """Return the `n` best genes, best first, and the `n` worst, worst first, of those that vary; none is in both."""
    order = [str(g) for g in pearson.dropna().sort_values(ascending=False, kind="stable").index]
    n_best = min(n, (len(order) + 1) // 2)
    return order[:n_best], order[n_best:][-n:][::-1]


def reliability(right: ArrayLike, confidence: ArrayLike, n_bins: int = N_BINS) -> dict[str, Any]:
    """Return `confidence` and `accuracy`, means of each bin of confidence, and `n`, its number of spots.

    The bins are those of :func:`~hist2scrna.metrics.expected_calibration_error`; means of empty ones are NaN.
    """
    is_right, probability = np.asarray(right, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    place = np.clip(np.ceil(probability * n_bins).astype(int) - 1, 0, n_bins - 1)
    n = np.bincount(place, minlength=n_bins)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(place, weights=values, minlength=n_bins)
        return np.divide(total, n, out=np.full(n_bins, np.nan), where=n > 0)

    return {
        "edges": np.linspace(0, 1, n_bins + 1),
        "n": n,
        "confidence": mean(probability),
        "accuracy": mean(is_right),
    }
