"""Slides: what is known within a slide and what across slides are told apart; bulk is scored as it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import pearsonr, spearmanr

import hist2scrna as h2s

KEY = "hist2scrna"


def slides(n: int = 24, *, whole: bool, seed: int = 0, level: float = 2.0) -> AnnData:
    """Slides of which genes differ by their level everywhere, and a little between slides, as the features say."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(99).normal(size=(5, 40))
    features = rng.normal(size=(n, 5)).astype(np.float32)
    levels = np.random.default_rng(98).normal(size=40) * level
    bulk = np.exp2(8 + levels + 0.3 * features @ weights + 0.2 * rng.normal(size=(n, 40)))
    return AnnData(
        np.round(bulk).astype(np.float32) if whole else bulk.astype(np.float32),
        obs=pd.DataFrame(index=[f"slide{seed}_{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(40)]),
        obsm={"X_f": features},
        uns={"pooled": {"expression": "pseudobulk" if whole else "bulk", "features_key": "X_f"}},
    )


@pytest.fixture(scope="module")
def evaluation():
    train, test = slides(whole=False), slides(whole=False, seed=1)
    training = {"max_epochs": 60, "lr": 1e-3, "validation": 0, "accelerator": "cpu"}
    model = h2s.tl.fit(train, model="hist2rna", training=training, progress=False)
    test = h2s.tl.predict(test, model, progress=False)
    return h2s.tl.evaluate(test, model, progress=False), test, train


def log_normalized(values: np.ndarray) -> np.ndarray:
    return np.log1p(1e4 * values / values.sum(axis=1, keepdims=True))


def test_ranks_of_genes_within_a_slide_stand_beside_those_of_the_mean_baseline(evaluation) -> None:
    found, test, train = evaluation
    truth, predicted = np.asarray(test.X), test.layers[f"{KEY}_mean"]
    ours = np.median([spearmanr(t, p).statistic for t, p in zip(truth, predicted, strict=True)])
    mean = log_normalized(np.asarray(train.X, dtype=np.float64)).mean(axis=0)
    baseline = np.median([spearmanr(t, mean).statistic for t in truth])
    assert found.headline["within_slides_spearman"] == pytest.approx(ours, abs=1e-6)
    assert found.headline["within_slides_spearman_mean_baseline"] == pytest.approx(baseline, abs=1e-6)
    assert baseline > 0.9
    text = str(found)
    assert "24 slides, 40 genes" in text
    assert "within slides" in text
    assert "Spearman over genes, median" in text
    assert "log-normalized, across slides" in text
    assert "Pearson by spot" not in text


def test_genes_are_correlated_across_slides(evaluation) -> None:
    found, test, _ = evaluation
    truth = log_normalized(np.asarray(test.X, dtype=np.float64))
    predicted = test.layers[f"{KEY}_log_normalized"]
    expected = [pearsonr(truth[:, g], predicted[:, g]).statistic for g in range(40)]
    np.testing.assert_allclose(found.genes["pearson"], expected, atol=1e-5)
    assert list(found.results["sections"]) == ["slides"]


def test_what_needs_counts_is_said_not_to_be_scored(evaluation) -> None:
    found, _, _ = evaluation
    assert "not whole numbers" in found.results["not_scored"]["noise ceiling"]
    assert found.results["noise_ceiling"]["log_normalized"]["mean"] is None
    assert "not a distribution of counts" in found.results["not_scored"]["count likelihood, zeros"]
    assert not found.results["counts"]


def test_training_slides_are_recognized(evaluation) -> None:
    _, _, train = evaluation
    model = h2s.tl.fit(train, model="hist2rna", training={"max_epochs": 1, "accelerator": "cpu"}, progress=False)
    with pytest.warns(UserWarning, match=r"NOT HELD OUT: 24 of 24 slides .* fitted on\. .* Evaluate on slides"):
        assert h2s.tl.evaluate(train.copy(), model, progress=False).headline["held_out"] is False
    other = train.copy()
    other.X = np.asarray(other.X) * 1.001
    assert h2s.tl.evaluate(other, model, progress=False).headline["held_out"] is True


def test_pseudobulk_has_a_noise_ceiling_and_ridge_is_scored_the_same_way() -> None:
    model = h2s.tl.fit(slides(whole=True), model="ridge", progress=False)
    found = h2s.tl.evaluate(slides(whole=True, seed=1), model, progress=False)
    assert found.headline["noise_ceiling"] > 0.9
    assert found.headline["within_slides_spearman"] > found.headline["within_slides_spearman_mean_baseline"]


def test_spots_have_no_score_within_slides(make_section) -> None:
    section = make_section()
    section.obsm["X_f"] = np.random.default_rng(0).normal(size=(section.n_obs, 3))
    model = h2s.tl.fit(section, model="ridge", features_key="X_f", progress=False)
    with pytest.warns(UserWarning, match="NOT HELD OUT"):
        found = h2s.tl.evaluate(section, model, progress=False)
    assert "within_slides_spearman" not in found.headline
    assert "within slides" not in str(found)


def test_one_slide_alone_is_refused() -> None:
    model = h2s.tl.fit(slides(whole=True), model="ridge", progress=False)
    with pytest.raises(ValueError, match="Too few"):
        h2s.tl.evaluate(slides(whole=True, seed=1)[:1].copy(), model, progress=False)
