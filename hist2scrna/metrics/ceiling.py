"""What counts of this depth allow: the correlation that a perfect prediction of the means would reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
from scipy import sparse

from hist2scrna.metrics.blocks import Floats, Table, as_table, blocks
from hist2scrna.metrics.correlation import moments
from hist2scrna.metrics.scales import log_normalise, residual_block

Scale = Literal["counts", "log1p", "residual"]
N_REPEATS = 5


def thinning_reliability(counts: Table, *, scale: Scale = "log1p", n_repeats: int = N_REPEATS, seed: int = 0) -> Floats:
    r"""Reliability of each gene's measurement: the share of its variance that is not counting noise.

    Every count is split into two halves by a binomial draw with p = 1/2. For Poisson counts the halves are independent
    given the true rates, so that their correlation :math:`r` over the spots, averaged over the draws, is the
    reliability at half the depth. The Spearman-Brown formula takes it to the full depth: :math:`2r / (1 + r)`.

    Parameters
    ----------
    counts
        `(spots, genes)` counts, sparse or dense.
    scale
        On which the halves are compared, each with its own library size: `"counts"`, `"log1p"` (of counts scaled to
        1e4) or `"residual"` (analytic Pearson residuals). On counts the formula is exact; on the others it is near, as
        halving the depth bends the scale.
    n_repeats
        Draws to average over.
    seed
        Of the draws.

    Returns
    -------
    `(genes,)` float64 in 0..1: NaN for genes that are constant, 0 where the halves do not correlate.

    Raises
    ------
    ValueError
        If `counts` holds anything but non-negative whole numbers, or the scale is not known.

    References
    ----------
    Spearman (1910) and Brown (1910), British Journal of Psychology 3. Thinning: Neufeld et al., Inference after latent
    variable estimation for single-cell RNA sequencing data, Biostatistics 25 (2023).
    """
    if scale not in get_args(Scale):
        raise ValueError(f"Expected `scale` to be one of {list(get_args(Scale))}, found {scale!r}.")
    if n_repeats < 1:
        raise ValueError(f"Expected `n_repeats` to be at least 1, found {n_repeats}.")
    given = sparse.csc_array(as_table(counts, "counts"))
    if given.nnz and not ((given.data >= 0) & (given.data == np.round(given.data))).all():
        raise ValueError("Expected `counts` to hold non-negative whole numbers.")
    table: Any = given.astype(np.int64, copy=True)
    table.eliminate_zeros()
    r = np.zeros(table.shape[1])
    for first, second in _halves(table, n_repeats, seed):
        r += _by_residuals(first, second) if scale == "residual" else _by_values(first, second, scale)
    r = np.clip(r / n_repeats, 0, 1)
    return np.where(_constant(table), np.nan, 2 * r / (1 + r))


def thinning_ceiling(counts: Table, *, scale: Scale = "log1p", n_repeats: int = N_REPEATS, seed: int = 0) -> Floats:
    r"""Highest Pearson correlation with each gene that can be expected of a prediction without pixels, or with.

    The square root of :func:`thinning_reliability`. With measurement :math:`x = t + \epsilon` and noise independent of
    the truth, the reliability is :math:`\rho = \mathrm{var}(t) / \mathrm{var}(x)`, and a prediction that knows
    :math:`t` without error has

    .. math:: \mathrm{cor}(t, x) = \mathrm{var}(t) / \sqrt{\mathrm{var}(t)\,\mathrm{var}(x)} = \sqrt{\rho}.

    :math:`\rho` itself is what a *second noisy measurement* of the same depth would reach, and too low a bar. Variation
    beyond Poisson (overdispersion, dropout) counts as truth here, so that no model need reach the ceiling; sampling
    errors of :math:`r` below zero are cut off, which lifts the ceiling of nearly empty genes a little.

    Parameters
    ----------
    counts, scale, n_repeats, seed
        As for :func:`thinning_reliability`.

    Returns
    -------
    `(genes,)` float64 in 0..1: NaN for genes that are constant.
    """
    return np.sqrt(thinning_reliability(counts, scale=scale, n_repeats=n_repeats, seed=seed))


def _halves(table: Any, n_repeats: int, seed: int) -> Iterator[tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    for _ in range(n_repeats):
        drawn = rng.binomial(table.data, 0.5)
        yield tuple(
            sparse.csc_array((data.astype(np.float64), table.indices, table.indptr), shape=table.shape)
            for data in (drawn, table.data - drawn)
        )


def _constant(table: Any) -> Any:
    full = np.diff(table.indptr) == table.shape[0]
    lowest = np.where(full, table.min(axis=0).toarray().ravel(), 0)
    return table.max(axis=0).toarray().ravel() == lowest


def _by_values(first: Any, second: Any, scale: str) -> Floats:
    """Correlate two sparse tables gene by gene; constant genes give 0."""
    if scale == "log1p":
        first, second = log_normalise(first), log_normalise(second)

    def mean(values: Any) -> Floats:
        return np.asarray(values.sum(axis=0)).ravel() / first.shape[0]

    mean_a, mean_b = mean(first), mean(second)
    power = (mean(first.power(2)) - mean_a**2) * (mean(second.power(2)) - mean_b**2)
    covariance = mean(first.multiply(second)) - mean_a * mean_b
    return np.divide(covariance, np.sqrt(np.maximum(power, 0)), out=np.zeros(len(power)), where=power > 1e-20)


def _by_residuals(first: Any, second: Any) -> Floats:
    n_spots, n_genes = first.shape
    margins = [(np.asarray(t.sum(axis=1)).ravel(), np.asarray(t.sum(axis=0)).ravel()) for t in (first, second)]
    found = []
    for genes in blocks(n_genes, n_spots):
        rows = [
            residual_block(
                table[:, genes].T.toarray(), np.outer(total[genes] / max(float(total.sum()), 1.0), library), n_spots
            )
            for table, (library, total) in zip((first, second), margins, strict=True)
        ]
        found.append(np.nan_to_num(moments(*rows).pearson))
    return np.concatenate(found)
