"""The noise ceiling: the correlation that a perfect prediction would reach with counts of this depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from hist2scrna.metrics.blocks import Floats, Table, as_table, blocks
from hist2scrna.metrics.correlation import moments
from hist2scrna.metrics.scales import log_normalize, residual_block

Scale = Literal["counts", "log_normalized", "residual"]
N_REPEATS = 5


def thinning_reliability(
    counts: Table,
    *,
    scale: Scale = "log_normalized",
    n_repeats: int = N_REPEATS,
    seed: int = 0,
    library: ArrayLike | None = None,
) -> Floats:
    r"""Reliability of each gene's measurement: the share of its variance that is not counting noise.

    Every count is split into two halves by a binomial draw with p = 1/2. For Poisson counts the halves are independent
    given the true rates, so that their correlation :math:`r` over the spots, averaged over the draws, is the
    reliability at half the depth. The Spearman-Brown formula takes it to the full depth: :math:`2r / (1 + r)`.

    Parameters
    ----------
    counts
        `(spots, genes)` counts, sparse or dense.
    scale
        On which the halves are compared, each with its own library size: `"counts"`, `"log_normalized"` (counts scaled
        to 1e4) or `"residual"` (analytic Pearson residuals). The formula is exact on counts. On `"log_normalized"` it
        is close, but too high for sparse counts, because both halves carry the depth of the spot and normalized means
        do not: known means reached 83 % of the ceiling at 1 count per gene and spot, 93 % at 5 and 100 % at 40; with
        `library`, which removes the depth, 92, 97 and 100 %.
    n_repeats
        Draws to average over.
    seed
        Seed of the draws.
    library
        `(spots,)` total counts, positive. Their logarithm is regressed out of both halves, which gives the reliability
        for :func:`~hist2scrna.metrics.depth_partial_pearson`. None: nothing is regressed out.

    Returns
    -------
    `(genes,)` float64 in 0..1: NaN for genes that are constant, 0 where the halves do not correlate.

    Raises
    ------
    ValueError
        If `counts` holds anything but non-negative whole numbers, the scale is not known, or `library` is asked for on
        residuals, which hold no depth.

    References
    ----------
    Spearman (1910) and Brown (1910), British Journal of Psychology 3. Thinning: Neufeld et al., Inference after latent
    variable estimation for single-cell RNA sequencing data, Biostatistics 25 (2023).

    Examples
    --------
    >>> h2s.metrics.thinning_reliability(test.X).shape
    (12,)
    """
    if scale not in get_args(Scale):
        raise ValueError(f"Expected `scale` to be one of {list(get_args(Scale))}, found {scale!r}.")
    if n_repeats < 1:
        raise ValueError(f"Expected `n_repeats` to be at least 1, found {n_repeats}.")
    if library is not None and scale == "residual":
        raise ValueError("Expected no `library` on scale 'residual': Pearson residuals hold no depth.")
    depth = None if library is None else np.log(np.asarray(library, dtype=np.float64))
    sparse_counts = sparse.csc_array(as_table(counts, "counts"))
    if (
        sparse_counts.nnz
        and not ((sparse_counts.data >= 0) & (sparse_counts.data == np.round(sparse_counts.data))).all()
    ):
        raise ValueError("Expected `counts` to hold non-negative whole numbers.")
    table: Any = sparse_counts.astype(np.int64, copy=True)
    table.eliminate_zeros()
    r = np.zeros(table.shape[1])
    for first, second in _halves(table, n_repeats, seed):
        r += _by_residuals(first, second) if scale == "residual" else _by_values(first, second, scale, depth)
    r = np.clip(r / n_repeats, 0, 1)
    return np.where(_constant(table), np.nan, 2 * r / (1 + r))


def noise_ceiling(
    counts: Table,
    *,
    scale: Scale = "log_normalized",
    n_repeats: int = N_REPEATS,
    seed: int = 0,
    library: ArrayLike | None = None,
) -> Floats:
    r"""Noise ceiling of each gene: the highest Pearson correlation that any prediction can be expected to reach.

    The square root of :func:`thinning_reliability`. With measurement :math:`x = t + \epsilon` and noise independent of
    the truth, the reliability is :math:`\rho = \mathrm{var}(t) / \mathrm{var}(x)`, and a prediction that knows
    :math:`t` without error has

    .. math:: \mathrm{cor}(t, x) = \mathrm{var}(t) / \sqrt{\mathrm{var}(t)\,\mathrm{var}(x)} = \sqrt{\rho}.

    :math:`\rho` itself is what a *second noisy measurement* of the same depth would reach, which is too low.
    Variation beyond Poisson (overdispersion, dropout) counts as truth here, so a perfect model may stay below the
    ceiling. Negative estimates of :math:`r` are set to zero, which raises the ceiling of nearly empty genes slightly.

    Parameters
    ----------
    counts, scale, n_repeats, seed, library
        As for :func:`thinning_reliability`.

    Returns
    -------
    `(genes,)` float64 in 0..1: NaN for genes that are constant.

    Examples
    --------
    >>> ceiling = h2s.metrics.noise_ceiling(test.X)
    >>> bool(np.nanmax(ceiling) <= 1)
    True
    """
    return np.sqrt(thinning_reliability(counts, scale=scale, n_repeats=n_repeats, seed=seed, library=library))


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


def _by_values(first: Any, second: Any, scale: str, depth: Floats | None) -> Floats:
    """Correlate two sparse tables gene by gene, after least squares on `depth`, if given; constant genes give 0."""
    if scale == "log_normalized":
        first, second = log_normalize(first), log_normalize(second)

    def mean(values: Any) -> Floats:
        return np.asarray(values.sum(axis=0)).ravel() / first.shape[0]

    mean_a, mean_b = mean(first), mean(second)
    power_a, power_b = mean(first.power(2)) - mean_a**2, mean(second.power(2)) - mean_b**2
    covariance = mean(first.multiply(second)) - mean_a * mean_b
    if depth is not None and (spread := float(depth.std())) > 0:
        unit = (depth - depth.mean()) / (spread * len(depth))
        with_a, with_b = first.T @ unit, second.T @ unit
        power_a, power_b = power_a - with_a**2, power_b - with_b**2
        covariance = covariance - with_a * with_b
    power = np.maximum(power_a, 0) * np.maximum(power_b, 0)
    return np.divide(covariance, np.sqrt(power), out=np.zeros(len(power)), where=power > 1e-20)


def _by_residuals(first: Any, second: Any) -> Floats:
    n_spots, n_genes = first.shape
    margins = [(np.asarray(t.sum(axis=1)).ravel(), np.asarray(t.sum(axis=0)).ravel()) for t in (first, second)]
    correlations = []
    for genes in blocks(n_genes, n_spots):
        rows = [
            residual_block(
                table[:, genes].T.toarray(), np.outer(total[genes] / max(float(total.sum()), 1.0), library), n_spots
            )
            for table, (library, total) in zip((first, second), margins, strict=True)
        ]
        correlations.append(np.nan_to_num(moments(*rows).pearson))
    return np.concatenate(correlations)
