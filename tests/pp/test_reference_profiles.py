"""Reference profiles: means of log-normalized cells by group, whatever the matrix."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from builders import TABLE_FORMATS

from hist2scrna.pp import reference_profiles


def cells(kind=np.asarray) -> ad.AnnData:
    counts = np.random.default_rng(0).poisson(1.0, (9, 5)).astype(np.float32)
    counts[3] = 0
    groups = pd.Categorical(["b", "a", "b", "a", "a", None, "b", "a", "b"])
    adata = ad.AnnData(kind(counts), obs=pd.DataFrame({"kind": groups}, index=[f"c{i}" for i in range(9)]))
    adata.var_names = [f"g{i}" for i in range(5)]
    return adata


@pytest.mark.parametrize("kind", TABLE_FORMATS)
def test_profiles_are_means_of_log_normalized_cells(kind) -> None:
    adata = cells(kind)
    profiles = reference_profiles(adata, "kind", genes=["g3", "g0"])
    table = cells().to_df()
    table = np.log1p(1e4 * table.div(table.sum(axis=1), axis=0))
    expected = table.dropna().groupby(adata.obs["kind"].astype(object)).mean()[["g3", "g0"]]
    pd.testing.assert_frame_equal(profiles.to_df(), expected, check_dtype=False, check_names=False, rtol=1e-5)
    assert profiles.obs["n_cells"].to_dict() == {"a": 3, "b": 4}
    assert profiles.X.dtype == np.float32


def test_what_makes_no_profile_is_refused() -> None:
    with pytest.raises(KeyError, match="'type' not found in adata.obs"):
        reference_profiles(cells(), "type")
    empty = cells()
    empty.X = np.zeros_like(empty.X)
    with pytest.raises(ValueError, match="No cell has both counts and a group"):
        reference_profiles(empty, "kind")
