"""A model brought to a donor of whom a few spots were measured; and what further donors' counts tell."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from builders import negative_binomial
from scipy import sparse, stats
from typer.testing import CliRunner

import hist2scrna as h2s
from hist2scrna.cli.app import app

GENES = 30
WORLD = np.random.default_rng(5)
RATES, PROGRAM = WORLD.normal(0.5, 1, GENES), 0.5 * WORLD.normal(size=GENES)
OPTIONS = {"model": "kernel", "features_key": "X_f", "likelihood": "nb", "progress": False}


def donor(
    name: str, seed: int, *, level: float = 0.0, rates: float = 0.0, n_sections: int = 3, theta: float = 5.0
) -> ad.AnnData:
    """Sections of a donor; depth and one program follow the features, the level and its gene rates nothing."""
    rng = np.random.default_rng(seed)
    n = 80 * n_sections
    features = rng.normal(size=(n, 5)).astype(np.float32)
    log_mu = RATES + level + rates * rng.normal(size=GENES) + 0.5 * features[:, :1] + features[:, 1:2] * PROGRAM
    adata = ad.AnnData(sparse.csr_matrix(negative_binomial(rng, np.exp(log_mu), theta)))
    adata.obs_names = [f"{name}_{i}" for i in range(n)]
    adata.obs["library_id"] = np.repeat([f"{name}{i}" for i in range(n_sections)], 80)
    adata.obs["donor"] = name
    adata.obsm["X_f"] = features
    adata.obsm["spatial"] = np.stack([np.arange(n) % 9, np.arange(n) // 9 % 9], axis=1) * 100.0
    return adata


@pytest.fixture(scope="module")
def fitted() -> h2s.TrainedModel:
    return h2s.tl.fit(donor("a", 0), group_key="donor", **OPTIONS)


@pytest.fixture(scope="module")
def new() -> ad.AnnData:
    return donor("b", 1, level=-1.2, rates=0.6, n_sections=1)


def scores(new: ad.AnnData, model: h2s.TrainedModel, rows: np.ndarray) -> dict[str, float]:
    evaluation = h2s.tl.evaluate(new[rows].copy(), model, progress=False)
    counts = evaluation.results["counts"]["model"]
    return {"pearson": evaluation.headline["pearson"], "likelihood": counts["log_likelihood"]}


@pytest.mark.filterwarnings("ignore:NOT HELD OUT")
def test_a_few_spots_tell_the_depth_and_the_genes_of_a_donor(fitted, new) -> None:
    given = new.copy()
    given.obs["sequenced"] = np.arange(80) < 16
    adapted = h2s.tl.adapt(fitted, given, measured="sequenced", progress=False)
    assert adapted.training["adapted_to"] == {"sections": ["b0"], "n_spots": 16}
    assert "adapted to  16 spots of b0" in repr(adapted) and "adapted to" not in repr(fitted)
    rest = np.arange(16, 80)
    before, after = (scores(new, model, rest) for model in (fitted, adapted))
    assert after["likelihood"] > before["likelihood"] + 0.05
    assert after["pearson"] >= before["pearson"] - 0.01
    predicted = adapted.predict(new[rest].copy(), copy=True, progress=False)
    measured = np.asarray(new.X[rest].sum(axis=1)).ravel()
    assert np.log(predicted.obs["hist2scrna_library_size"]).mean() == pytest.approx(np.log(measured).mean(), abs=0.15)
    # The model itself, and the counts, are as they were.
    assert fitted.module.levels.tolist() == [0.0]
    np.testing.assert_array_equal(given.X.toarray(), new.X.toarray())


@pytest.mark.parametrize("theta", [1.0, 50.0])
@pytest.mark.parametrize("n", [10, 40])
def test_intervals_hold_in_a_donor_who_varies_otherwise(fitted, theta, n) -> None:
    """The spread of the training, where 1 / theta is .2, is neither kept nor only widened."""
    new = donor("b", 3, level=-0.5, rates=0.4, n_sections=4, theta=theta)
    new.obs["sequenced"] = np.arange(new.n_obs) % (new.n_obs // n) == 0
    adapted = h2s.tl.adapt(fitted, new, measured="sequenced", progress=False)
    rest = new[~new.obs["sequenced"]].copy()
    layers = h2s.tl.predict(rest, adapted, layers=["mu", "dispersion"], progress=False).layers
    scored = h2s.metrics.count_scores(rest.X, layers["hist2scrna_mu"], layers["hist2scrna_dispersion"]).scores
    np.testing.assert_allclose(list(scored["coverage"].values()), [0.5, 0.8, 0.95], atol=0.04)


def test_what_few_counts_leave_open_is_the_variance_of_the_posterior(fitted, new) -> None:
    """Of a gene's factor, with a Gamma prior of shape and rate 3: by sums over a grid of factors."""
    adapted = h2s.tl.adapt(fitted, new, progress=False)
    totals = np.asarray(new.X.sum(axis=0)).ravel()
    own, widened = (np.exp(-model.module.log_dispersion.double().numpy()) for model in (fitted, adapted))
    grid = np.linspace(1e-4, 40, 200_001)[:, None]
    rare = np.argsort(totals)[:4]
    expected = totals[rare] + 0.5
    log_weight = stats.poisson.logpmf(totals[rare], grid * expected) + stats.gamma.logpdf(grid, 3, scale=1 / 3)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = (weight * grid).sum(axis=0)
    open_factor = (weight * (grid - mean) ** 2).sum(axis=0) / mean**2
    # All genes share one multiple of the spread of the training.
    spread = (widened[rare] - open_factor) / own[rare]
    np.testing.assert_allclose(spread, spread.mean(), rtol=1e-3)


def test_it_is_saved_and_loaded(fitted, new, tmp_path) -> None:
    adapted = h2s.tl.adapt(fitted, new, progress=False)
    again = h2s.TrainedModel.load(adapted.save(tmp_path / "model"))
    means = [m.predict(new, copy=True, progress=False).layers["hist2scrna_mean"] for m in (adapted, again)]
    np.testing.assert_array_equal(*means)


def test_the_shell_adapts_as_python_does(fitted, new, tmp_path) -> None:
    fitted.save(tmp_path / "model")
    some = new.copy()
    some.obs["sequenced"] = np.arange(80) < 16
    some.write_h5ad(tmp_path / "b.h5ad")
    command = ["adapt", "b.h5ad", "--measured", "sequenced", "--model", "model", "--out", "adapted"]
    command[1::2] = [str(tmp_path / word) if word in ("b.h5ad", "model", "adapted") else word for word in command[1::2]]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    by_hand = h2s.tl.adapt(fitted, some, measured="sequenced", progress=False)
    from_shell = h2s.TrainedModel.load(tmp_path / "adapted")
    assert from_shell.training["adapted_to"] == by_hand.training["adapted_to"]
    means = [m.predict(new, copy=True, progress=False).layers["hist2scrna_mean"] for m in (by_hand, from_shell)]
    np.testing.assert_array_equal(*means)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1 and "exists already" in again.output


def test_what_cannot_be_adapted_is_refused(fitted, new) -> None:
    few = new.copy()
    few.obs["few"] = np.arange(80) < 3
    with pytest.raises(ValueError, match="at least 5 measured spots, found 3 of 80"):
        h2s.tl.adapt(fitted, few, measured="few", progress=False)
    few.obs["few"] = "yes"
    with pytest.raises(ValueError, match="to be boolean"):
        h2s.tl.adapt(fitted, few, measured="few", progress=False)
    with pytest.raises(TypeError, match=r"`measured` to be the name of a boolean column.*adata.obs\['measured'\] = "):
        h2s.tl.adapt(fitted, few, measured=np.arange(80) < 9, progress=False)
    with pytest.raises(KeyError, match="lacks 25 of the 30 genes"):
        h2s.tl.adapt(fitted, new[:, :5].copy(), progress=False)
    ridge = h2s.tl.fit(donor("a", 0), model="ridge", features_key="X_f", progress=False)
    with pytest.raises(ValueError, match="'ridge' cannot be adapted. Models that can: kernel"):
        h2s.tl.adapt(ridge, new, progress=False)


# -- donors without images ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def others() -> ad.AnnData:
    tables = [donor(f"o{i}", 10 + i, level=-1.0, rates=0.3, n_sections=2) for i in range(4)]
    table = ad.concat(tables)
    del table.obsm
    return table


def test_counts_of_other_donors_tell_the_level_of_another(fitted, others, new) -> None:
    """Those are 1 below the donor with images on the log scale, as the new one is 1.2 below.

    The depth that is predicted is the mean of a Gamma distribution whose median is their mean level.
    """
    model = h2s.tl.fit(donor("a", 0), group_key="donor", expression=others, **OPTIONS)
    assert model.training["donors_without_images"] == ["o0", "o1", "o2", "o3"]
    assert "donors      a; counts without images of o0, o1, o2, o3" in repr(model)
    variance = float(model.module.depth_variance)
    below = stats.gamma(1 / variance, scale=variance).median()
    assert float(model.module.log_library_shift) + np.log(below) == pytest.approx(-0.8, abs=0.15)
    everyone = np.arange(80)
    assert scores(new, model, everyone)["likelihood"] > scores(new, fitted, everyone)["likelihood"] + 0.02
    # Its own donor is predicted as before.
    own = donor("a", 3, n_sections=1)
    assert scores(own, model, everyone)["likelihood"] == pytest.approx(
        scores(own, fitted, everyone)["likelihood"], abs=0.01
    )


def test_sums_of_cells_tell_no_level(fitted, others) -> None:
    """Which genes go together they do tell."""
    sums = others.copy()
    sums.obs["pseudo_spot_cells"] = 20
    model = h2s.tl.fit(donor("a", 0), group_key="donor", expression=sums, **OPTIONS)
    for level in ("log_library_shift", "depth_variance", "rate_shift"):
        np.testing.assert_array_equal(getattr(model.module, level), getattr(fitted.module, level))
    assert not np.allclose(model.module.loadings, fitted.module.loadings)
    # Spots beside them do.
    both = ad.concat([sums[sums.obs["donor"] != "o0"], others[others.obs["donor"] == "o0"]], join="outer")
    model = h2s.tl.fit(donor("a", 0), group_key="donor", expression=both, **OPTIONS)
    assert model.module.log_library_shift < fitted.module.log_library_shift - 0.2


def test_genes_are_matched_by_name(others) -> None:
    table = others[:, ::-1].copy()
    one, two = (
        h2s.tl.fit(donor("a", 0), group_key="donor", expression=counts, **OPTIONS).module for counts in (others, table)
    )
    np.testing.assert_allclose(one.rate_shift, two.rate_shift, atol=1e-5)
    with pytest.raises(ValueError, match=r"`expression` has 2 of the 30 genes"):
        h2s.tl.fit(donor("a", 0), expression=others[:, :2].copy(), **OPTIONS)
    logs = others.copy()
    logs.X = logs.X.log1p()
    with pytest.raises(ValueError, match=r"Expected expression\.X to hold counts, found values that are not whole"):
        h2s.tl.fit(donor("a", 0), expression=logs, **OPTIONS)
    with pytest.raises(TypeError, match="Expected `expression` to be AnnData, or several, found str"):
        h2s.tl.fit(donor("a", 0), expression=["counts.h5ad"], **OPTIONS)
    with pytest.raises(
        ValueError,
        match="'ridge' has no `expression`. Models that have `expression`: hist2scrna, hist2scrna-lightweight, kernel",
    ):
        h2s.tl.fit(donor("a", 0), model="ridge", features_key="X_f", expression=others, progress=False)


def test_whose_tissue_it_is_decides(fitted, new) -> None:
    own = donor("a", 3, n_sections=1)
    said = {
        name: fitted.predict(section, copy=True, layers=["mean", "uncertainty"], progress=False)
        for name, section in (("own", own), ("another", new))
    }
    assert list(said["own"].uns["hist2scrna"]["another_donor"]) == []
    assert list(said["another"].uns["hist2scrna"]["another_donor"]) == ["b0"]
    forced = fitted.predict(new, another_donor=False, copy=True, layers=["uncertainty"], progress=False)
    wide, narrow = (a.layers["hist2scrna_uncertainty"] for a in (said["another"], forced))
    assert (wide > narrow).mean() > 0.95


def test_sections_without_an_image_are_counts_alone(make_section) -> None:
    """Ten slides, five of them with an image: the others tell which genes go together."""
    sections = [make_section(f"s{i}", seed=i, n_spots=24) for i in range(3)]
    whole = ad.concat(sections, uns_merge="unique", merge="same")
    del whole.uns["spatial"]["s2"]
    options = {"model": "kernel", "encoder": "morphology", "training": {"augment": False}, "progress": False}
    model = h2s.tl.fit(whole, library_key="library_id", **options)
    assert model.training["sections"] == ["s0", "s1"]
    assert len(model.training["donors_without_images"]) == 1
    explicit = h2s.tl.fit(
        whole[whole.obs["library_id"] != "s2"].copy(),
        expression=whole[whole.obs["library_id"] == "s2"].copy(),
        library_key="library_id",
        **options,
    )
    np.testing.assert_array_equal(model.module.loadings, explicit.module.loadings)
    with pytest.raises(KeyError, match="s2"):
        h2s.tl.fit(whole, model="ridge", encoder="morphology", library_key="library_id", progress=False)


@pytest.mark.parametrize("seed", [3, None], ids=["own", "another"])
def test_what_was_predicted_is_scored_without_predicting_again(fitted, new, monkeypatch, seed) -> None:
    section = new.copy() if seed is None else donor("a", seed, n_sections=1)
    h2s.tl.predict(section, fitted, progress=False)
    widened = -np.log(
        np.exp(-fitted.module.log_dispersion.numpy()) + (0 if seed else float(fitted.module.depth_variance))
    )
    np.testing.assert_allclose(np.log(section.var["hist2scrna_dispersion"]), widened, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(h2s.TrainedModel, "predict", None)
    h2s.tl.evaluate(section, fitted, progress=False)


def test_of_own_and_another_donor_together_no_gene_has_one_dispersion(fitted, new) -> None:
    both = ad.concat([donor("a", 3, n_sections=1), new], merge="same")
    out = fitted.predict(both, layers=["mean", "dispersion"], copy=True, progress=False)
    assert "hist2scrna_dispersion" not in out.var
    own = out.obs["donor"] == "a"
    assert (out.layers["hist2scrna_dispersion"][own][0] > out.layers["hist2scrna_dispersion"][~own][0]).all()
