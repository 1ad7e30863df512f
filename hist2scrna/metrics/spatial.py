"""Spatial autocorrelation of truth and prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from hist2scrna.metrics.blocks import Floats, Table, as_table, blocks, dense
from hist2scrna.metrics.scales import ROUNDING


def morans_i_by_gene(values: Table, weights: Table) -> Floats:
    r"""Moran's I of each gene.

    .. math:: I = \frac{n}{W} \frac{\sum_{ij} w_{ij} z_i z_j}{\sum_i z_i^2}, \qquad z = x - \bar x

    Parameters
    ----------
    values
        Spots x genes, sparse or dense.
    weights
        `(spots, spots)` neighbor weights; rows are scaled to sum 1 first, as Squidpy does.

    Returns
    -------
    `(genes,)` float64: NaN for constant genes, or if no spot has a neighbor.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> line = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)
    >>> h2s.metrics.morans_i_by_gene(np.array([[0.0], [0.0], [1.0], [1.0]]), line).round(2)
    array([0.5])
    """
    table = as_table(values, "values")
    graph: Any = sparse.csr_array(weights, dtype=np.float64)
    n = table.shape[0]
    if graph.shape != (n, n):
        raise ValueError(f"Expected `weights` of shape ({n}, {n}), found {graph.shape}.")
    degree = np.asarray(graph.sum(axis=1)).ravel()
    graph = sparse.diags_array(np.divide(1, degree, out=np.zeros(n), where=degree > 0)) @ graph
    total = float(graph.sum())
    table = table.tocsc() if sparse.issparse(table) else table
    parts = []
    for genes in blocks(table.shape[1], n):
        z = dense(table[:, genes])
        highest, lowest = z.max(axis=0), z.min(axis=0)
        constant = highest - lowest <= ROUNDING * np.maximum(np.abs(highest), np.abs(lowest))
        z -= z.mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            i = (
                n / total * np.einsum("ij,ij->j", z, graph @ z) / np.einsum("ij,ij->j", z, z)
                if total
                else z[0] * np.nan
            )
        parts.append(np.where(constant, np.nan, i))
    return np.concatenate(parts) if parts else np.empty(0)
