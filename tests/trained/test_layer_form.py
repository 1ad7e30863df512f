"""Layers in half precision, and layers without small means: what is written, and who reads it again."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import torch
from builders import fast
from scipy import sparse
from sections import section

import hist2scrna as h2s
from hist2scrna import keys
from hist2scrna.evaluation.plain import numbers
from hist2scrna.models.prediction import Prediction
from hist2scrna.trained.layer_form import LayerForm
from hist2scrna.trained.sparse_layer import SparseLayer
from hist2scrna.trained.writer import PredictionWriter

MEAN, LOG = (keys.OutputKeys().layer(name) for name in ("mean", "log_normalized"))
QUIET = {"progress": False, "accelerator": "cpu"}
BELOW = 2.0


@pytest.fixture(scope="module")
def model():
    """A network on neighbors: its blocks are not in the order of the rows."""
    return h2s.tl.fit(section(), **fast(labels_key="cell_type"))


@pytest.fixture(scope="module")
def plain(model) -> ad.AnnData:
    return h2s.tl.predict(section(), model, **QUIET)


def headline(evaluation) -> dict[str, float]:
    return dict(numbers(evaluation.headline))


def read(path) -> ad.AnnData:
    return sc.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)


def with_features() -> ad.AnnData:
    """A section whose expression follows its features, so that what is predicted varies."""
    adata = section(n_spots=80)
    noise = np.random.default_rng(0).normal(0, 0.3, adata.shape)
    adata.obsm["f"] = (np.log1p(np.asarray(adata.to_df())) + noise).astype(np.float32)
    return adata


@pytest.fixture(scope="module")
def varied():
    model = h2s.tl.fit(with_features(), model="kernel", features_key="f", progress=False)
    return model, h2s.tl.predict(with_features(), model, **QUIET)


@pytest.mark.parametrize("store", [None, "p.h5ad", "p.zarr"])
def test_half_precision_keeps_three_digits_and_every_score(varied, tmp_path, store) -> None:
    model, plain = varied
    path = None if store is None else tmp_path / store
    out = h2s.tl.predict(with_features(), model, dtype="float16", store=path, **QUIET)
    written = out if path is None else read(path)
    for name, values in plain.layers.items():
        assert written.layers[name].dtype == np.float16
        np.testing.assert_allclose(written.layers[name].astype(np.float64), values, rtol=2**-10)
    mine, theirs = headline(h2s.tl.evaluate(written, progress=False)), headline(h2s.tl.evaluate(plain, progress=False))
    assert list(mine) == list(theirs)
    np.testing.assert_allclose(list(mine.values()), list(theirs.values()), rtol=0.02, atol=0.002)


@pytest.mark.parametrize("store", [None, "p.h5ad", "p.zarr"])
def test_small_means_are_left_out(model, plain, tmp_path, store) -> None:
    path = None if store is None else tmp_path / store
    out = h2s.tl.predict(section(), model, sparse_below=BELOW, store=path, **QUIET)
    written = out if path is None else read(path)
    small = np.asarray(plain.layers[MEAN]) < BELOW
    assert 0 < small.mean() < 1
    for name in (MEAN, LOG):
        assert sparse.issparse(written.layers[name]) and written.layers[name].format == "csr"
        np.testing.assert_array_equal(
            written.layers[name].toarray(), np.where(small, 0, plain.layers[name]).astype(np.float32)
        )
    for name in set(plain.layers) - {MEAN, LOG}:
        np.testing.assert_array_equal(written.layers[name], plain.layers[name])
    if path is not None:
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        # What predict returned reads it from the store.
        np.testing.assert_array_equal(out.layers[MEAN].compute().toarray(), written.layers[MEAN].toarray())
    # Scanpy works on it as on counts.
    sc.pp.pca(written, layer=LOG, n_comps=3)
    sc.pp.calculate_qc_metrics(written, layer=MEAN, inplace=True, percent_top=None)
    np.testing.assert_allclose(
        written.obs["total_counts"], np.where(small, 0, plain.layers[MEAN]).sum(axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("store", [None, "p.zarr"])
def test_no_likelihood_is_scored_of_means_that_were_left_out(model, plain, tmp_path, store, caplog) -> None:
    path = None if store is None else tmp_path / store
    out = h2s.tl.predict(section(), model, sparse_below=BELOW, store=path, **QUIET)
    alone = h2s.tl.evaluate(out, progress=False)
    assert "means below 2 were stored as zeros" in str(alone) and not np.isinf(list(headline(alone).values())).any()
    # The model tells the likelihood, of means that are predicted again.
    with caplog.at_level("INFO", logger="hist2scrna"):
        again = h2s.tl.evaluate(out, model, progress=False)
    assert "Means below 2 were stored as zeros" in caplog.text
    reference = h2s.tl.evaluate(plain, model, progress=False)
    assert headline(again) == pytest.approx(headline(reference), nan_ok=True, rel=1e-2, abs=1e-3)
    unscored = "count likelihood, zeros"
    assert unscored in alone.results["not_scored"] and unscored not in again.results["not_scored"]


def test_what_float16_does_not_hold() -> None:
    form = LayerForm("float16")
    values = np.array([[1e-12, 0.0, 0.3, 65_000.0, np.nan]], dtype=np.float32)
    written = form.of("mean", values, values)
    assert written[0, 0] > 0 and written[0, 1] == 0 and np.isnan(written[0, 4])
    assert form.of("dropout", np.array([[0.9999999]], dtype=np.float32), values)[0, 0] < 1
    values[0, 0] = 70_000
    with pytest.raises(ValueError, match=r"Layer 'mean' holds 70,000, and float16 ends at 65,504.*float32"):
        form.of("mean", values, values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float64"}, r"Expected `dtype` to be one of \['float32', 'float16'\], found 'float64'"),
        ({"sparse_below": 0}, "Expected `sparse_below` to be a positive number, found 0"),
        ({"sparse_below": "a"}, "Expected `sparse_below` to be a positive number, found 'a'"),
        ({"sparse_below": 0.1, "dtype": "float16"}, "SciPy has no sparse matrix of float16.*not both"),
    ],
)
def test_what_is_refused(model, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        h2s.tl.predict(section(), model, **arguments, **QUIET)


def test_models_of_log_normalized_expression_have_no_small_counts() -> None:
    with pytest.raises(ValueError, match="predicts log-normalized expression"):
        LayerForm(sparse_below=0.1).check("mse")


def test_rows_come_in_any_order_and_missing_ones_are_nan() -> None:
    rng = np.random.default_rng(0)
    table = rng.poisson(0.3, (50, 7)).astype(np.float32)
    layer = SparseLayer(table.shape)
    order = rng.permutation(50)[:45]
    for start in range(0, 45, 10):
        rows = np.sort(order[start : start + 10])
        layer[rows] = table[rows]
    table[np.setdiff1d(np.arange(50), order)] = np.nan
    whole = layer.to_memory()
    np.testing.assert_array_equal(whole.toarray(), table)
    assert whole.has_sorted_indices and whole.nnz == (table != 0).sum()


def test_genes_that_the_model_does_not_know_remain_nan() -> None:
    adata = ad.AnnData(np.zeros((3, 3), dtype=np.float32))
    options = {
        "classes": [],
        "key": "k",
        "layers": ["mean"],
        "copy": False,
        "store": None,
        "called": "spots",
        "several": False,
    }
    writer = PredictionWriter(
        adata, rows=np.array([0, 2]), genes=["2", "0"], form=LayerForm(sparse_below=0.5), **options
    )
    log_mu = torch.log(torch.tensor([[1.0, 0.1], [0.2, 3.0]]))
    writer.add(np.array([1, 0]), Prediction(embedding=torch.zeros(2, 1), log_mu=log_mu))
    layer = writer.finish(None, {}).layers["k_mean"].toarray()
    nan = np.nan
    np.testing.assert_allclose(layer, [[3, nan, 0], [nan, nan, nan], [0, nan, 1]], rtol=1e-6)
