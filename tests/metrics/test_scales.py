"""Log-normalized counts and Pearson residuals, against Scanpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_log_normalize_is_that_of_scanpy(counts, kind) -> None:
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(sparse.csr_matrix(counts))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    found = metrics.log_normalize(kind(counts))
    assert sparse.issparse(found) == sparse.issparse(kind(counts))
    assert not sparse.issparse(found) or found.format == kind(counts).format
    np.testing.assert_allclose(found.toarray() if sparse.issparse(found) else found, adata.X.toarray(), rtol=1e-5)


def test_log_normalize_leaves_empty_spots_empty() -> None:
    np.testing.assert_array_equal(metrics.log_normalize(np.array([[0, 0], [1, 3]]))[0], 0)
    table = sparse.csr_array(np.array([[0.0, 0], [1, 3]]))
    np.testing.assert_array_equal(metrics.log_normalize(table).toarray()[0], 0)
    np.testing.assert_array_equal(table.toarray(), [[0, 0], [1, 3]])


def test_pearson_residuals_are_those_of_scanpy(counts) -> None:
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(counts.copy())
    sc.experimental.pp.normalize_pearson_residuals(adata)
    np.testing.assert_allclose(metrics.pearson_residuals(counts), adata.X, rtol=1e-6)
    np.testing.assert_allclose(metrics.pearson_residuals(sparse.csr_array(counts)), adata.X, rtol=1e-6)


def test_depth_times_rate_has_no_residual() -> None:
    means = np.outer(np.array([5, 50, 500.0]), [0.1, 0.2, 0.7]).astype(np.float32)
    np.testing.assert_array_equal(metrics.pearson_residuals(means), 0)
