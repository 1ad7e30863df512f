"""The dispersion after training: what one number on validation spots does to it, against SciPy and against the draw."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
import torch
from builders import fast, spots_of
from scipy import optimize, sparse, stats

from hist2scrna.fitting import recalibration
from hist2scrna.fitting.inference import predict_blocks
from hist2scrna.fitting.recalibration import recalibrate_dispersion
from hist2scrna.metrics.calibration import count_scores
from hist2scrna.models.contract import TrainingStatistics
from hist2scrna.models.create import create_model
from hist2scrna.models.heads import LOG_DISPERSION_BOUNDS
from hist2scrna.tl import fit
from hist2scrna.trained.model import TrainedModel

pytestmark = pytest.mark.numeric


CPU = torch.device("cpu")
N_SPOTS, N_GENES = 320, 40
LIGHT = {"model": "hist2scrna-lightweight", "features_key": "X_few", "max_epochs": 2}


@pytest.fixture(scope="module")
def spots():
    """A square array of spots with features, without counts."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.divmod(np.arange(N_SPOTS), 16), axis=1) * 50.0
    adata = ad.AnnData(np.ones((N_SPOTS, 1)), obsm={"spatial": xy, "X_few": rng.normal(size=(N_SPOTS, 5))})
    return spots_of(adata, library_key=None, spatial_key="spatial", features_key="X_few")


def network(likelihood="nb", **options):
    """An untrained network whose means differ between spots and genes, and whose dispersions differ between genes."""
    torch.manual_seed(1)
    made = create_model(
        "hist2scrna-lightweight", preset="tiny", n_genes=N_GENES, n_features=5, likelihood=likelihood, **options
    )
    with torch.no_grad():
        made.heads.rate.weight.mul_(30)
        made.heads.start_at(
            TrainingStatistics(
                log_rate=torch.linspace(-6, -3, N_GENES),
                mean_log_normalized=torch.zeros(N_GENES),
                log_dispersion=torch.linspace(-0.5, 6, N_GENES),
                log_library=(float(np.log(400)), 0.3),
            )
        )
    return made.eval()


def predicted(model, spots):
    """Mean, dispersion 1/theta and dropout of every spot, float64, as `predict` gives them."""
    mu, phi, dropout = (np.zeros((len(spots), N_GENES)) for _ in range(3))
    for seeds, one in predict_blocks(model, spots, batch_size=64, device=CPU, log_library=None, progress=False):
        mu[seeds], phi[seeds] = one.mu.double(), torch.exp(-one.log_dispersion.double()).expand(len(seeds), -1)
        if one.dropout is not None:
            dropout[seeds] = one.dropout.double()
    return mu, phi, dropout


def log_likelihood(counts, mu, phi, dropout):
    present = stats.nbinom.pmf(counts, 1 / phi, 1 / (1 + mu * phi))
    return float(np.log(dropout * (counts == 0) + (1 - dropout) * present).mean())


def draw(spots, mu, phi, dropout, seed=0):
    """Counts of these parameters, as if they had been read."""
    rng = np.random.default_rng(seed)
    counts = stats.nbinom.rvs(1 / phi, 1 / (1 + mu * phi), random_state=rng) * (rng.random(mu.shape) >= dropout)
    spots.counts = sparse.csr_array(counts.astype(np.float32))
    return counts


def recalibrate(model, spots, validating, seed=0):
    return recalibrate_dispersion(model, spots, validating, batch_size=32, device=CPU, seed=seed, progress=False)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize("truth", [0.1, 0.5])
def test_one_number_is_found_and_intervals_become_nominal(spots, likelihood, truth):
    model = network(likelihood)
    mu, phi, dropout = predicted(model, spots)
    assert mu.std(axis=0).mean() > 0.1 * mu.mean()
    counts = draw(spots, mu, phi + truth, dropout)
    held = np.flatnonzero(spots.xy[:, 0] < 400)
    before = state(model)
    shift = recalibrate(model, spots, held)

    def loss(s):
        return -log_likelihood(counts[held], mu[held], phi[held] + s, dropout[held])

    best = optimize.minimize_scalar(loss, bounds=(0, 2), method="bounded", options={"xatol": 1e-6}).x
    assert shift == pytest.approx(best, rel=0.01)
    assert shift == pytest.approx(truth, rel=0.15)
    assert changed(before, state(model)) == {"heads.gene_dispersion"}
    now = predicted(model, spots)
    np.testing.assert_array_equal(now[0], mu)
    np.testing.assert_array_equal(now[2], dropout)
    np.testing.assert_allclose(now[1], phi + shift, rtol=1e-5)

    others = np.setdiff1d(np.arange(N_SPOTS), held)
    was, now_is = (
        count_scores(counts[others], mu[others], 1 / phi[others] if p is None else 1 / p[others], dropout[others])
        for p in (None, now[1])
    )
    nominal = {"50": 0.5, "80": 0.8, "95": 0.95}
    assert now_is.scores["coverage"] == pytest.approx(nominal, abs=0.02)
    assert was.scores["coverage"]["80"] < 0.76


def test_a_dispersion_for_each_spot_moves_by_its_bias(spots):
    model = network(dispersion="spot")
    mu, phi, dropout = predicted(model, spots)
    assert phi.std(axis=0).min() > 0
    counts = draw(spots, mu, phi + 0.3, dropout)
    before = state(model)
    shift = recalibrate(model, spots, np.arange(N_SPOTS))
    assert shift == pytest.approx(0.3, rel=0.15)
    assert changed(before, state(model)) == {"heads.spot_dispersion.bias"}
    moved = (state(model)["heads.spot_dispersion.bias"] - before["heads.spot_dispersion.bias"]).double().numpy()
    typical = np.exp(-np.log(1 / phi).mean(axis=0))
    np.testing.assert_allclose(typical * np.exp(-moved), typical + shift, rtol=1e-4)
    now = predicted(model, spots)
    np.testing.assert_array_equal(now[0], mu)
    assert log_likelihood(counts, *now) > log_likelihood(counts, mu, phi, dropout) + 0.01


def test_dispersions_beyond_the_bounds_of_the_heads(spots):
    """Genes that are Poisson to the heads are widened too; what the heads bound stays bounded."""
    model = network()
    with torch.no_grad():
        model.heads.gene_dispersion[:] = 12.0
    mu, phi, dropout = predicted(model, spots)
    np.testing.assert_allclose(phi, np.exp(-LOG_DISPERSION_BOUNDS[1]), rtol=1e-5)
    draw(spots, mu, np.full_like(mu, 0.2), dropout)
    shift = recalibrate(model, spots, np.arange(N_SPOTS))
    assert shift == pytest.approx(0.2, rel=0.1)
    np.testing.assert_allclose(predicted(model, spots)[1], shift, rtol=1e-3)

    with torch.no_grad():
        model.heads.gene_dispersion[:] = -9.0
    draw(spots, mu, np.full_like(mu, 1e5), dropout)
    before = state(model)
    assert recalibrate(model, spots, np.arange(N_SPOTS)) == 0.0
    assert changed(before, state(model)) == set()


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize("factor", [0.1, 0.7, 1.0, 1.5, 8.0])
def test_the_validation_counts_never_become_less_likely(spots, likelihood, factor):
    """Whatever the dispersion they were drawn with; where it is lower than the model's, nothing is narrowed."""
    model = network(likelihood)
    mu, phi, dropout = predicted(model, spots)
    counts = draw(spots, mu, phi * factor, dropout, seed=2)
    before = state(model)
    shift = recalibrate(model, spots, np.arange(N_SPOTS))
    # The dispersions are kept in float32: where the best shift is next to none, rounding them costs a few of its steps.
    lost = log_likelihood(counts, mu, phi, dropout) - log_likelihood(counts, *predicted(model, spots))
    assert lost <= 4 * np.finfo(np.float32).eps * abs(log_likelihood(counts, mu, phi, dropout))
    if factor < 1:
        assert shift == 0.0
        assert changed(before, state(model)) == set()


@pytest.mark.parametrize("likelihood", ["nb", "poisson", "mse"])
def test_without_validation_or_dispersion_nothing_is_done(spots, likelihood):
    model = network("nb") if likelihood == "nb" else network(likelihood)
    spots.counts = sparse.csr_array(np.ones((N_SPOTS, N_GENES), dtype=np.float32))
    before = state(model)
    validating = np.arange(0 if likelihood == "nb" else 20)
    assert recalibrate(model, spots, validating) is None
    assert changed(before, state(model)) == set()


def test_other_heads_are_left_alone(spots):
    stnet = create_model("stnet", n_genes=N_GENES)
    assert recalibrate(stnet, spots, np.arange(20)) is None


def test_of_many_counts_spots_are_drawn(spots, monkeypatch, caplog):
    model = network()
    mu, phi, dropout = predicted(model, spots)
    draw(spots, mu, phi + 0.3, dropout)
    monkeypatch.setattr(recalibration, "MOST_VALUES", 64 * N_GENES)
    begin = state(model)
    found = []
    for seed in (0, 0, 1):
        model.load_state_dict(begin)
        with caplog.at_level(logging.INFO, logger=recalibration.__name__):
            found.append(recalibrate(model, spots, np.arange(N_SPOTS), seed))
    assert "64 validation spots" in caplog.messages[0]
    assert found[0] == found[1] != found[2]
    assert found == pytest.approx([0.3] * 3, rel=0.3)


@pytest.fixture
def section(make_section):
    """A section whose counts vary in depth by what no feature shows."""
    adata = make_section(n_spots=120, n_genes=20)
    rng = np.random.default_rng(3)
    depth = rng.gamma(4, 1 / 4, adata.n_obs)
    adata.X = sparse.csr_matrix(rng.poisson(adata.X.toarray() * depth[:, None] * 3 + 0.5).astype(np.float32))
    adata.obsm["X_few"] = rng.normal(size=(adata.n_obs, 4))
    del adata.uns["spatial"]
    return adata


def test_fit_recalibrates_saves_and_keeps_its_checkpoint(section, tmp_path, monkeypatch):
    arguments = {"lr": 1e-3, "seed": 1, "labels_key": "cell_type", **LIGHT}
    model = fit(section, **fast(checkpoint_dir=tmp_path, **arguments))
    shift = model.training["dispersion_shift"]
    assert type(shift) is float
    assert shift > 0.01
    model.save(tmp_path / "saved")
    for folder in ("saved", "best"):
        loaded = TrainedModel.load(tmp_path / folder)
        assert changed(state(model.module), state(loaded.module)) == set()
        assert loaded.training == model.training
    layers = [
        one.predict(section.copy(), layers=["dispersion"], progress=False).layers["hist2scrna_dispersion"]
        for one in (model, loaded)
    ]
    np.testing.assert_array_equal(*layers)

    monkeypatch.setattr("hist2scrna.fitting.gradient.recalibrate_dispersion", lambda *_, **__: None)
    plain = fit(section, **fast(**arguments))
    assert "dispersion_shift" not in plain.training
    assert changed(state(plain.module), state(model.module)) == {"heads.gene_dispersion"}
    own, theirs = (np.exp(-state(one.module)["heads.gene_dispersion"].double().numpy()) for one in (model, plain))
    np.testing.assert_allclose(own, theirs + shift, rtol=1e-4)


@pytest.mark.parametrize("options", [{"validation": 0}, {"likelihood": "poisson"}, {"likelihood": "mse"}])
def test_fit_without_validation_or_dispersion(section, options):
    model = fit(section, **fast(**LIGHT, **options))
    assert "dispersion_shift" not in model.training


def test_patches_are_recalibrated_too(make_section):
    model = fit(make_section(), **fast(likelihood="nb", dispersion="spot", max_epochs=2))
    assert model.training["dispersion_shift"] >= 0
