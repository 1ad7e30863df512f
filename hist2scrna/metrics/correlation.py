"""Correlation of truth and prediction, gene by gene and spot by spot."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hist2scrna.metrics.blocks import Floats, Table, pairs
from hist2scrna.metrics.scales import ROUNDING


@dataclass(frozen=True)
class Moments:
    """First and second moments of `k` pairs of vectors of length `n`; each field is `(k,)` float64.

    Standard deviations and covariance divide by `n`.
    """

    truth_mean: Floats
    truth_sd: Floats
    prediction_mean: Floats
    prediction_sd: Floats
    covariance: Floats
    mse: Floats
    mae: Floats
    truth_constant: NDArray[np.bool_]
    prediction_constant: NDArray[np.bool_]

    @property
    def pearson(self) -> Floats:
        """Correlation; NaN where the truth is constant, 0 where only the prediction is."""
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.clip(self.covariance / (self.truth_sd * self.prediction_sd), -1, 1)
        return np.where(self.truth_constant, np.nan, np.where(self.prediction_constant, 0.0, r))

    @property
    def spread_ratio(self) -> Floats:
        """Standard deviation of the prediction over that of the truth; NaN where the truth is constant."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.truth_constant, np.nan, self.prediction_sd / self.truth_sd)


def moments(truth: Floats, prediction: Floats) -> Moments:
    """Compare the rows of two `(k, n)` blocks.

    A prediction whose values differ by less than 1e-6 of their size is constant: float32 can tell no more.
    """
    if truth.shape[1] == 0:
        nothing, yes = np.full(len(truth), np.nan), np.ones(len(truth), dtype=bool)
        return Moments(nothing, nothing, nothing, nothing, nothing, nothing, nothing, yes, yes)
    n = truth.shape[1]
    truth_mean, prediction_mean = truth.mean(axis=1), prediction.mean(axis=1)
    lowest, highest = prediction.min(axis=1), prediction.max(axis=1)
    truth_constant = truth.min(axis=1) == truth.max(axis=1)
    prediction_constant = highest - lowest <= ROUNDING * np.maximum(np.abs(lowest), np.abs(highest))
    difference = truth - prediction
    mse = np.einsum("ij,ij->i", difference, difference) / n
    mae = np.abs(difference, out=difference).mean(axis=1)
    t, p = truth - truth_mean[:, None], prediction - prediction_mean[:, None]
    return Moments(
        truth_mean=truth_mean,
        truth_sd=np.where(truth_constant, 0.0, np.sqrt(np.einsum("ij,ij->i", t, t) / n)),
        prediction_mean=prediction_mean,
        prediction_sd=np.where(prediction_constant, 0.0, np.sqrt(np.einsum("ij,ij->i", p, p) / n)),
        covariance=np.einsum("ij,ij->i", t, p) / n,
        mse=mse,
        mae=mae,
        truth_constant=truth_constant,
        prediction_constant=prediction_constant,
    )


def rank_rows(block: Floats) -> Floats:
    """Return the ranks of each row, from 1; ties share their mean rank."""
    ranked = np.empty_like(block)
    for row, out in zip(block, ranked, strict=True):
        if len(row) == 0:
            continue
        # Counts: most values of a row tie at its lowest, and need no sorting.
        lowest = row == row.min()
        n_lowest = np.count_nonzero(lowest)
        out[lowest] = (n_lowest + 1) / 2
        above = np.flatnonzero(~lowest)
        values = row[above]
        order = np.argsort(values)
        values = values[order]
        first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else above
        size = np.diff(first, append=len(values))
        out[above[order]] = np.repeat(n_lowest + first + (size + 1) / 2, size)
    return ranked


def rank_correlation(truth_ranks: Floats, prediction: Floats, unranked: Moments) -> Floats:
    """Return Spearman's correlation of rows, given the ranks of the truth and the moments of the values."""
    r = moments(truth_ranks, rank_rows(prediction)).pearson
    return np.where(unranked.truth_constant, np.nan, np.where(unranked.prediction_constant, 0.0, r))


def partial_correlation(truth: Floats, prediction: Floats, depth: Floats, plain: Moments) -> Floats:
    """Return the correlation of rows after least squares on `depth` `(n,)` was taken out of both.

    `plain` are the moments of the rows as they are.
    """
    centered = depth - depth.mean()
    power = centered @ centered
    if power == 0:
        return plain.pearson
    unit = centered / np.sqrt(power * len(depth))
    # Not by BLAS: its threads and those that work on other blocks would be in each other's way.
    with_truth = np.einsum("ij,j->i", truth - plain.truth_mean[:, None], unit)
    with_prediction = np.einsum("ij,j->i", prediction - plain.prediction_mean[:, None], unit)
    truth_left = plain.truth_sd**2 - with_truth**2
    prediction_left = plain.prediction_sd**2 - with_prediction**2
    gone = plain.truth_constant | (truth_left <= (ROUNDING * plain.truth_sd) ** 2)
    flat = plain.prediction_constant | (prediction_left <= (ROUNDING * plain.prediction_sd) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (plain.covariance - with_truth * with_prediction) / np.sqrt(truth_left * prediction_left)
    return np.where(gone, np.nan, np.where(flat, 0.0, np.clip(r, -1, 1)))


@dataclass(frozen=True, eq=False)
class TruthRows:
    """The truth in rows, with what is computed from it once for all predictions.

    Attributes
    ----------
    values
        `(k, n)`: genes over the spots of a section, or spots over the genes.
    depth
        `(n,)`, natural logarithm of the total count of each spot, where rows are genes.
    """

    values: Floats
    depth: Floats | None = None

    @cached_property
    def ranks(self) -> Floats:
        """Ranks within each row, from 1; ties share their mean rank."""
        return rank_rows(self.values)


@dataclass(frozen=True, eq=False)
class Rows:
    """Truth and prediction in rows: what the score of a gene or of a spot is computed from.

    Attributes
    ----------
    of_truth
        The truth, with its ranks and depths.
    prediction
        `(k, n)`, the prediction of the same values.
    """

    of_truth: TruthRows
    prediction: Floats

    @property
    def truth(self) -> Floats:
        """`(k, n)`, the true values."""
        return self.of_truth.values

    @cached_property
    def moments(self) -> Moments:
        """First and second moments of each row."""
        return moments(self.truth, self.prediction)


def pearson(rows: Rows) -> Floats:
    """Return Pearson's correlation of each row: NaN for constant truth, 0 for constant prediction."""
    return rows.moments.pearson


def spearman(rows: Rows) -> Floats:
    """Return Spearman's correlation of each row: NaN for constant truth, 0 for constant prediction."""
    if rows.moments.prediction_constant.all():
        return rows.moments.pearson
    return rank_correlation(rows.of_truth.ranks, rows.prediction, rows.moments)


def depth_partial(rows: Rows) -> Floats:
    """Return Pearson's correlation of each gene after the log total count was regressed out of both."""
    if rows.of_truth.depth is None:
        raise ValueError("A depth-partial correlation needs the depth of each spot.")
    return partial_correlation(rows.truth, rows.prediction, rows.of_truth.depth, rows.moments)


def pearson_by_gene(truth: Table, prediction: Table) -> Floats:
    """Pearson correlation of each gene over the spots.

    Parameters
    ----------
    truth, prediction
        Spots x genes, sparse or dense, on one scale.

    Returns
    -------
    `(genes,)` float64: NaN where the truth is constant, 0 where only the prediction is.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is not finite.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> h2s.metrics.pearson_by_gene(truth, truth[:, ::-1]).round(2)
    array([0.5, 0.5])
    """
    return _joined([pearson(Rows(TruthRows(t), p)) for t, p in pairs(truth, prediction, axis=0)])


def spearman_by_gene(truth: Table, prediction: Table) -> Floats:
    """Spearman correlation of each gene over the spots; ties share their mean rank. See :func:`pearson_by_gene`.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> h2s.metrics.spearman_by_gene(truth, truth**2).round(2)
    array([1., 1.])
    """
    return _joined([spearman(Rows(TruthRows(t), p)) for t, p in pairs(truth, prediction, axis=0)])


def pearson_by_spot(truth: Table, prediction: Table) -> Floats:
    """Pearson correlation of each spot over the genes, `(spots,)`.

    Gene means alone often reach .9 here: compare it with the mean baseline.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0]])
    >>> h2s.metrics.pearson_by_spot(truth, -truth).round(2)
    array([-1., -1.])
    """
    return _joined([pearson(Rows(TruthRows(t), p)) for t, p in pairs(truth, prediction, axis=1)])


def spearman_by_spot(truth: Table, prediction: Table) -> Floats:
    """Spearman correlation of each spot over the genes, `(spots,)`. See :func:`pearson_by_spot`.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0]])
    >>> h2s.metrics.spearman_by_spot(truth, truth**3).round(2)
    array([1., 1.])
    """
    return _joined([spearman(Rows(TruthRows(t), p)) for t, p in pairs(truth, prediction, axis=1)])


def depth_partial_pearson(truth: Table, prediction: Table, library: ArrayLike) -> Floats:
    """Pearson correlation of each gene after the log total count of the spot was regressed out of both.

    Log-normalized expression keeps a signal of sequencing depth, which an image shows without telling genes apart. This
    is the correlation that remains without it.

    Parameters
    ----------
    truth, prediction
        Spots x genes, sparse or dense, on one scale.
    library
        `(spots,)` total counts of the truth, positive.

    Returns
    -------
    `(genes,)` float64: NaN where nothing of the truth remains, 0 where nothing of the prediction does.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite, or a library size is not positive.

    Examples
    --------
    >>> total = np.array([10.0, 20.0, 40.0, 80.0])
    >>> truth = np.log(total)[:, None] + np.array([[0.1], [-0.1], [-0.1], [0.1]])
    >>> h2s.metrics.depth_partial_pearson(truth, truth, total).round(2)
    array([1.])
    >>> h2s.metrics.depth_partial_pearson(truth, np.log(total)[:, None], total).round(2)
    array([0.])
    """
    sizes = np.asarray(library, dtype=np.float64).ravel()
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError("Expected `library` to hold positive total counts. Drop spots without counts first.")
    depth = np.log(sizes)
    parts = []
    for t, p in pairs(truth, prediction, axis=0):
        if t.shape[1] != len(depth):
            raise ValueError(
                f"Expected `library` to hold one number for each of {t.shape[1]} spots, found {len(depth)}."
            )
        parts.append(depth_partial(Rows(TruthRows(t, depth), p)))
    return _joined(parts)


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.empty(0)
