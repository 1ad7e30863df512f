"""Pooling: means and sums by slide, bulk matched by name, and what does not fit is refused."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from hist2scrna.pp import pool_patches

SLIDES = np.array(["b", "a", "b", "c", "a", "b", "c"])


@pytest.fixture
def patches() -> ad.AnnData:
    rng = np.random.default_rng(0)
    n = len(SLIDES)
    return ad.AnnData(
        X=sparse.csr_matrix(rng.poisson(2.0, (n, 3)).astype(np.float32)),
        obs=pd.DataFrame(
            {
                "library_id": pd.Categorical(SLIDES),
                "donor": pd.Categorical([{"a": "x", "b": "x", "c": "y"}[name] for name in SLIDES]),
                "age": [{"a": 50, "b": 50, "c": 61}[name] for name in SLIDES],
                "row": range(n),
                "tissue_fraction": [0.5, 1.0, 0.25, 1.0, 0.0, 0.25, 1.0],
            },
            index=[f"p{i}" for i in range(n)],
        ),
        var=pd.DataFrame({"kind": ["k0", "k1", "k2"]}, index=["g0", "g1", "g2"]),
        obsm={"X_f": rng.normal(size=(n, 4)).astype(np.float32)},
        uns={"X_f": {"encoder": "mine", "license": "none"}, "spatial": {name: {"metadata": {}} for name in "abc"}},
    )


def bulk_of(names: list[str], genes: tuple[str, ...] = ("TP53", "ESR1")) -> pd.DataFrame:
    values = np.random.default_rng(1).gamma(2.0, 100.0, (len(names), len(genes)))
    return pd.DataFrame(values, index=names, columns=list(genes))


def test_mean_features_and_pseudobulk(patches) -> None:
    before = patches.copy()
    pooled = pool_patches(patches, "X_f", by="library_id")
    assert list(pooled.obs_names) == ["a", "b", "c"]
    for name in "abc":
        rows = SLIDES == name
        row = pooled.obs_names.get_loc(name)
        np.testing.assert_allclose(pooled.obsm["X_f"][row], before.obsm["X_f"][rows].mean(axis=0), rtol=1e-6)
        np.testing.assert_array_equal(pooled.X[row], before.X.toarray()[rows].sum(axis=0))
    assert pooled.obs["n_patches"].tolist() == [2, 3, 2]
    assert pooled.obs["donor"].tolist() == ["x", "x", "y"]
    assert pooled.obs["age"].tolist() == [50, 50, 61]
    assert pooled.obs["library_id"].tolist() == ["a", "b", "c"]
    assert "row" not in pooled.obs
    assert pooled.var["kind"].tolist() == ["k0", "k1", "k2"]
    assert pooled.uns["pooled"]["expression"] == "pseudobulk"
    assert pooled.uns["pooled"]["features_key"] == "X_f"
    assert pooled.uns["X_f"]["encoder"] == "mine"
    assert set(pooled.uns["spatial"]) == {"a", "b", "c"}
    np.testing.assert_array_equal(before.obsm["X_f"], patches.obsm["X_f"])
    assert list(before.uns) == list(patches.uns)


def test_weights_and_regions(patches) -> None:
    pooled = pool_patches(patches, "X_f", by="donor", weight_key="tissue_fraction")
    weights = patches.obs["tissue_fraction"].to_numpy()
    rows = np.isin(SLIDES, ["a", "b"])
    expected = np.average(patches.obsm["X_f"][rows], axis=0, weights=weights[rows])
    np.testing.assert_allclose(pooled.obsm["X_f"][0], expected, rtol=1e-6)
    assert pooled.obs["n_patches"].tolist() == [4, 2]
    assert "library_id" not in pooled.obs


def test_a_draw_of_patches_is_repeatable_and_takes_expression_of_all(patches) -> None:
    one, again = (pool_patches(patches, "X_f", max_patches=1, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.obsm["X_f"], again.obsm["X_f"])
    others = [pool_patches(patches, "X_f", max_patches=1, seed=seed).obsm["X_f"] for seed in range(5)]
    assert any(not np.array_equal(one.obsm["X_f"], other) for other in others)
    assert one.obs["n_patches"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(one.X, pool_patches(patches, "X_f").X)


@pytest.mark.parametrize("kind", ["frame", "anndata", "layer", "csv", "tsv", "h5ad"])
def test_bulk_is_matched_by_name(patches, tmp_path, kind) -> None:
    table, layer = bulk_of(["c", "a", "b"]), None
    bulk: object = table
    if kind in ("anndata", "layer", "h5ad"):
        bulk = ad.AnnData(table)
    if kind == "layer":
        bulk.layers["rsem"], layer = bulk.X.copy(), "rsem"
        bulk.X = None
    if kind == "h5ad":
        bulk.write_h5ad(tmp_path / "bulk.h5ad")
        bulk = tmp_path / "bulk.h5ad"
    if kind in ("csv", "tsv"):
        bulk = tmp_path / f"bulk.{kind}"
        table.to_csv(bulk, sep="," if kind == "csv" else "\t")
    pooled = pool_patches(patches, "X_f", bulk=bulk, layer=layer)
    assert list(pooled.var_names) == ["TP53", "ESR1"]
    np.testing.assert_allclose(pooled.X, table.loc[["a", "b", "c"]].to_numpy(), rtol=1e-6)
    assert pooled.uns["pooled"]["expression"] == "bulk"


def test_without_expression(patches) -> None:
    bare = ad.AnnData(obs=patches.obs, obsm=dict(patches.obsm))
    pooled = pool_patches(bare, "X_f")
    assert pooled.X is None
    assert pooled.uns["pooled"]["expression"] == "none"


def test_slides_and_bulk_that_do_not_agree_are_refused_unless_inner(patches) -> None:
    with pytest.raises(ValueError, match=r"1 slides have no row in `bulk`: \['c'\].*inner=True"):
        pool_patches(patches, "X_f", bulk=bulk_of(["a", "b"]))
    with pytest.raises(ValueError, match=r"1 rows of `bulk` are of no slide in adata: \['d'\]"):
        pool_patches(patches, "X_f", bulk=bulk_of(["a", "b", "c", "d"]))
    pooled = pool_patches(patches, "X_f", bulk=bulk_of(["d", "b", "a"]), inner=True)
    assert list(pooled.obs_names) == ["a", "b"]
    assert pooled.obs["n_patches"].tolist() == [2, 3]


def test_the_nearest_name_is_given(patches) -> None:
    patches.obs["library_id"] = patches.obs["library_id"].cat.rename_categories(lambda name: f"TCGA-A2-A04{name}-01Z")
    bulk = bulk_of(["TCGA-A2-A04a-01", "TCGA-A2-A04b-01", "TCGA-A2-A04c-01"])
    with pytest.raises(ValueError, match="None of the 3 slides.*nearest to 'TCGA-A2-A04a-01Z' is 'TCGA-A2-A04a-01'"):
        pool_patches(patches, "X_f", bulk=bulk)
    with pytest.raises(ValueError, match="Slides are its columns: pass bulk.T"):
        pool_patches(patches, "X_f", bulk=bulk_of(list(patches.obs["library_id"].cat.categories)).T)


def test_wrong_bulk_is_refused(patches, tmp_path) -> None:
    good = bulk_of(["a", "b", "c"])
    twice = pd.concat([good, good.iloc[:1]])
    with pytest.raises(ValueError, match=r"names of slides occur more than once in `bulk`: \['a'\]"):
        pool_patches(patches, "X_f", bulk=twice)
    with pytest.raises(ValueError, match=r"names of genes occur more than once in `bulk`: \['TP53'\]"):
        pool_patches(patches, "X_f", bulk=good.set_axis(["TP53", "TP53"], axis=1))
    good.set_axis(["TP53", "TP53"], axis=1).to_csv(tmp_path / "twice.csv")
    with pytest.raises(ValueError, match=r"names of genes occur more than once"):
        pool_patches(patches, "X_f", bulk=tmp_path / "twice.csv")
    with pytest.raises(ValueError, match=r"1 values of `bulk` are missing or infinite \(the first of slide 'b'"):
        pool_patches(
            patches, "X_f", bulk=good.where(good.index.to_numpy()[:, None] + good.columns.to_numpy() != "bTP53")
        )
    with pytest.raises(ValueError, match="below zero"):
        pool_patches(patches, "X_f", bulk=good - 1e6)
    with pytest.raises(ValueError, match=r"1 columns of `bulk` hold text.*'subtype'"):
        pool_patches(patches, "X_f", bulk=good.assign(subtype="LumA"))
    with pytest.raises(ValueError, match="`bulk` is empty"):
        pool_patches(patches, "X_f", bulk=good.iloc[:0])
    with pytest.raises(FileNotFoundError, match=r"there\.csv"):
        pool_patches(patches, "X_f", bulk=tmp_path / "there.csv")
    with pytest.raises(TypeError, match="AnnData, a data frame or a path, found dict"):
        pool_patches(patches, "X_f", bulk={"a": 1})
    with pytest.raises(KeyError, match="Layer 'rsem' not found"):
        pool_patches(patches, "X_f", bulk=ad.AnnData(good), layer="rsem")


def test_wrong_patches_are_refused(patches) -> None:
    with pytest.raises(KeyError, match="'slide' not found in adata.obs"):
        pool_patches(patches, "X_f", by="slide")
    with pytest.raises(KeyError, match="'X_g' not found in adata.obsm"):
        pool_patches(patches, "X_g")
    with pytest.raises(ValueError, match="`max_patches` to be at least 1"):
        pool_patches(patches, "X_f", max_patches=0)
    with pytest.raises(ValueError, match="pass one of the two"):
        pool_patches(patches, "X_f", encoder="imagenet")
    with pytest.raises(ValueError, match="weights of 0 or more, found 7 other values"):
        pool_patches(patches, "X_f", weight_key="donor")
    patches.obs.loc[patches.obs["library_id"] == "a", "tissue_fraction"] = 0.0
    with pytest.raises(ValueError, match="All patches of slide 'a' have weight 0"):
        pool_patches(patches, "X_f", weight_key="tissue_fraction")
    patches.obs.loc["p0", "library_id"] = np.nan
    with pytest.raises(ValueError, match="1 spots have no value in adata.obs"):
        pool_patches(patches, "X_f")
    half = patches.copy()
    half.X = half.X * 0.5
    half.obs["library_id"] = pd.Categorical(SLIDES)
    with pytest.raises(ValueError, match="not whole numbers"):
        pool_patches(half, "X_f")


def test_features_are_extracted_where_none_are_named(make_section) -> None:
    import torch

    from hist2scrna import io

    sections = io.concat([make_section(name, seed=i) for i, name in enumerate("ab")])
    before = set(sections.obsm)

    def colors(patches: torch.Tensor) -> torch.Tensor:
        return patches.mean(dim=(2, 3))

    pooled = pool_patches(sections, by="library_id", encoder=colors, progress=False)
    assert pooled.obsm["X_colors"].shape == (2, 3)
    assert pooled.uns["pooled"]["features_key"] == "X_colors"
    assert pooled.uns["X_colors"]["encoder"] == "colors"
    assert set(sections.obsm) == before
    assert "X_colors" not in sections.uns
