"""The scales on which expression is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hist2scrna.metrics.blocks import Floats, Table, as_table

if TYPE_CHECKING:
    from torch import Tensor

TARGET_SUM = 1e4
RESIDUAL_THETA = 100.0
# Rounding of float32 means; a difference below it is none.
ROUNDING = 1e-6
# The expected counts of a spot are never divided by a smaller sum than this.
LEAST_TOTAL = 1e-6


def log_normalize(counts: Table, target_sum: float = TARGET_SUM) -> Any:
    """Return log(1 + target_sum x counts / library size); the library size is the sum over the genes given.

    Parameters
    ----------
    counts
        Spots x genes, counts or expected counts, sparse or dense.
    target_sum
        Library size to which every spot is scaled. 1e4, as most of the field has it.

    Returns
    -------
    float64, sparse (of the same format) if `counts` is sparse. Spots without counts stay zero.

    Examples
    --------
    >>> h2s.metrics.log_normalize(np.array([[1, 3], [0, 4]])).round(2)
    array([[7.82, 8.92],
           [0.  , 9.21]])
    """
    table = as_table(counts, "counts")
    library = np.asarray(table.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.divide(target_sum, library, out=np.zeros_like(library), where=library > 0)
    if not sparse.issparse(table):
        return np.log1p(table * scale[:, None])
    by_spot = table.tocsr(copy=True).astype(np.float64)
    by_spot.data = np.log1p(by_spot.data * np.repeat(scale, np.diff(by_spot.indptr)))
    return by_spot.asformat(table.format)


def log_normalize_tensor(counts: Tensor, target_sum: float = TARGET_SUM) -> Tensor:
    """Return the same of a dense tensor `(n, G)`, in its own type; a library size below 1 is taken for 1."""
    return (counts * (target_sum / counts.sum(dim=1, keepdim=True).clamp(min=1))).log1p()


def pearson_residuals(counts: Table, theta: float = RESIDUAL_THETA) -> Floats:
    r"""Return analytic Pearson residuals, which hold no signal of the library size.

    Parameters
    ----------
    counts
        Spots x genes, counts or expected counts, sparse or dense; the residuals are dense.
    theta
        Inverse dispersion assumed for all genes.

    Returns
    -------
    :math:`(x - \mu) / \sqrt{\mu + \mu^2 / \theta}` with :math:`\mu` = library size x share of the gene, clipped to
    :math:`\pm\sqrt{n}` for :math:`n` spots, float64. Genes without counts are zero.

    References
    ----------
    Lause, Berens and Kobak, Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data, Genome
    Biology 22:258 (2021).

    Examples
    --------
    >>> h2s.metrics.pearson_residuals(np.array([[1, 3], [3, 1]])).round(2)
    array([[-0.7,  0.7],
           [ 0.7, -0.7]])
    """
    table = as_table(counts, "counts")
    library = np.asarray(table.sum(axis=1, dtype=np.float64)).ravel()
    totals = np.asarray(table.sum(axis=0, dtype=np.float64)).ravel()
    values = table.toarray() if sparse.issparse(table) else table
    return residual_block(values, library[:, None] * (totals / max(float(totals.sum()), 1e-300)), len(library), theta)


def residual_block(values: Any, expected: Floats, n_spots: int, theta: float = RESIDUAL_THETA) -> Floats:
    """Return the residuals of a block whose expected counts, from the margins of the whole table, are known."""
    difference = values - expected
    difference[np.abs(difference) <= ROUNDING * expected] = 0
    deviation = np.sqrt(expected + expected**2 / theta)
    residual = np.divide(difference, deviation, out=np.zeros_like(difference), where=deviation > 0)
    limit = np.sqrt(n_spots)
    return np.clip(residual, -limit, limit, out=residual)
