"""Prediction: the slots, for AnnData with all, some or none of the model's genes; exact, repeatable, chained."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from xml.etree import ElementTree

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from builders import fast
from scipy import stats

from hist2scrna import TrainedModel, keys
from hist2scrna.fitting.batches import make_batch
from hist2scrna.fitting.tissue_meter import TissueMeter
from hist2scrna.models import Context
from hist2scrna.tl import evaluate, fit, predict

QUIET = {"progress": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def model(make_section):
    genes = [f"g{i}" for i in (3, 1, 8, 5)]
    return fit(make_section(), **fast(genes=genes, labels_key="cell_type", lr=1e-3, max_epochs=2))


@pytest.fixture
def unseen(make_section):
    return make_section("s9", seed=9, kind="hexagonal", n_spots=33)


def bare(adata):
    return ad.AnnData(obs=adata.obs.copy(), obsm=dict(adata.obsm), uns=adata.uns)


def test_all_genes_are_written_in_place(model, unseen, expected_log):
    before = unseen.X.toarray()
    out = predict(unseen, model, layers=keys.LAYERS, **QUIET)
    assert out is unseen
    np.testing.assert_array_equal(unseen.X.toarray(), before)
    known = unseen.var["hist2scrna_modeled"].to_numpy()
    assert list(unseen.var_names[known]) == ["g1", "g3", "g5", "g8"]
    for name in keys.LAYERS:
        layer = unseen.layers[f"hist2scrna_{name}"]
        assert layer.dtype == np.float32
        assert np.isnan(layer[:, ~known]).all() and np.isfinite(layer[:, known]).all()
    mean, dropout, mu = (unseen.layers[f"hist2scrna_{name}"][:, known] for name in ("mean", "dropout", "mu"))
    np.testing.assert_allclose(mean, (1 - dropout) * mu, rtol=1e-5)
    assert (dropout >= 0).all() and (dropout <= 1).all()
    theta, log, spread = (
        unseen.layers[f"hist2scrna_{name}"][:, known] for name in ("dispersion", "log_normalized", "uncertainty")
    )
    scale = 1e4 / mean.sum(axis=1, keepdims=True, dtype=float)
    np.testing.assert_allclose(log, expected_log(scale, mu.astype(float), theta, dropout), rtol=1e-5)
    count = stats.nbinom(theta.astype(float), theta / (theta + mu.astype(float)))
    square = (1 - dropout) * (count.var() + count.mean() ** 2)
    np.testing.assert_allclose(spread, np.sqrt(square - mean.astype(float) ** 2), rtol=1e-4)
    probability = unseen.obsm["hist2scrna_cell_type_probability"]
    assert list(probability.columns) == ["stroma", "tumor"] and list(probability.index) == list(unseen.obs_names)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    assert (probability.idxmax(axis=1) == unseen.obs["hist2scrna_cell_type"].astype(str)).all()
    np.testing.assert_array_equal(probability.max(axis=1), unseen.obs["hist2scrna_cell_type_confidence"])
    assert unseen.obs["hist2scrna_cell_type"].dtype == "category"
    assert unseen.obsm["X_hist2scrna"].shape == (33, 96)
    facts = unseen.uns["hist2scrna"]
    assert (facts["model"], facts["preset"], facts["likelihood"]) == ("hist2scrna", "tiny", "zinb")
    assert facts["library_size"] == "predicted"


def test_prediction_equals_the_network_on_the_full_graph(model, unseen):
    """Encoding once and reading in blocks gives what one pass of the network over the whole section gives."""
    out = predict(unseen, model, batch_size=5, **QUIET)
    spots = model.read(unseen)
    batch, _ = make_batch(spots, np.arange(len(spots)), Context("hops", 0), supervised=False)
    with torch.no_grad():
        whole = model.module(batch)
    np.testing.assert_allclose(out[:, model.genes].layers["hist2scrna_mean"], whole.mean.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out.obsm["X_hist2scrna"], whole.embedding.numpy(), rtol=1e-5, atol=1e-6)


def test_every_patch_is_encoded_once(model, unseen, monkeypatch):
    encoded = []
    original = type(model.module).encode

    def counting(self, batch):
        encoded.append(len(batch.patches))
        return original(self, batch)

    monkeypatch.setattr(type(model.module), "encode", counting)
    monkeypatch.setattr("hist2scrna.fitting.inference.GRAPH_BLOCK", 7)
    small_blocks = predict(unseen.copy(), model, batch_size=8, **QUIET)
    assert sum(encoded) == unseen.n_obs
    monkeypatch.undo()
    whole = predict(unseen, model, **QUIET)
    left, right = (out[:, model.genes].layers["hist2scrna_mean"] for out in (small_blocks, whole))
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_some_and_no_genes_give_a_new_object(model, unseen):
    reference = predict(unseen.copy(), model, **QUIET)[:, model.genes]
    for given in (unseen[:, ["g3", "g0"]].copy(), bare(unseen)):
        n_vars = given.n_vars
        out = predict(given, model, **QUIET)
        assert out is not given
        assert given.n_vars == n_vars and "hist2scrna" not in given.uns and list(given.layers) == []
        assert list(out.var_names) == model.genes
        assert out.var["hist2scrna_modeled"].all()
        np.testing.assert_array_equal(out.X, reference.layers["hist2scrna_mean"])
        np.testing.assert_array_equal(out.layers["hist2scrna_mean"], reference.layers["hist2scrna_mean"])
        assert "cell_type" in out.obs and "spatial" in out.obsm and "s9" in out.uns["spatial"]


def test_a_new_object_for_missing_genes_is_said(model, unseen, caplog):
    with caplog.at_level("INFO", "hist2scrna"):
        predict(unseen, model, **QUIET)
        assert "a new AnnData" not in caplog.text
        predict(unseen[:, ["g3", "g0"]].copy(), model, **QUIET)
    (line,) = [record.getMessage() for record in caplog.records if "a new AnnData" in record.getMessage()]
    assert line.startswith("adata lacks 3 of the 4 genes") and "keep it: adata = tl.predict(adata, ...)" in line


def test_copy_is_restricted_to_the_modeled_genes(model, unseen):
    out = predict(unseen, model, copy=True, key_added="p", layers="mean", **QUIET)
    assert list(unseen.layers) == [] and "p" not in unseen.uns and "p_cell_type" not in unseen.obs
    assert list(out.var_names) == model.genes
    np.testing.assert_array_equal(out.X, out.layers["p_mean"])
    assert list(out.layers) == ["p_mean"]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("some", [False, True])
def test_store_streams_the_same_numbers(model, unseen, tmp_path, suffix, some):
    given = bare(unseen) if some else unseen
    path = tmp_path / f"p.{suffix}"
    out = predict(given, model, store=path, **QUIET)
    reference = predict(given.copy(), model, **QUIET)
    assert list(given.layers) == [] and "hist2scrna" not in given.uns
    written = ad.read_h5ad(path) if suffix == "h5ad" else ad.read_zarr(path)
    assert sorted(written.layers) == sorted(reference.layers)
    for name in reference.layers:
        np.testing.assert_array_equal(written.layers[name], reference.layers[name])
        np.testing.assert_array_equal(np.asarray(out.layers[name]), reference.layers[name])
    pd.testing.assert_frame_equal(written.obs, reference.obs, check_categorical=False)
    np.testing.assert_array_equal(written.obsm["X_hist2scrna"], reference.obsm["X_hist2scrna"])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileExistsError, match=f"p.{suffix}"):
        predict(given, model, store=path, **QUIET)


def test_a_store_holds_the_layers_that_were_asked_for_alone(model, unseen, tmp_path):
    out = predict(bare(unseen), model, store=tmp_path / "p.zarr", layers="dropout", **QUIET)
    written = ad.read_zarr(tmp_path / "p.zarr")
    assert list(written.layers) == list(out.layers) == ["hist2scrna_dropout"]
    reference = predict(bare(unseen), model, layers="dropout", **QUIET)
    np.testing.assert_array_equal(written.layers["hist2scrna_dropout"], reference.layers["hist2scrna_dropout"])


def test_nothing_is_written_when_it_fails_halfway(model, unseen, tmp_path, monkeypatch):
    calls = []

    def broken(*args, **kwargs):
        calls.append(1)
        raise RuntimeError("no more memory")

    monkeypatch.setattr(type(model.module), "decode", broken)
    for store in (None, tmp_path / "p.h5ad", tmp_path / "p.zarr"):
        with pytest.raises(RuntimeError, match="no more memory"):
            predict(unseen, model, store=store, **QUIET)
    assert len(calls) == 3
    assert list(unseen.layers) == [] and "hist2scrna" not in unseen.uns and "X_hist2scrna" not in unseen.obsm
    # Encodings, from which the same call goes on.
    assert {path.name for path in tmp_path.iterdir()} == {"p.h5ad.partial", "p.zarr.partial"}
    monkeypatch.undo()
    predict(unseen, model, store=tmp_path / "p.h5ad", **QUIET)
    assert {path.name for path in tmp_path.iterdir()} == {"p.h5ad", "p.zarr.partial"}


def test_result_can_be_written_and_read(model, unseen, tmp_path):
    out = predict(unseen, model, **QUIET)
    out.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(again.layers["hist2scrna_mean"], out.layers["hist2scrna_mean"])
    assert again.uns["hist2scrna"]["geometry"]["px"] == 48


def test_library_sizes(model, unseen):
    unseen.obs["depth"] = np.linspace(10, 300, unseen.n_obs)
    runs = {
        size: predict(unseen.copy(), model, library_size=size, layers=["mu"], **QUIET)
        for size in ("predicted", "median", "depth")
    }
    used = {size: run.obs["hist2scrna_library_size"].to_numpy(dtype=float) for size, run in runs.items()}
    assert used["predicted"].std() > 0
    np.testing.assert_allclose(used["median"], model.baselines.median_library)
    np.testing.assert_allclose(used["depth"], unseen.obs["depth"], rtol=1e-6)
    rates = [runs[s][:, model.genes].layers["hist2scrna_mu"] / used[s][:, None] for s in runs]
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-4)
    np.testing.assert_allclose(rates[0], rates[2], rtol=1e-4)
    assert runs["median"].uns["hist2scrna"]["library_size"] == "median"
    unseen.obs["depth"] = 0
    with pytest.raises(ValueError, match=r"obs\['depth'\].*positive"):
        predict(unseen, model, library_size="depth", **QUIET)


def test_order_of_spots_and_other_sections_do_not_matter(model, make_section):
    first, second = make_section("s5", seed=5), make_section("s6", seed=6, kind="square")
    both = ad.concat([first, second], uns_merge="unique")
    shuffled = both[np.random.default_rng(0).permutation(both.n_obs)].copy()
    apart = {**dict(zip(first.obs_names, predict(first, model, **QUIET).layers["hist2scrna_mean"], strict=True))}
    apart |= dict(zip(second.obs_names, predict(second, model, **QUIET).layers["hist2scrna_mean"], strict=True))
    together = predict(shuffled, model, library_key="library_id", **QUIET)
    expected = np.array([apart[name] for name in shuffled.obs_names])
    np.testing.assert_allclose(together.layers["hist2scrna_mean"], expected, rtol=1e-5, atol=1e-6)


def test_layer_that_the_likelihood_lacks_is_refused(make_section):
    poisson = fit(make_section(), **fast(likelihood="poisson", max_epochs=2))
    adata = make_section()
    with pytest.raises(ValueError, match=r"no 'dropout'.*\['mean', 'mu', 'log_normalized', 'uncertainty'\]"):
        predict(adata, poisson, layers=("mean", "dropout"), **QUIET)
    assert list(adata.layers) == []
    assert list(predict(adata, poisson, **QUIET).layers) == ["hist2scrna_mean", "hist2scrna_log_normalized"]


def test_models_of_log_normalized_expression_have_no_other(make_section):
    mse = fit(make_section(), **fast(likelihood="mse", max_epochs=2))
    out = predict(make_section(), mse, layers=("mean", "log_normalized"), **QUIET)
    np.testing.assert_array_equal(out.layers["hist2scrna_mean"], out.layers["hist2scrna_log_normalized"])
    with pytest.raises(ValueError, match=r"no 'uncertainty'.*\['mean', 'log_normalized'\]"):
        predict(make_section(), mse, layers=("uncertainty",), **QUIET)


@pytest.mark.parametrize(("trained_um", "differs"), [(55, True), (65, False), (72, False), (95, True), (120, False)])
def test_scales_are_compared_by_spots_where_one_is_inferred_from_them(model, unseen, trained_um, differs):
    """Spots are 72 um wide here, by metadata; the training took the width of its own for granted."""
    unit = {"kind": "spot", "um": float(trained_um)}
    inferred = replace(
        model,
        geometry=replace(model.geometry, scale_from="spot diameter"),
        training=model.training | {"unit": unit},
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        predict(unseen.copy(), inferred, **QUIET)
    known = [str(w.message) for w in said if "Microns are known" in str(w.message)]
    assert len(known) == differs
    for message in known:
        assert "makes spots of 72 um" in message and f"in training, of spots of {trained_um} um" in message
    assert any("counts of a whole spot" in str(w.message) for w in said) == (trained_um == 120)
    # mpp= settles it, and places that were laid over a slide have no width of their own.
    laid = unseen.copy()
    laid.obs["tissue_fraction"] = 1.0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        predict(unseen.copy(), inferred, mpp=2.0, **QUIET)
        predict(laid, inferred, **QUIET)
    assert not any("Microns are known" in str(w.message) for w in said)


def decoding(model, monkeypatch, **fields):
    """Let the network say more; values are those of the whole section, in the order of its spots."""
    original = type(model.module).decode

    def more(self, tokens, batch):
        return replace(original(self, tokens, batch), **fields)

    monkeypatch.setattr(type(model.module), "decode", more)


def test_expected_logarithms_score_alike_as_a_layer_and_from_the_distribution(model, unseen):
    predict(unseen, model, layers=keys.LAYERS, **QUIET)
    written = evaluate(unseen, progress=False)
    del unseen.layers["hist2scrna_log_normalized"]
    computed = evaluate(unseen, progress=False)
    assert written.results["log_normalized_from"] != computed.results["log_normalized_from"]
    assert written.genes["pearson"].std() > 0.01
    for column in ("mse", "prediction_mean"):
        np.testing.assert_allclose(written.genes[column], computed.genes[column], rtol=1e-5)
    # After two epochs the prediction hardly varies, and rounding to float32 is seen.
    np.testing.assert_allclose(written.genes["pearson"], computed.genes["pearson"], atol=1e-3)


@pytest.mark.parametrize("some", [False, True])
def test_what_was_predicted_is_scored_without_predicting_again(model, unseen, monkeypatch, caplog, some):
    predicted = predict(unseen[:, ["g3", "g0", "g8"]].copy() if some else unseen, model, **QUIET)
    theta = model.module.heads.gene_dispersion.detach().exp().numpy()
    np.testing.assert_allclose(predicted.var.loc[model.genes, "hist2scrna_dispersion"], theta, rtol=1e-6)
    assert predicted.var["hist2scrna_dispersion"].isna().sum() == predicted.n_vars - 4
    predicted = predicted[:, model.genes].copy()
    predicted.X = unseen[:, model.genes].X
    whole = predicted.copy()
    monkeypatch.setattr(TrainedModel, "predict", None)
    with caplog.at_level("INFO", "hist2scrna"):
        found = evaluate(predicted, model, progress=False)
        assert "predicted again" not in caplog.text
        monkeypatch.undo()
        del predicted.var["hist2scrna_dispersion"]
        again = evaluate(predicted, model, progress=False)
    assert "no layer 'hist2scrna_dispersion'" in caplog.text and "all 33 spots are predicted again" in caplog.text
    assert not found.results["model"]["predicted_by_evaluate"] and again.results["model"]["predicted_by_evaluate"]
    likelihoods = [e.results["counts"]["model"]["log_likelihood"] for e in (found, again)]
    np.testing.assert_allclose(*likelihoods, rtol=1e-6)
    # Without its own column, the dispersion that a layer holds is read.
    del whole.var["hist2scrna_dispersion"]
    whole.layers["hist2scrna_dispersion"] = np.tile(theta, (33, 1))
    assert not evaluate(whole, model, progress=False).results["model"]["predicted_by_evaluate"]


def test_a_dispersion_by_spot_is_no_column(model, make_section):
    adata = predict(make_section(), model, **QUIET)
    by_spot = fit(make_section(), **fast(dispersion="spot"))
    predict(adata, by_spot, **QUIET)
    assert "hist2scrna_dispersion" not in adata.var


@pytest.mark.parametrize("store", [None, "p.h5ad", "p.zarr"])
def test_spots_unlike_the_training_tissue_are_marked_and_warned_of(model, unseen, monkeypatch, tmp_path, store):
    distance = np.linspace(0.02, 1.2, 33, dtype=np.float32)
    monkeypatch.setattr(TissueMeter, "distance", lambda meter: distance)
    path = None if store is None else tmp_path / store
    with pytest.warns(UserWarning, match=r"^6 of 33 spots \(18%\) are unlike .*extrapolation.*'k_tissue_dis") as said:
        out = predict(unseen, model, key_added="k", store=path, **QUIET)
    (unlike,) = (w for w in said if "unlike" in str(w.message))
    several = unseen.obs["library_id"].nunique() > 1
    assert unlike.filename == __file__ and ("library_key=..., shape=None" in str(unlike.message)) is several
    if store is not None:
        out = ad.read_h5ad(path) if store.endswith("h5ad") else ad.read_zarr(path)
    assert out.obs["k_tissue_distance"].dtype == np.float32
    np.testing.assert_array_equal(out.obs["k_tissue_distance"], distance)
    assert tuple(out.obs["k_unlike_training"].cat.categories) == keys.TISSUE
    np.testing.assert_array_equal(out.obs["k_unlike_training"] == "unlike training", distance > 1)
    assert len(out.uns["k_unlike_training_colors"]) == len(keys.TISSUE)


def test_a_spot_or_two_that_is_unlike_the_training_tissue_is_no_alarm(model, unseen, monkeypatch):
    distance = np.full(33, 0.4)
    distance[7] = 3
    monkeypatch.setattr(TissueMeter, "distance", lambda meter: distance)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        out = predict(unseen, model, **QUIET)
    assert (out.obs["hist2scrna_unlike_training"] == "unlike training").sum() == 1


def test_without_a_distance_to_the_training_tissue_nothing_is_said_of_it(model, unseen):
    blind = replace(model, tissue=None)
    assert not [c for c in predict(unseen, blind, **QUIET).obs if "tissue" in c or "unlike" in c]


def test_saved_model_predicts_the_same_bits_in_a_fresh_process(model, unseen, tmp_path):
    model.save(tmp_path / "model")
    unseen.write_h5ad(tmp_path / "unseen.h5ad")
    script = (
        "import sys, anndata, numpy, hist2scrna\n"
        "folder = sys.argv[1]\n"
        "out = hist2scrna.tl.predict(anndata.read_h5ad(folder + '/unseen.h5ad'), folder + '/model', progress=False)\n"
        "numpy.save(folder + '/mean.npy', out.layers['hist2scrna_mean'])\n"
        "numpy.save(folder + '/embedding.npy', out.obsm['X_hist2scrna'])\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(tmp_path)], check=True)
    out = predict(unseen, model, **QUIET)
    np.testing.assert_array_equal(np.load(tmp_path / "mean.npy"), out.layers["hist2scrna_mean"])
    np.testing.assert_array_equal(np.load(tmp_path / "embedding.npy"), out.obsm["X_hist2scrna"])


def test_a_notebook_shows_the_facts_of_a_model_as_a_table(model):
    hostile = replace(model, genes=["<b>g</b>", *model.genes[1:]])
    rows = ElementTree.fromstring(hostile._repr_html_()).iter("tr")
    shown = {str(row[0].text): str(row[1].text) for row in rows}
    head, *lines = repr(hostile).splitlines()
    assert head == f"TrainedModel 'hist2scrna', preset 'tiny', {model.n_parameters:,} parameters"
    assert [f"  {name:<10}  {value}" for name, value in shown.items()] == lines
    assert "<b>g</b>" in shown["predicts"] and "<b>" not in hostile._repr_html_()


def test_the_preset_is_the_default_one_where_none_was_named(model):
    assert replace(model, parameters={**model.parameters, "preset": None}).preset == "small"


def test_model_folder(model, tmp_path):
    folder = model.save(tmp_path / "model")
    names = {p.name for p in folder.iterdir()}
    assert names == {"model.safetensors", "training.safetensors", "model.json", "history.csv"}
    again = TrainedModel.load(folder)
    assert repr(again) == repr(model)
    assert (again.genes, again.classes, again.geometry) == (model.genes, model.classes, model.geometry)
    pd.testing.assert_frame_equal(again.history, model.history)
    np.testing.assert_array_equal(again.baselines.rate, model.baselines.rate)
    for text in ("'hist2scrna', preset 'tiny'", "4 genes", "stroma", "108 um", "48 px", "zinb", "best epoch"):
        assert text in repr(model)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(folder)
    model.save(folder, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="no model"):
        model.save(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("model.json", "{", "damaged"),
        ("model.json", '{"format_version": 99}', "format 99.*newer"),
        ("model.json", "{}", "damaged"),
        ("model.safetensors", "junk", "damaged"),
    ],
)
def test_damaged_models_are_refused(model, tmp_path, file, text, message):
    folder = model.save(tmp_path / "model")
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        TrainedModel.load(folder)


def test_model_knows_the_spots_that_it_saw(model, make_section):
    from hist2scrna.spots.counts import read_counts

    seen, new = make_section(), make_section(seed=4)
    assert model.has_seen(read_counts(seen, model.genes, None)).all()
    assert model.has_seen(read_counts(seen[5:9], model.genes, None)).all()
    assert model.has_seen(read_counts(new, model.genes, None)).mean() < 0.2
