"""Evaluation of predictions in AnnData: protocol, baselines, ceiling, provenance, refusals, and its result."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

import hist2scrna
from hist2scrna import keys, metrics
from hist2scrna.evaluation.read_prediction import LAYERS_OF
from hist2scrna.evaluation.result import SCHEMA_VERSION, Evaluation
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.models import SpotModel
from hist2scrna.provenance import fingerprint
from hist2scrna.tl import evaluate
from hist2scrna.trained.model import TrainedModel

N_GENES = 14
NAMES = keys.OutputKeys()
UNS = {"model": "made up", "likelihood": "zinb", "scale": "counts", "library_size": "predicted"}


def close(found: Any, expected: Any) -> bool:
    """Nested results alike: the same sums over another layout in memory may be added up in another order."""
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(close(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
    return found == expected


def section(name: str, n_spots: int = 50, seed: int = 0) -> AnnData:
    """ZINB counts of which the parameters are the prediction."""
    rng, genes = np.random.default_rng(seed), np.random.default_rng(99)
    rate = genes.gamma(1.5, 2.0, N_GENES)
    mu = (rate * rng.gamma(4, 0.25, (n_spots, N_GENES)) * rng.gamma(8, 0.125, (n_spots, 1))).astype(np.float32)
    theta = np.broadcast_to(genes.gamma(3, 2.0, N_GENES), mu.shape).astype(np.float32)
    dropout = np.full(mu.shape, 0.1, dtype=np.float32)
    counts = rng.negative_binomial(theta, theta / (theta + mu)) * (rng.random(mu.shape) > dropout)
    counts[:, 0] += 1
    labels = rng.choice(["stroma", "tumor"], n_spots)
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {
                "library_id": pd.Categorical([name] * n_spots),
                "cell_type": pd.Categorical(labels),
                NAMES.cell_type: pd.Categorical(np.where(rng.random(n_spots) < 0.8, labels, "tumor")),
                NAMES.cell_type_confidence: rng.uniform(0.5, 1, n_spots),
            },
            index=[f"{name}_{i}" for i in range(n_spots)],
        ),
        var=pd.DataFrame({NAMES.modeled: True}, index=[f"g{i}" for i in range(N_GENES)]),
        layers={
            NAMES.layer("mean"): (1 - dropout) * mu,
            NAMES.layer("mu"): mu,
            NAMES.layer("dispersion"): theta,
            NAMES.layer("dropout"): dropout,
        },
        uns={NAMES.parameters: dict(UNS)},
    )


@pytest.fixture
def one() -> AnnData:
    return section("s0")


@pytest.fixture
def two() -> AnnData:
    both = ad.concat([section("s1", 30, 1), section("s0", 50, 0)], merge="same")
    both.uns[NAMES.parameters] = dict(UNS)
    # Spots of both sections lie mixed.
    return both[np.random.default_rng(0).permutation(both.n_obs)].copy()


class Stub(TrainedModel):
    """A model whose prediction is a table."""

    table: AnnData
    calls: list[dict[str, Any]]

    def predict(self, adata: AnnData, **arguments: Any) -> AnnData:
        self.calls.append(arguments)
        assert arguments["copy"]
        return self.table[adata.obs_names].copy()


class Silent(SpotModel):
    """A network that nobody asks for anything but its likelihood."""

    def __init__(self, likelihood: Any) -> None:
        super().__init__()
        self.likelihood = likelihood


def stub(training: AnnData, table: AnnData, likelihood: str = "zinb") -> Stub:
    counts = sparse.csr_array(training.X)
    model = Stub(
        module=Silent(likelihood),
        name="stub",
        options={"likelihood": likelihood},
        genes=list(training.var_names),
        classes=["stroma", "tumor"],
        geometry=None,
        parameters={},
        training={"sections": list(training.obs["library_id"].unique())},
        baselines=Baselines.fit(counts),
        fingerprints=fingerprint(counts),
        history=pd.DataFrame({"train_loss": [1.0]}),
    )
    model.table, model.calls = table, []
    return model


def run(adata: AnnData, *args: Any, **kwargs: Any) -> Evaluation:
    return evaluate(adata, *args, progress=False, **kwargs)


@pytest.fixture
def read(expected_log):
    """Return what is to be expected of log(1 + 1e4 x / total) under the distribution that is predicted."""

    def expectation(adata: AnnData) -> np.ndarray:
        layers = {name: adata.layers[NAMES.layer(name)].astype(float) for name in LAYERS_OF["zinb"]}
        scale = 1e4 / layers["mean"].sum(axis=1, keepdims=True)
        return expected_log(scale, layers["mu"], layers["dispersion"], layers["dropout"])

    return expectation


# -- numbers ----------------------------------------------------------------------------------------------------------
def test_headline_is_the_protocol_of_the_field(two, read) -> None:
    found = run(two)
    expected = {}
    for name in ("s0", "s1"):
        part = two[two.obs["library_id"] == name]
        t = np.log1p(1e4 * part.X.toarray() / part.X.toarray().sum(axis=1, keepdims=True))
        p = read(part)
        expected[name] = np.array([stats.pearsonr(a, b).statistic for a, b in zip(t.T, p.T, strict=True)])
        assert found.results["sections"][name]["n_spots"] == part.n_obs
        assert found.results["sections"][name]["pearson"] == pytest.approx(expected[name].mean(), rel=1e-6)
    assert found.headline["pearson"] == pytest.approx(np.mean([v.mean() for v in expected.values()]), rel=1e-6)
    np.testing.assert_allclose(found.genes["pearson"], np.mean(list(expected.values()), axis=0), rtol=1e-6)


def test_scores_are_those_of_the_metrics(one, read) -> None:
    found = run(one)
    truth, mean = one.X.toarray().astype(float), one.layers[NAMES.layer("mean")].astype(float)
    scales = {"counts": lambda x: x, "log_normalized": metrics.log_normalize, "residual": metrics.pearson_residuals}
    for scale, transform in scales.items():
        t, p = transform(truth), read(one) if scale == "log_normalized" else transform(mean)
        got, suffix = found.results["scores"][scale]["model"], "" if scale == "log_normalized" else f"_{scale}"
        whole = metrics.overall(t, p)
        if scale == "residual":
            del whole["spearman"]
        assert {k: got["overall"][k] for k in whole} == pytest.approx(whole, rel=1e-5)
        np.testing.assert_allclose(found.genes[f"pearson{suffix}"], metrics.pearson_by_gene(t, p), rtol=1e-5)
        np.testing.assert_allclose(found.genes[f"mse{suffix}"], metrics.errors_by_gene(t, p)["mse"], rtol=1e-5)
        np.testing.assert_allclose(found.genes[f"noise_ceiling{suffix}"], metrics.noise_ceiling(truth, scale=scale))
        np.testing.assert_allclose(
            found.genes[f"depth_partial{suffix}"],
            metrics.depth_partial_pearson(t, p, truth.sum(axis=1)),
            rtol=1e-4,
            atol=1e-6,
        )
    t, p = metrics.log_normalize(truth), read(one)
    np.testing.assert_allclose(found.genes["spearman"], metrics.spearman_by_gene(t, p), rtol=1e-6)
    by_spot = found.results["scores"]["log_normalized"]["model"]["by_spot"]
    assert by_spot["pearson_mean"] == pytest.approx(metrics.pearson_by_spot(t, p).mean(), rel=1e-5)
    assert by_spot["spearman_median"] == pytest.approx(np.median(metrics.spearman_by_spot(t, p)), rel=1e-5)


def test_counts_and_zeros_are_those_of_the_metrics(one) -> None:
    found = run(one)
    layers = {name: one.layers[NAMES.layer(name)].astype(float) for name in LAYERS_OF["zinb"]}
    expected = metrics.count_scores(one.X, layers["mu"], layers["dispersion"], layers["dropout"])
    got = found.results["counts"]["model"]
    assert got["log_likelihood"] == pytest.approx(expected.scores["log_likelihood"], rel=1e-5)
    assert got["coverage"] == pytest.approx(expected.scores["coverage"], rel=1e-4)
    assert got["width"] == pytest.approx(expected.scores["width"], rel=1e-4)
    np.testing.assert_allclose(found.genes["log_likelihood"], expected.log_likelihood, rtol=1e-5)
    zeros = found.results["zeros"]["model"]
    assert zeros["observed_zero_rate"] == pytest.approx((one.X.toarray() == 0).mean())
    assert zeros["predicted_zero_rate"] == pytest.approx(expected.p_zero.mean(), rel=1e-5)
    np.testing.assert_allclose(found.genes["zero_rate"], (one.X.toarray() == 0).mean(axis=0), atol=1e-12)
    # The parameters that made the counts explain them better than any null.
    likelihoods = {name: scores["log_likelihood"] for name, scores in found.results["counts"].items()}
    assert max(likelihoods, key=lambda k: likelihoods[k]) == "model"


def test_mu_is_found_from_mean_and_dropout(one) -> None:
    expected = run(one).results["counts"]["model"]
    del one.layers[NAMES.layer("mu")]
    assert run(one).results["counts"]["model"]["log_likelihood"] == pytest.approx(expected["log_likelihood"], rel=1e-5)


def test_gene_means_score_exactly_as_the_mean_baseline(two) -> None:
    baselines = Baselines.fit(two.X)
    two.layers[NAMES.layer("mean")] = np.array(baselines.predict_mean(two.n_obs))
    del two.layers[NAMES.layer("mu")]
    two.uns[NAMES.parameters] = {"likelihood": "poisson"}
    found = run(two)
    scores = found.results["scores"]["counts"]
    assert scores["model"]["overall"] == pytest.approx(scores["mean_baseline"]["overall"], rel=1e-12)
    assert scores["model"]["by_gene"] == pytest.approx(scores["mean_baseline"]["by_gene"], rel=1e-12, nan_ok=True)
    assert found.headline["collapsed"]
    assert found.headline["pearson"] == found.headline["beats_mean_baseline"] == 0
    assert found.results["constant_genes"]["prediction"]["n"] == N_GENES
    assert "COLLAPSED" in str(found)

    two.layers[NAMES.layer("mean")] = np.array(baselines.predict_mean(two.n_obs, "log_normalized"))
    two.uns[NAMES.parameters] = {"likelihood": "mse", "scale": "log_normalized"}
    scores = run(two).results["scores"]["log_normalized"]
    for part in ("overall", "by_gene", "by_spot"):
        assert scores["model"][part] == pytest.approx(scores["mean_baseline"][part], rel=1e-12)


def test_depth_times_rate_scores_exactly_as_the_depth_baseline(one) -> None:
    baselines = Baselines.fit(one.X)
    one.layers[NAMES.layer("mean")] = baselines.predict_depth(np.asarray(one.X.sum(axis=1)).ravel())
    del one.layers[NAMES.layer("mu")]
    one.uns[NAMES.parameters] = {"likelihood": "poisson"}
    found = run(one)
    scores = found.results["scores"]["counts"]
    assert scores["model"]["overall"] == pytest.approx(scores["depth_baseline"]["overall"], rel=1e-12)
    assert scores["model"]["by_gene"]["pearson_mean"] > 0
    assert found.results["scores"]["residual"]["model"]["by_gene"]["pearson_mean"] == 0
    # What is to be expected of a logarithm rises with the depth, nearly along a line in the log total.
    assert 0 < found.headline["pearson"] < found.headline["depth_baseline"]
    assert found.headline["depth_partial"] == pytest.approx(0, abs=0.1)
    # The logarithm of the means knows nothing of depth: the total is divided out again.
    one.uns[NAMES.parameters] = {}
    assert run(one).headline["pearson"] == run(one).headline["depth_partial"] == 0


def test_true_means_are_their_own_ceiling(one) -> None:
    for name in LAYERS_OF["zinb"]:
        one.layers[f"true_{name}"] = one.layers[NAMES.layer(name)].copy()
    found = run(one)
    assert found.headline["score_over_ceiling"] == pytest.approx(1)
    assert found.results["noise_ceiling"]["method"] == "true means"
    assert set(found.results["counts"]) == {"model", "mean_baseline", "depth_baseline"}
    shuffled = np.random.default_rng(0).permutation(one.n_obs)
    for name in LAYERS_OF["zinb"]:
        one.layers[NAMES.layer(name)] = one.layers[f"true_{name}"][shuffled]
    assert run(one).headline["score_over_ceiling"] < 0.5


def test_expected_logarithms_know_depth_where_logarithms_of_means_do_not() -> None:
    """At few counts a spot, a measured log(1 + 1e4 x / total) is a zero or a large number by depth alone."""
    rng = np.random.default_rng(5)
    mean = np.outer(rng.gamma(4, 10, 300), rng.dirichlet(np.ones(N_GENES)))
    adata = ad.AnnData(
        sparse.csr_matrix((rng.poisson(mean) + np.eye(1, N_GENES)).astype(np.float32)),
        layers={NAMES.layer("mean"): mean},
        uns={NAMES.parameters: {"likelihood": "poisson"}},
    )
    expected = run(adata)
    assert "expectation under the predicted distribution" in expected.results["log_normalized_from"]
    adata.uns[NAMES.parameters] = {}
    plain = run(adata)
    assert plain.results["log_normalized_from"] == "log-normalized predicted mean"
    assert expected.headline["pearson"] > plain.headline["pearson"] + 0.1
    rmse = [found.results["scores"]["log_normalized"]["model"]["overall"]["rmse"] for found in (expected, plain)]
    assert rmse[0] < 0.95 * rmse[1]


def test_a_log_normalized_prediction_comes_first(one) -> None:
    own = np.random.default_rng(2).normal(4, 2, one.shape).astype(np.float32)
    before = run(one)
    one.layers[NAMES.layer("log_normalized")] = own
    found = run(one)
    assert found.results["log_normalized_from"] == "layer 'hist2scrna_log_normalized', as predicted"
    expected = metrics.pearson_by_gene(metrics.log_normalize(one.X.toarray()), own)
    np.testing.assert_allclose(found.genes["pearson"], expected, rtol=1e-6)
    for scale in ("counts", "residual"):
        assert found.results["scores"][scale] == before.results["scores"][scale]
    assert found.results["counts"] == before.results["counts"]
    assert found.results["normalization"] == before.results["normalization"]
    found.compare(before)
    assert "normalizes over" not in str(found)
    own[3, 2] = np.nan
    one.layers[NAMES.layer("log_normalized")] = own
    with pytest.raises(ValueError, match="'hist2scrna_log_normalized'.* holds NaN"):
        run(one)


def test_a_model_that_estimates_logarithms_is_asked_for_them() -> None:
    training, full = section("s1", 80, 5), section("s0")
    full.layers[NAMES.layer("log_normalized")] = metrics.log_normalize(full.X.toarray())
    model = stub(training, full)
    model.module.estimates_log = True
    bare = ad.AnnData(full.X, obs=full.obs[["library_id"]], var=full.var[[]])
    assert run(bare, model).headline["pearson"] == pytest.approx(1)
    assert model.calls[0]["layers"] == [*LAYERS_OF["zinb"], "log_normalized"]
    # Its logarithms are over the total of genes that are not scored here.
    said = "The model normalizes over its 14 genes, but the truth is normalized over the 4 scored genes."
    assert said in run(bare[:, :4].copy(), model).results["notes"]


def test_expected_logarithms_are_over_the_scored_genes(expected_log) -> None:
    training, full = section("s1", 80, 5), section("s0")
    bare = ad.AnnData(full.X[:, :4], obs=full.obs[["library_id"]], var=full.var.iloc[:4][[]])
    found = run(bare, stub(training, full))
    mean, mu, theta, dropout = (
        full.layers[NAMES.layer(name)][:, :4].astype(float) for name in ("mean", "mu", "dispersion", "dropout")
    )
    expected = expected_log(1e4 / mean.sum(axis=1, keepdims=True), mu, theta, dropout)
    kept = full.X[:, :4].toarray().sum(axis=1) > 0
    truth = metrics.log_normalize(full.X[kept, :4].toarray())
    np.testing.assert_allclose(found.genes["pearson"], metrics.pearson_by_gene(truth, expected[kept]), rtol=1e-5)
    assert "normalizes over" not in str(found)


def test_constant_genes_are_counted_and_named(two) -> None:
    counts = two.X.toarray()
    counts[:, 3] = 0
    counts[two.obs["library_id"] == "s1", 4] = 0
    two.X = sparse.csr_matrix(counts)
    found = run(two)
    assert found.results["constant_genes"]["truth"] == {"n": 1, "names": ["g3"]}
    assert found.results["sections"]["s1"]["n_constant_genes"] == 2
    assert np.isnan(found.genes.loc["g3", "pearson"])
    assert np.isfinite(found.genes.loc["g4", "pearson"])
    note = "1 gene is constant in the truth; such genes have no correlation and are left out of its mean (g3)."
    assert note in str(found)


def test_levels_hold_all_genes(one) -> None:
    levels = run(one).results["levels"]
    assert sum(level["n_genes"] for level in levels.values()) == N_GENES
    genes = run(one).genes
    high = genes["pearson"][genes["level"] == "high"].mean()
    assert levels["high"]["model"]["pearson_mean"] == pytest.approx(high)


def test_morans_i_takes_the_neighbors_that_are_given(make_section) -> None:
    import squidpy as sq

    adata = make_section(n_spots=60)
    mean = adata.X.toarray()
    mean[:, :6] = np.random.default_rng(0).permutation(mean[:, :6])
    adata.layers[NAMES.layer("mean")] = mean
    sq.gr.spatial_neighbors_knn(adata, n_neighs=6)
    found = run(adata).results
    assert "Moran's I" not in found["not_scored"]
    assert found["spatial"]["neighbors"] == "given"
    expected = metrics.morans_i_by_gene(metrics.log_normalize(adata.X), adata.obsp[keys.CONNECTIVITIES])
    assert found["spatial"]["morans_i_truth"] == pytest.approx(np.nanmean(expected))
    predicted = metrics.morans_i_by_gene(metrics.log_normalize(mean), adata.obsp[keys.CONNECTIVITIES])
    assert found["spatial"]["morans_i_prediction"] == pytest.approx(np.nanmean(predicted), rel=1e-5)
    both = np.isfinite(expected) & np.isfinite(predicted)
    agreement = stats.pearsonr(expected[both], predicted[both]).statistic
    assert found["spatial"]["morans_i_pearson"] == pytest.approx(agreement, rel=1e-4)


def test_cell_types(one) -> None:
    one.obs.iloc[4:6, one.obs.columns.get_loc("cell_type")] = None
    found = run(one, labels_key="cell_type")
    kept = one.obs.iloc[[*range(4), *range(6, one.n_obs)]]
    right = kept["cell_type"].astype(str) == kept[NAMES.cell_type].astype(str)
    types = found.results["cell_types"]
    assert types["accuracy"] == pytest.approx(right.mean())
    assert types["n_labeled"] == 48
    assert {name: row["support"] for name, row in types["report"].items()} == kept["cell_type"].value_counts().to_dict()
    assert 0 < types["expected_calibration_error"] < 1
    assert "2 spots without a label" in str(found)


def test_labels_that_the_model_never_saw_are_refused(one) -> None:
    one.obs["cell_type"] = one.obs["cell_type"].cat.add_categories("never seen")
    one.obs.iloc[:4, one.obs.columns.get_loc("cell_type")] = "never seen"
    before = one.copy()
    said = (
        r"adata.obs\['cell_type'\] holds labels that the model never saw: \['never seen'\]. "
        r"Its classes are \['stroma', 'tumor'\]. Rename them, set them to NaN so that those spots are left out"
    )
    for model in (None, stub(section("s1", 80, 5), one)):
        with pytest.raises(ValueError, match=said):
            run(one, model, labels_key="cell_type")
    pd.testing.assert_frame_equal(one.obs, before.obs)
    assert list(one.uns) == list(before.uns)
    one.obs.loc[one.obs["cell_type"] == "never seen", "cell_type"] = np.nan
    assert run(one, labels_key="cell_type").results["cell_types"]["n_labeled"] == 46


def test_classes_that_no_spot_is_called_are_known_all_the_same(one) -> None:
    # Taking a subset of an AnnData drops the categories that do not occur in it.
    one.obs[NAMES.cell_type] = pd.Categorical(["tumor"] * one.n_obs)
    with pytest.raises(ValueError, match="never saw: .'stroma'."):
        run(one, labels_key="cell_type")
    one.obsm[NAMES.cell_type_probability] = pd.DataFrame(0.5, index=one.obs_names, columns=["stroma", "tumor"])
    assert run(one, labels_key="cell_type").results["cell_types"]["report"]["stroma"]["recall"] == 0


# -- what is scored ---------------------------------------------------------------------------------------------------
def test_only_modeled_genes_are_scored(one) -> None:
    one.var.loc[["g2", "g5"], NAMES.modeled] = False
    one.layers[NAMES.layer("mean")][:, [2, 5]] = np.nan
    found = run(one)
    assert list(found.genes.index) == [g for g in one.var_names if g not in ("g2", "g5")]
    smaller = run(one[:, found.genes.index].copy())
    assert close(smaller.headline, found.headline)
    assert smaller.results["panel"] == found.results["panel"]


def test_panel_hash_tells_panels_apart(one) -> None:
    whole, part = run(one), run(one[:, 1:].copy())
    assert whole.results["panel"]["sha256"] != part.results["panel"]["sha256"]
    shuffled = run(one[:, ::-1].copy())
    assert whole.results["panel"] == shuffled.results["panel"]
    assert whole.headline["pearson"] == pytest.approx(shuffled.headline["pearson"])


def test_adata_is_left_as_it_was(one) -> None:
    before = one.copy()
    run(one, labels_key="cell_type")
    assert (one.X != before.X).nnz == 0
    assert list(one.layers) == list(before.layers)
    for name in one.layers:
        np.testing.assert_array_equal(one.layers[name], before.layers[name])
    pd.testing.assert_frame_equal(one.obs, before.obs)
    pd.testing.assert_frame_equal(one.var, before.var)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_counts_may_be_in_a_layer_of_any_format(one, kind) -> None:
    expected = run(one).results
    one.layers["raw"] = kind(one.X.toarray())
    one.X = np.log1p(one.X.toarray())
    found = run(one, layer="raw").results
    assert found["data"].pop("layer") == "raw"
    assert expected["data"].pop("layer") == "X"
    assert close(found, expected)


def test_empty_spots_are_left_out(one) -> None:
    counts = one.X.toarray()
    counts[[1, 7]] = 0
    one.X = sparse.csr_matrix(counts)
    found = run(one)
    assert found.results["data"]["n_spots"] == 48
    assert found.results["data"]["n_spots_left_out"] == 2
    rest = run(one[[i for i in range(50) if i not in (1, 7)]].copy())
    assert close(found.headline, rest.headline)


def test_mse_models_are_scored_on_their_own_scale(one) -> None:
    values = metrics.log_normalize(one.X.toarray()) * 0.5 + 1
    one.layers[NAMES.layer("mean")] = values
    one.uns[NAMES.parameters] = {"model": "m", "likelihood": "mse", "scale": "log_normalized"}
    found = run(one)
    assert list(found.results["scores"]) == ["log_normalized"]
    np.testing.assert_allclose(found.genes["pearson"], 1)
    np.testing.assert_allclose(found.genes["spread_ratio"], 0.5)
    assert found.results["counts"] == found.results["zeros"] == {}
    assert "not a distribution of counts" in str(found)


def test_missing_dispersion_is_said(one) -> None:
    del one.layers[NAMES.layer("dispersion")]
    found = run(one)
    assert found.results["counts"] == {}
    assert "hist2scrna_dispersion" in found.results["not_scored"]["count likelihood, zeros"]
    assert found.headline["pearson"] > 0


def test_sections_of_one_spot(one) -> None:
    one.obs["library_id"] = pd.Categorical(["lonely", *["s0"] * 49])
    found = run(one)
    assert found.results["sections"]["lonely"]["pearson"] is None
    rest = run(one[1:].copy())
    assert found.headline["pearson"] == pytest.approx(rest.headline["pearson"])


# -- with a model -----------------------------------------------------------------------------------------------------
def test_model_supplies_its_training_nulls() -> None:
    training, test = section("s1", 80, 5), section("s0")
    found = run(test, stub(training, test))
    assert found.results["baselines"]["fitted_on"] == "training"
    baselines = Baselines.fit(training.X)
    mse = ((test.X.toarray() - baselines.mean) ** 2).mean(axis=0)
    np.testing.assert_allclose(found.genes["mean_baseline_mse_counts"], mse, rtol=1e-6)
    assert found.results["split"]["held_out"] is True
    assert found.results["split"]["statement"].startswith("held out; the model was fitted on s1")
    alone = run(test)
    assert alone.results["baselines"]["fitted_on"] == "scored spots"
    assert alone.results["split"]["held_out"] is None


def test_training_spots_are_noticed_loudly(two) -> None:
    training = two[two.obs["library_id"] == "s1"].copy()
    with pytest.warns(UserWarning, match=r"NOT HELD OUT: 30 of 80 spots .*\(of s1\)"):
        found = run(two, stub(training, two))
    assert found.results["split"]["held_out"] is False
    assert found.results["split"]["n_seen"] == 30
    assert found.results["split"]["seen_sections"] == ["s1"]
    assert found.headline["held_out"] is False
    # Right below what was scored, above every number.
    assert str(found).splitlines()[1].startswith("NOT HELD OUT: 30 of 80 spots")
    page = found._repr_html_()
    assert 0 < page.index('role="alert"') < page.index("NOT HELD OUT: 30 of 80 spots") < page.index("<table")


@pytest.mark.parametrize("with_model", [True, False])
def test_a_split_by_spots_is_noticed_loudly(with_model) -> None:
    whole = section("s1", 80, 5)
    training, rest = whole[:60].copy(), whole[60:].copy()
    if not with_model:
        rest.uns[NAMES.parameters]["trained_on"] = ["s1"]
    with pytest.warns(UserWarning, match="NOT HELD OUT: the model was fitted on other spots of s1"):
        found = run(rest, stub(training, whole) if with_model else None)
    assert found.headline["held_out"] is False
    assert found.results["split"]["n_seen"] == (0 if with_model else None)
    assert found.results["split"]["same_sections"] == ["s1"]
    assert str(found).splitlines()[1].startswith("NOT HELD OUT")
    assert "splitting by spot leaks information" in found._repr_html_()


def test_sections_held_out_are_not_shouted_about(one) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = run(one, stub(section("s1", 80, 5), one))
    assert found.headline["held_out"] is True
    assert "NOT HELD OUT" not in str(found)
    assert 'role="alert"' not in found._repr_html_()
    assert "Split: held out; the model was fitted on s1." in str(found)


def test_sections_without_a_name_are_not_taken_for_one_another(one) -> None:
    model = stub(section("s1", 80, 5), one)
    model.training["sections"] = ["section"]
    del one.obs["library_id"]
    assert run(one, model).results["split"]["held_out"] is True


def test_model_predicts_what_is_missing() -> None:
    training, full = section("s1", 80, 5), section("s0")
    model, expected = stub(training, full), run(full)
    bare = full.copy()
    for name in LAYERS_OF["zinb"]:
        del bare.layers[NAMES.layer(name)]
    for adata in (bare, full[:, ::-1].copy()):
        if adata is not bare:
            del adata.layers[NAMES.layer("dispersion")]
        found = run(adata, model)
        assert found.headline["pearson"] == pytest.approx(expected.headline["pearson"], rel=1e-6)
        assert found.results["counts"]["model"]["log_likelihood"] == pytest.approx(
            expected.results["counts"]["model"]["log_likelihood"], rel=1e-6
        )
        assert found.results["model"]["predicted_by_evaluate"]
    assert len(model.calls) == 2
    assert model.calls[0]["layers"] == list(LAYERS_OF["zinb"])
    run(full, model)
    assert len(model.calls) == 2


def test_some_genes_missing_here() -> None:
    training, full = section("s1", 80, 5), section("s0")
    found = run(full[:, 3:].copy(), stub(training, full))
    assert list(found.genes.index) == list(full.var_names[3:])
    assert "11 of the 14 genes" in found.results["baselines"]["statement"]
    assert found.results["split"]["statement"].startswith("unknown: genes of the model are missing here")


def test_predictions_of_another_model_are_refused(one) -> None:
    model = stub(section("s1", 80, 5)[:, :5].copy(), one)
    with pytest.raises(ValueError, match="for 9 genes that this model does not know"):
        run(one, model)


# -- refusals ---------------------------------------------------------------------------------------------------------
def spoil_counts(adata: AnnData, value: float) -> None:
    counts = adata.X.toarray()
    counts[3, 4] = value
    adata.X = counts


@pytest.mark.parametrize(("value", "said"), [(0.5, "whole numbers"), (-1, "negative"), (np.nan, "NaN")])
def test_what_is_no_count_is_refused(one, value, said) -> None:
    spoil_counts(one, value)
    with pytest.raises(ValueError, match=f"Expected adata.X to hold counts, found .*{said}"):
        run(one)


def test_missing_slots_are_named(one) -> None:
    with pytest.raises(KeyError, match="Key 'raw' not found in adata.layers"):
        run(one, layer="raw")
    with pytest.raises(KeyError, match="Key 'kind' not found in adata.obs. Available keys: .*cell_type"):
        run(one, labels_key="kind")
    with pytest.raises(KeyError, match="Key 'slide' not found in adata.obs"):
        run(one, library_key="slide")
    with pytest.raises(KeyError, match=r"Key 'other_mean' not found .* pass model="):
        run(one, key="other")


def test_predictions_must_be_finite_and_not_negative(one) -> None:
    one.layers[NAMES.layer("mean")][2, 3] = -0.1
    with pytest.raises(ValueError, match="'hist2scrna_mean'.* holds negative values"):
        run(one)
    one.layers[NAMES.layer("mean")][2, 3] = np.inf
    with pytest.raises(ValueError, match="'hist2scrna_mean'.* holds NaN or infinite"):
        run(one)


def test_nothing_in_common_is_said(one) -> None:
    one.var[NAMES.modeled] = False
    with pytest.raises(ValueError, match="marks no gene as predicted"):
        run(one)


def test_too_few_spots(one) -> None:
    one.X = sparse.csr_matrix(one.X.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="Too few spots to score: 0 of 50"):
        run(one)


# -- the object -------------------------------------------------------------------------------------------------------
def test_json_there_and_back(two, tmp_path) -> None:
    counts = two.X.toarray()
    counts[:, 3] = 0
    two.X = sparse.csr_matrix(counts)
    found = run(two, labels_key="cell_type")
    text = found.to_json(tmp_path / "evaluation.json")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    content = json.loads(text, parse_constant=refuse)
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["genes"]["pearson"][3] is None
    assert content["package_version"] == hist2scrna.__version__
    assert content["model"] == {
        "name": "made up",
        "preset": "unknown",
        "likelihood": "zinb",
        "library_size": "predicted",
        "key": "hist2scrna",
        "predicted_by_evaluate": False,
        "variance_explained": None,
    }
    names = "\n".join(sorted(two.var_names))
    assert content["panel"] == {"n_genes": N_GENES, "sha256": hashlib.sha256(names.encode()).hexdigest()}
    assert content["genes"]["gene"] == list(two.var_names)
    assert content["normalization"].startswith("log(1 + 1e4 x / total)")
    assert content["split"]["held_out"] is None
    assert content["split"]["statement"].startswith("unknown: no model was given")
    assert "NaN" not in text
    for back in (Evaluation.from_json(tmp_path / "evaluation.json"), Evaluation.from_json(text)):
        assert back.results == found.results
        pd.testing.assert_frame_equal(back.genes, found.genes)
        assert str(back) == str(found)


def test_wrong_json_is_refused(one, tmp_path) -> None:
    with pytest.raises(ValueError, match="no evaluation"):
        Evaluation.from_json('{"genes": 3}')
    content = json.loads(run(one).to_json())
    content["schema_version"] = SCHEMA_VERSION + 1
    with pytest.raises(ValueError, match="reads version"):
        Evaluation.from_json(json.dumps(content))
    with pytest.raises(FileNotFoundError):
        Evaluation.from_json(tmp_path / "none.json")


def test_frame_holds_every_number(one) -> None:
    found = run(one, labels_key="cell_type")
    frame = found.to_frame().set_index(["section", "part", "scale", "predictor", "metric"])["value"]
    assert frame.index.is_unique
    assert frame["all", "headline", "log_normalized", "model", "pearson"] == found.headline["pearson"]
    assert frame["all", "counts", "counts", "model", "coverage.80"] == pytest.approx(
        found.results["counts"]["model"]["coverage"]["80"]
    )
    assert frame["s0", "section", "log_normalized", "", "n_spots"] == 50
    assert frame["all", "cell_types", "", "", "accuracy"] == found.results["cell_types"]["accuracy"]


def test_text_and_html_show_model_nulls_and_ceiling(one) -> None:
    one.uns[NAMES.parameters]["model"] = "<b>sharp</b>"
    found = run(one, labels_key="cell_type")
    text, page = str(found), found._repr_html_()
    for word in (
        "model",
        "mean baseline",
        "depth baseline",
        "ceiling",
        "depth-partial",
        "coverage of 95 %",
        "accuracy",
    ):
        assert word in text
        assert word in page
    assert f"{found.headline['pearson']:.3f}" in text
    assert "<b>sharp</b>" not in page
    assert repr(found) == text


def test_html_is_well_formed_and_escaped(two) -> None:
    from xml.etree import ElementTree

    counts = two.X.toarray()
    counts[:, 3] = 0
    two.X = sparse.csr_matrix(counts)
    two.var_names = [*two.var_names[:3], '<i>"A"&B</i>', *two.var_names[4:]]
    two.obs["library_id"] = two.obs["library_id"].cat.rename_categories({"s0": "<s0>&"})
    two.uns[NAMES.parameters]["model"] = "<script>1</script>"
    page = run(two, labels_key="cell_type")._repr_html_()
    tree = ElementTree.fromstring(page)
    assert {"i", "script", "s0"}.isdisjoint(element.tag for element in tree.iter())
    text = "".join(tree.itertext())
    assert '(<i>"A"&B</i>)' in text
    assert "<s0>&" in text
    assert "<script>1</script>" in text
    # No color of its own: whatever the theme, text and ground are those of the notebook.
    styles = ";".join(element.get("style", "") for element in tree.iter())
    assert set(re.findall(r"(?:color|background):([^;]+)", styles)) == {"inherit"}
    rows = [[len(row), row.find("th")] for row in tree.iter("tr")]
    assert {n for n, heading in rows if heading is None or heading.get("colspan") is None} == {5}


def test_same_seed_same_numbers(one) -> None:
    assert run(one).results == run(one).results
    assert run(one, seed=1).results["noise_ceiling"] != run(one).results["noise_ceiling"]


def test_true_means_of_poisson_counts_reach_the_thinning_ceiling() -> None:
    """Nothing here knows the truth but the prediction: the ceiling is found from the counts alone."""
    rng = np.random.default_rng(11)
    n_spots, n_genes = 800, 30
    mean = rng.dirichlet(np.full(n_genes, 4.0), n_spots) * 600 * rng.gamma(20, 0.05, (n_spots, 1))
    adata = ad.AnnData(
        sparse.csr_matrix(rng.poisson(mean).astype(np.float32)),
        obs=pd.DataFrame({"library_id": ["a"] * 350 + ["b"] * 450}, index=[str(i) for i in range(n_spots)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]),
        layers={NAMES.layer("mean"): mean},
        uns={NAMES.parameters: {"likelihood": "poisson"}},
    )
    found = run(adata)
    assert found.results["noise_ceiling"]["method"] == "binomial thinning"
    # The formula is exact on counts; halving the depth bends the logarithm.
    assert found.headline["score_over_ceiling"] == pytest.approx(1, abs=0.04)
    assert found.headline["depth_partial_over_ceiling"] == pytest.approx(1, abs=0.04)
    for scale in ("counts", "residual"):
        reached = found.results["scores"][scale]["model"]["by_gene"]["pearson_mean"]
        assert reached / found.results["noise_ceiling"][scale]["mean"] == pytest.approx(1, abs=0.01)
    # Half of the signal gone is seen.
    adata.layers[NAMES.layer("mean")] = mean * rng.gamma(2, 0.5, mean.shape)
    assert run(adata).headline["score_over_ceiling"] < 0.8


def test_simulated_truth_reaches_the_ceiling() -> None:
    from hist2scrna.datasets import simulate

    adata = ad.concat(simulate("small", n_sections=2, n_genes=60, seed=3), uns_merge="unique")
    truth = {"mean": keys.TRUE_MEAN, "mu": keys.TRUE_MU, "dispersion": keys.TRUE_DISPERSION}
    for name, layer in {**truth, "dropout": keys.TRUE_DROPOUT}.items():
        adata.layers[NAMES.layer(name)] = adata.layers[layer]
    adata.uns[NAMES.parameters] = dict(UNS)
    found = run(adata)
    assert found.headline["score_over_ceiling"] == pytest.approx(1)
    # What ZINB counts allow, in closed form: on counts, a gene's score is the share of its variance that is signal.
    mean, mu, theta, dropout = (
        adata.layers[name].astype(float)
        for name in (keys.TRUE_MEAN, keys.TRUE_MU, keys.TRUE_DISPERSION, keys.TRUE_DROPOUT)
    )
    noise = (1 - dropout) * mu * (1 + mu * (dropout + 1 / theta))
    limits = []
    for name in adata.obs["library_id"].unique():
        here = (adata.obs["library_id"] == name).to_numpy()
        signal = mean[here].var(axis=0)
        limits.append(np.sqrt(signal / (signal + noise[here].mean(axis=0))).mean())
    reached = found.results["scores"]["counts"]["model"]["by_gene"]["pearson_mean"]
    # The tails are long, so that the sample variance is most often below its expectation, and the score above.
    assert reached / np.mean(limits) == pytest.approx(1, abs=0.08)
    n = adata.n_obs * adata.n_vars
    for level in ("50", "80", "95"):
        assert found.results["counts"]["model"]["coverage"][level] == pytest.approx(
            float(level) / 100, abs=4 * np.sqrt(0.25 / n)
        )
    assert found.results["counts"]["model"]["pit_distance"] < 1.95 / np.sqrt(n)
    assert found.headline["beats_depth_baseline"] > 0.75
    assert found.headline["pearson"] > found.headline["depth_baseline"] + 0.1
