"""Errors and spread, by gene and over all values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hist2scrna.metrics.blocks import Floats, Table, as_table, dense, pairs
from hist2scrna.metrics.correlation import Moments, moments, rank_correlation, rank_rows

# Ranking a hundred million values takes more memory than all else.
MOST_RANKED = 2_000_000


def errors_by_gene(truth: Table, prediction: Table) -> pd.DataFrame:
    """Errors, means and spread of each gene.

    Parameters
    ----------
    truth, prediction
        Spots x genes, sparse or dense, on one scale.

    Returns
    -------
    One row a gene: `mse`, `mae`, `truth_mean`, `truth_sd`, `prediction_mean`, `prediction_sd` (dividing by the number
    of spots), `spread_ratio` (standard deviation of the prediction over that of the truth; NaN for constant truth).

    Raises
    ------
    ValueError
        If the shapes differ, or a value is not finite.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> h2s.metrics.errors_by_gene(truth, truth + 1)["mse"].to_list()
    [1.0, 1.0]
    """
    columns = ("mse", "mae", "truth_mean", "truth_sd", "prediction_mean", "prediction_sd", "spread_ratio")
    parts = [moments(t, p) for t, p in pairs(truth, prediction, axis=0)]
    return pd.DataFrame({name: np.concatenate([getattr(m, name) for m in parts]) for name in columns})


def overall(truth: Table, prediction: Table, *, most_ranked: int = MOST_RANKED, seed: int = 0) -> dict[str, float]:
    """Errors and correlations over all values of two tables.

    Parameters
    ----------
    truth, prediction
        Spots x genes, sparse or dense, on one scale.
    most_ranked
        Most values that Spearman's correlation ranks; in larger tables it is that of spots drawn at random.
    seed
        Seed of that draw.

    Returns
    -------
    `mse`, `rmse`, `mae`, `r2`, `pearson`, `spearman`. For constant truth the last three are NaN; for a constant
    prediction the correlations are 0.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is not finite.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> round(h2s.metrics.overall(truth, truth + 1)["rmse"], 2)
    1.0
    """
    parts = [moments(t, p) for t, p in pairs(truth, prediction, axis=0)]
    t, p = as_table(truth, "truth"), as_table(prediction, "prediction")
    rows = spots_to_rank(t.shape[0], t.shape[1], most_ranked, seed)
    t, p = (dense(table.tocsr()[rows] if hasattr(table, "tocsr") else table[rows]) for table in (t, p))
    return {**pooled(parts, [t.shape[0] for _ in parts]), "spearman": overall_spearman(t, p)}


@dataclass(frozen=True, eq=False)
class Overall:
    """All values of two tables together: what overall scores are computed from.

    Attributes
    ----------
    pooled
        `mse`, `rmse`, `mae`, `r2` and `pearson` over all values, see :func:`pooled`.
    truth, prediction
        `(spots, genes)` values; of large tables, those of spots drawn at random.
    """

    pooled: Mapping[str, float]
    truth: Floats
    prediction: Floats

    @property
    def spearman(self) -> float:
        """Spearman's correlation over the values."""
        return overall_spearman(self.truth, self.prediction)


def spots_to_rank(n_spots: int, n_genes: int, most: int, seed: int) -> np.ndarray:
    """Return the numbers of all spots, or of as many at random as keep within `most` values."""
    if n_spots * n_genes <= most:
        return np.arange(n_spots)
    return np.sort(np.random.default_rng(seed).choice(n_spots, max(1, most // n_genes), replace=False))


def overall_spearman(truth: Floats, prediction: Floats) -> float:
    """Return Spearman's correlation over all values of two dense tables."""
    t, p = truth.reshape(1, -1), prediction.reshape(1, -1)
    return float(rank_correlation(rank_rows(t), p, moments(t, p))[0])


def pooled(parts: Sequence[Moments], n_spots: Sequence[int]) -> dict[str, float]:
    """Return `mse`, `rmse`, `mae`, `r2` and `pearson` over all values, from the moments of their parts.

    Parameters
    ----------
    parts
        Moments of blocks of rows.
    n_spots
        Length of the rows in each block.
    """

    def joined(name: str) -> Floats:
        return np.concatenate([np.asarray(getattr(part, name), dtype=np.float64) for part in parts])

    weight = np.repeat(np.asarray(n_spots, dtype=np.float64), [len(part.mse) for part in parts])
    weight /= weight.sum()
    t, p = joined("truth_mean"), joined("prediction_mean")
    t, p = t - weight @ t, p - weight @ p
    truth_variance = weight @ (joined("truth_sd") ** 2 + t**2)
    prediction_variance = weight @ (joined("prediction_sd") ** 2 + p**2)
    covariance = weight @ (joined("covariance") + t * p)
    mse = float(weight @ joined("mse"))
    flat = bool(joined("prediction_constant").all()) and bool(np.ptp(joined("prediction_mean")) == 0)
    constant = bool(joined("truth_constant").all()) and bool(np.ptp(joined("truth_mean")) == 0)
    r = 0.0 if flat or prediction_variance == 0 else covariance / np.sqrt(truth_variance * prediction_variance or 1.0)
    return {
        "mse": mse,
        "rmse": float(np.sqrt(mse)),
        "mae": float(weight @ joined("mae")),
        "r2": float("nan") if constant else float(1 - mse / truth_variance),
        "pearson": float("nan") if constant else float(np.clip(r, -1, 1)),
    }
