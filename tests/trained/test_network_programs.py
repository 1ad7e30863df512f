"""Networks whose rates are made of gene programs, which counts without images tell too."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
from builders import negative_binomial
from scipy import sparse
from typer.testing import CliRunner

import hist2scrna as h2s
from hist2scrna.cli.app import app

GENES, PROGRAMS = 30, 3
WORLD = np.random.default_rng(5)
RATES, PROGRAM = WORLD.normal(0.5, 1, GENES), 0.5 * WORLD.normal(size=GENES)
TRAINING = {"max_epochs": 3, "validation": 0.0, "lr": 1e-3}
OPTIONS = {"model": "hist2scrna-lightweight", "preset": "tiny", "features_key": "X_f", "progress": False}


def donor(name: str, seed: int, n_sections: int = 2) -> ad.AnnData:
    """Sections of a donor; depth and one program follow the features."""
    rng = np.random.default_rng(seed)
    n = 60 * n_sections
    features = rng.normal(size=(n, 5)).astype(np.float32)
    log_mu = RATES + 0.5 * features[:, :1] + features[:, 1:2] * PROGRAM
    adata = ad.AnnData(sparse.csr_matrix(negative_binomial(rng, np.exp(log_mu), 5.0)))
    adata.obs_names = [f"{name}_{i}" for i in range(n)]
    adata.obs["library_id"] = np.repeat([f"{name}{i}" for i in range(n_sections)], 60)
    adata.obs["donor"] = name
    adata.obsm["X_f"] = features
    adata.obsm["spatial"] = np.stack([np.arange(n) % 9, np.arange(n) // 9 % 9], axis=1) * 100.0
    return adata


@pytest.fixture(scope="module")
def train() -> ad.AnnData:
    return donor("a", 0)


@pytest.fixture(scope="module")
def others() -> ad.AnnData:
    table = ad.concat([donor(f"o{i}", 10 + i) for i in range(3)])
    del table.obsm
    return table


def fitted(train: ad.AnnData, **arguments) -> h2s.TrainedModel:
    return h2s.tl.fit(train, **{"group_key": "donor", "training": TRAINING, **OPTIONS, **arguments})


@pytest.fixture(scope="module")
def model(train, others) -> h2s.TrainedModel:
    return fitted(train, expression=others, n_programs=PROGRAMS)


def test_programs_are_those_of_the_kernel_model_and_stay(train, others, model) -> None:
    kernel = h2s.tl.fit(
        train,
        model="kernel",
        features_key="X_f",
        group_key="donor",
        expression=others,
        n_programs=PROGRAMS,
        progress=False,
    ).module
    ours = model.module.heads.rate.loadings
    np.testing.assert_allclose(ours[:, 1:].T, kernel.loadings[1:], rtol=1e-5, atol=1e-6)
    # Means are the library size times the rate: what depth does beyond.
    np.testing.assert_allclose(ours[:, 0], kernel.loadings[0] - 1, rtol=1e-5, atol=1e-6)
    assert model.training["donors_without_images"] == ["o0", "o1", "o2"]
    alone = fitted(train, n_programs=PROGRAMS)
    assert not np.allclose(alone.module.heads.rate.loadings, ours)


def test_rates_vary_along_the_programs_alone(model) -> None:
    new = model.predict(donor("b", 1), copy=True, layers=["mu"], progress=False)
    log_rate = np.log(new.layers["hist2scrna_mu"]) - np.log(new.obs["hist2scrna_library_size"].to_numpy())[:, None]
    varies = log_rate - log_rate.mean(axis=0)
    assert np.abs(varies).max() > 1e-2
    loadings = model.module.heads.rate.loadings.numpy()
    left_over = varies - varies @ loadings @ np.linalg.pinv(loadings)
    np.testing.assert_allclose(left_over, 0, atol=1e-4)


def test_they_learn_what_the_image_tells(train, others) -> None:
    """The one program, of which the features tell all."""
    learned = fitted(train, expression=others, training={**TRAINING, "max_epochs": 40})
    new = donor("b", 1)
    mu = learned.predict(new, copy=True, layers=["mu"], progress=False).layers["hist2scrna_mu"]
    along = np.log(mu) @ PROGRAM - np.log(mu).mean(axis=1) * PROGRAM.sum()
    assert np.corrcoef(along, new.obsm["X_f"][:, 1])[0, 1] > 0.8


def test_it_is_saved_and_predicts_in_a_fresh_process(model, tmp_path) -> None:
    new = donor("b", 1)
    new.write_h5ad(tmp_path / "b.h5ad")
    model.save(tmp_path / "model")
    code = (
        "import sys, anndata as ad, numpy as np, hist2scrna as h2s\n"
        "b = h2s.tl.predict(ad.read_h5ad(sys.argv[1] + '/b.h5ad'), sys.argv[1] + '/model', progress=False)\n"
        "np.save(sys.argv[1] + '/mean.npy', b.layers['hist2scrna_mean'])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    ours = model.predict(new, copy=True, progress=False).layers["hist2scrna_mean"]
    np.testing.assert_allclose(np.load(tmp_path / "mean.npy"), ours, rtol=1e-5)


def test_without_expression_there_are_none(train) -> None:
    """As before there were any: the same weights by name, and nothing else."""
    plain = fitted(train)
    assert plain.options["n_programs"] == 0
    names = {name for name in plain.module.state_dict() if name.startswith("heads.rate")}
    assert names == {"heads.rate.weight", "heads.rate.bias"}


def test_ten_programs_unless_asked_otherwise(train, others) -> None:
    assert fitted(train, expression=others).options["n_programs"] == 10


def test_a_warm_start_keeps_its_own_programs(train, others, model) -> None:
    warm = fitted(train, n_programs=PROGRAMS, init_from=model, training={**TRAINING, "max_epochs": 1, "lr": 1e-12})
    own = fitted(train, n_programs=PROGRAMS)
    np.testing.assert_array_equal(warm.module.heads.rate.loadings, own.module.heads.rate.loadings)
    np.testing.assert_allclose(warm.module.project[0].weight.detach(), model.module.project[0].weight.detach())


def test_training_on_other_counts_does_not_go_on(train, others, tmp_path) -> None:
    kept = {**TRAINING, "max_epochs": 1, "checkpoint_dir": tmp_path}
    fitted(train, expression=others, training=kept)
    with pytest.raises(ValueError, match="expression.o2"):
        fitted(train, expression=others[others.obs["donor"] != "o2"].copy(), training=kept)


def test_patches_learn_so_too(make_section) -> None:
    others = make_section("s1", seed=3)
    del others.uns, others.obsm
    model = h2s.tl.fit(
        make_section("s0"),
        model="hist2scrna",
        preset="tiny",
        expression=others,
        n_programs=2,
        training={"max_epochs": 1},
        progress=False,
    )
    assert model.module.heads.rate.loadings.shape == (len(model.genes), 3)
    assert model.module.heads.rate.loadings[:, 1:].abs().max() > 0


def test_what_has_no_programs_is_refused(train, others) -> None:
    with pytest.raises(ValueError, match="likelihood='mse' has none. Pass likelihood='zinb', 'nb' or 'poisson'"):
        fitted(train, expression=others, likelihood="mse")
    with pytest.raises(ValueError, match="`expression` is learned from as gene programs, and n_programs=0 leaves none"):
        fitted(train, expression=others, n_programs=0)
    able = "Models that have `expression`: hist2scrna, hist2scrna-lightweight, kernel"
    with pytest.raises(ValueError, match=f"'ridge' has no `expression`. {able}"):
        h2s.tl.fit(train, model="ridge", features_key="X_f", expression=others, progress=False)


def test_the_shell_learns_from_counts_too(train, others, model, tmp_path) -> None:
    train.write_h5ad(tmp_path / "train.h5ad")
    others.write_h5ad(tmp_path / "others.h5ad")
    words = ["fit", str(tmp_path / "train.h5ad"), "--out", str(tmp_path / "model"), "--group-key", "donor"]
    words += ["--model", OPTIONS["model"], "--preset", "tiny", "--features-key", "X_f", "--max-epochs", "3"]
    words += ["--validation", "0", "--lr", "1e-3", "--option", f"n_programs={PROGRAMS}"]
    words += ["--expression", str(tmp_path / "others.h5ad")]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    again = h2s.TrainedModel.load(tmp_path / "model")
    np.testing.assert_allclose(again.module.heads.rate.loadings, model.module.heads.rate.loadings, rtol=1e-5)
