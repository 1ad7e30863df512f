"""Moran's I, against Squidpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


def test_morans_i_is_that_of_squidpy(make_section) -> None:
    import squidpy as sq

    adata = make_section(n_spots=60, n_genes=8)
    adata.X = adata.X.toarray()
    sq.gr.spatial_neighbors_knn(adata, n_neighs=5)
    sq.gr.spatial_autocorr(adata, mode="moran", n_perms=None, show_progress_bar=False)
    expected = adata.uns["moranI"].loc[adata.var_names, "I"]
    found = metrics.morans_i_by_gene(sparse.csr_array(adata.X), adata.obsp["spatial_connectivities"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_morans_i_of_constants_and_islands() -> None:
    values = np.column_stack([np.ones(4), np.arange(4.0)])
    chain = sparse.diags_array([np.ones(3), np.ones(3)], offsets=[-1, 1])
    found = metrics.morans_i_by_gene(values, chain)
    assert np.isnan(found[0])
    assert found[1] > 0
    assert np.isnan(metrics.morans_i_by_gene(values, sparse.csr_array((4, 4)))).all()
    with pytest.raises(ValueError, match=r"shape \(4, 4\), found \(3, 3\)"):
        metrics.morans_i_by_gene(values, sparse.eye_array(3))
