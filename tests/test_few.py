"""The model for few sections: its network, its regressions, its counts, and what it says of an unseen section."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from builders import spots_of
from PIL import Image
from scipy import optimize, sparse, stats
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict

import hist2scrna as h2s
from hist2scrna.fitting.closed_form.counts import (
    DISPERSION_PRIOR,
    DROPOUT_PRIOR,
    DROPOUT_START,
    INTERCEPT_PRIOR,
    WEIGHT_PRIOR,
    fit_decoder,
)
from hist2scrna.fitting.closed_form.fit_kernel import SHRINKAGE, whiten
from hist2scrna.fitting.closed_form.kernel import PENALTIES, regress
from hist2scrna.fitting.inference import encode_spots
from hist2scrna.models.heads import LOG_DISPERSION_BOUNDS
from hist2scrna.models.kernel import FewFeatures, FewSections
from hist2scrna.tl._preset import suited_preset

pytestmark = pytest.mark.numeric

N_SECTIONS, SPOTS, GENES = 5, 100, 25


# -- the regression ----------------------------------------------------------------------------------------------------
@pytest.fixture
def regression() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4))
    y = np.stack([np.sin(x[:, 0]) + 0.3 * rng.normal(size=90), x[:, 1] * x[:, 2], rng.normal(size=90)], axis=1) + 5
    return x, y, np.repeat(np.arange(3), 30)


@pytest.mark.numeric
def test_with_every_spot_a_landmark_it_is_kernel_ridge(regression) -> None:
    x, y, group = regression
    kernel = np.exp(-0.2 * np.square(x[:, None] - x).sum(axis=2))
    found = regress(kernel, kernel, kernel, y, group)
    assert set(found.penalty) <= set(PENALTIES)
    for i, penalty in enumerate(found.penalty):
        center = y[:, i].mean()
        theirs = KernelRidge(alpha=penalty, kernel="precomputed").fit(kernel, y[:, i] - center)
        np.testing.assert_allclose(kernel @ found.dual[:, i], theirs.predict(kernel), atol=1e-5)
        assert found.offset[i] == pytest.approx(center)
        errors = []
        for candidate in PENALTIES:
            left_out = np.empty(len(y))
            for rest, left in GroupKFold(3).split(x, groups=group):
                own = KernelRidge(alpha=candidate, kernel="rbf", gamma=0.2)
                own.fit(x[rest], y[rest, i] - y[rest, i].mean())
                left_out[left] = own.predict(x[left]) + y[rest, i].mean()
            errors.append(np.square(left_out - y[:, i]).mean())
            if candidate == penalty:
                np.testing.assert_allclose(found.left_out[:, i], left_out, atol=1e-5)
        np.testing.assert_allclose(found.errors[:, i], errors, rtol=1e-5)
        # Two penalties may be equally good up to rounding.
        assert errors[list(PENALTIES).index(penalty)] <= min(errors) * (1 + 1e-5)
    # Noise is shrunk further than any signal.
    assert found.penalty[2] > 10 * found.penalty[:2].max()


@pytest.mark.numeric
def test_with_fewer_landmarks_it_is_nystroem(regression) -> None:
    x, y, group = regression
    theirs = Nystroem(gamma=0.2, n_components=20, random_state=0).fit(x)
    kernel = np.exp(-0.2 * np.square(x[:, None] - theirs.components_).sum(axis=2))
    found = regress(kernel, kernel, kernel[theirs.component_indices_], y, group)
    for i, penalty in enumerate(found.penalty):
        solved = Ridge(penalty, fit_intercept=False)
        left_out = cross_val_predict(
            solved, theirs.transform(x), y[:, i] - y[:, i].mean(), groups=group, cv=GroupKFold(3)
        )
        solved.fit(theirs.transform(x), y[:, i] - y[:, i].mean())
        np.testing.assert_allclose(kernel @ found.dual[:, i], solved.predict(theirs.transform(x)), atol=1e-4)
        assert np.corrcoef(left_out, found.left_out[:, i])[0, 1] > 0.99 or i == 2


# -- the counts --------------------------------------------------------------------------------------------------------
def negative_binomial(rng, mu, theta) -> np.ndarray:
    return rng.poisson(rng.gamma(theta, mu / theta)).astype(np.float32)


@pytest.mark.numeric
def test_the_decoder_finds_loadings_and_dispersion() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([0.4 * rng.normal(size=(3000, 1)), rng.normal(size=(3000, 2))], axis=1)
    loadings = np.array([[1.0, 0.8, 1.1, 1.0], [0.5, -0.3, 0.0, 0.1], [0.0, 0.2, -0.4, 0.0]])
    base, theta = np.log([2.0, 8.0, 30.0, 5.0]), np.array([1.0, 4.0, 0.5, 2.0])
    counts = negative_binomial(rng, np.exp(base + scores @ loadings), theta)
    found = fit_decoder(sparse.csr_array(counts), scores, scores, "nb")
    np.testing.assert_allclose(found.loadings, loadings, atol=0.08)
    np.testing.assert_allclose(found.intercept, base, atol=0.08)
    np.testing.assert_allclose(found.log_dispersion, np.log(theta), atol=0.15)


@pytest.mark.numeric
def test_the_loadings_of_a_gene_are_the_optimum_that_scipy_finds() -> None:
    rng = np.random.default_rng(6)
    scores = rng.normal(size=(150, 3)) * [0.5, 1.0, 1.0]
    counts = negative_binomial(rng, np.exp(np.log(3) + scores @ [1.2, 0.5, -0.4]), 1.5)
    found = fit_decoder(sparse.csr_array(counts[:, None]), scores, scores, "nb")
    start = np.log((counts.sum() + 0.5) / (np.exp(scores[:, 0]).sum() + 0.5))

    def loss(x) -> float:
        mu, theta = np.exp(scores @ x[:3] + x[3]), np.exp(x[4])
        priors = WEIGHT_PRIOR * ((x[0] - 1) ** 2 + x[1] ** 2 + x[2] ** 2) + INTERCEPT_PRIOR * (x[3] - start) ** 2
        likelihood = stats.nbinom.logpmf(counts, theta, theta / (theta + mu)).sum()
        return priors + DISPERSION_PRIOR * x[4] ** 2 - likelihood

    best = optimize.minimize(loss, [1, 0, 0, start, 0], tol=1e-10).x
    np.testing.assert_allclose(found.loadings[:, 0], best[:3], atol=1e-4)


@pytest.mark.numeric
def test_what_the_prediction_misses_goes_into_dispersion_and_mean() -> None:
    rng = np.random.default_rng(1)
    known, missed = rng.normal(size=(4000, 1)), 0.7 * rng.normal(size=(4000, 1))
    zero = np.zeros_like(known)
    counts = negative_binomial(rng, np.exp(2 + known + missed), np.array([5.0]))
    true, predicted = np.concatenate([zero, known + missed], axis=1), np.concatenate([zero, known], axis=1)
    found = fit_decoder(sparse.csr_array(counts), true, predicted, "nb")
    # E exp(missed) = exp(var / 2).
    assert found.intercept[0] == pytest.approx(2 + 0.49 / 2, abs=0.06)
    theta = np.exp(found.log_dispersion[0])
    assert theta < 2
    p = theta / (theta + np.exp(found.intercept[0] + known[:, 0]))
    at = stats.nbinom.cdf(counts[:, 0] - 1, theta, p) + rng.random(4000) * stats.nbinom.pmf(counts[:, 0], theta, p)
    for level in (0.5, 0.8, 0.95):
        assert (np.abs(at - 0.5) < level / 2).mean() == pytest.approx(level, abs=0.04)


@pytest.mark.numeric
def test_the_dispersion_of_a_gene_is_the_optimum_that_scipy_finds() -> None:
    rng = np.random.default_rng(2)
    score = 0.5 * rng.normal(size=(200, 1))
    counts = negative_binomial(rng, np.exp(1 + score[:, 0]), 2.0)[:, None]
    found = fit_decoder(sparse.csr_array(counts), score, score, "nb")
    mu = np.exp(score[:, 0] * found.loadings[0, 0] + found.intercept[0])
    assert mu.sum() == pytest.approx(counts.sum(), rel=2e-3)

    def loss(log_theta) -> float:
        theta = np.exp(log_theta)
        return DISPERSION_PRIOR * log_theta**2 - stats.nbinom.logpmf(counts[:, 0], theta, theta / (theta + mu)).sum()

    best = optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}).x
    assert found.log_dispersion[0] == pytest.approx(best, abs=1e-4)


@pytest.mark.numeric
@pytest.mark.parametrize("one_spot_has_it_all", [False, True])
def test_dispersion_and_dropout_of_a_gene_are_the_optimum_that_scipy_finds(one_spot_has_it_all) -> None:
    """Of a gene that one spot has, log theta ends at its bound."""
    rng = np.random.default_rng(7)
    score = 0.5 * rng.normal(size=(300, 1))
    counts = negative_binomial(rng, np.exp(1.5 + score[:, 0]), 4.0) * (rng.random(300) > 0.25)
    if one_spot_has_it_all:
        counts = np.where(np.arange(300) == 5, 1e5, 0.0)
    found = fit_decoder(sparse.csr_array(counts[:, None]), score, score, "zinb")
    log_mu = score[:, 0] * found.loadings[0, 0]
    total = np.log((counts.sum() + 0.5) / (np.exp(log_mu).sum() + 0.5))

    def loss(x) -> float:
        theta, present = np.exp(x[0]), 1 / (1 + np.exp(x[1]))
        mu = np.exp(log_mu + total) / present
        likelihood = present * stats.nbinom.pmf(counts, theta, theta / (theta + mu)) + (1 - present) * (counts == 0)
        priors = DISPERSION_PRIOR * x[0] ** 2 + DROPOUT_PRIOR * (x[1] - DROPOUT_START) ** 2
        return priors - np.log(likelihood).sum()

    best = optimize.minimize(loss, [-1, DROPOUT_START], bounds=[LOG_DISPERSION_BOUNDS, (-15, 15)], tol=1e-12).x
    assert (best[0] < LOG_DISPERSION_BOUNDS[0] + 1e-6) == one_spot_has_it_all
    np.testing.assert_allclose([found.log_dispersion[0], found.dropout_logits[0]], best, atol=2e-3)
    assert found.intercept[0] == pytest.approx(total + np.log1p(np.exp(best[1])), abs=2e-3)


@pytest.mark.numeric
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_each_gene_keeps_its_total_whatever_was_predicted(likelihood) -> None:
    """A gene of one batch, predicted for the other alone: the likeliest intercept would be 40 times too high."""
    rng = np.random.default_rng(5)
    batch = np.repeat([[3.0], [-3.0]], 100, axis=0)
    counts = negative_binomial(rng, np.exp(2 + batch), 5.0)
    counts[::7] = 0
    found = fit_decoder(sparse.csr_array(counts), batch, -batch, likelihood)
    mu = np.exp(found.intercept[0] - batch[:, 0] * found.loadings[0, 0])
    present = 1 / (1 + np.exp(found.dropout_logits[0])) if likelihood == "zinb" else 1.0
    assert (present * mu).sum() == pytest.approx(counts.sum(), rel=1e-3)


@pytest.mark.numeric
def test_dropout_is_found_where_it_is_and_nowhere_else() -> None:
    rng = np.random.default_rng(3)
    scores = 0.3 * rng.normal(size=(4000, 1))
    counts = negative_binomial(rng, np.exp(3 + scores) * np.ones(2), 4.0)
    counts[rng.random(4000) < 0.3, 0] = 0
    found = fit_decoder(sparse.csr_array(counts), scores, scores, "zinb")
    dropout = 1 / (1 + np.exp(-found.dropout_logits))
    assert dropout[0] == pytest.approx(0.3, abs=0.03)
    assert dropout[1] < 0.02


@pytest.mark.numeric
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_a_gene_without_counts_is_predicted_near_zero(likelihood) -> None:
    scores = np.random.default_rng(4).normal(size=(50, 2))
    found = fit_decoder(sparse.csr_array(np.zeros((50, 1), dtype=np.float32)), scores, scores, likelihood)
    assert np.isfinite(found.intercept).all()
    assert found.intercept[0] < np.log(0.5)


# -- the whole ---------------------------------------------------------------------------------------------------------
def draw_sections(seed: int = 0, n_sections: int = N_SECTIONS) -> ad.AnnData:
    """Sections whose counts follow two programs and the depth, all curved functions of features."""
    rng = np.random.default_rng(seed)
    n = n_sections * SPOTS
    features = rng.normal(size=(n, 6)).astype(np.float32)
    scores = np.stack([0.5 * features[:, 0], np.tanh(2 * features[:, 1]), np.cos(2 * features[:, 2])], axis=1)
    scores[:, 0] += 0.15 * rng.normal(size=n)
    world = np.random.default_rng(99)
    loadings = np.concatenate([np.ones((1, GENES)), 0.6 * world.normal(size=(2, GENES))])
    mu = np.exp(world.normal(1, 1, GENES) + scores @ loadings)
    xy = np.stack([np.arange(n) % 12, np.arange(n) // 12 % 10], axis=1) * 100.0
    adata = ad.AnnData(
        X=sparse.csr_matrix(negative_binomial(rng, mu, 5.0)),
        obs=pd.DataFrame(
            {
                "library_id": pd.Categorical(np.repeat([f"s{i}" for i in range(n_sections)], SPOTS)),
                "cell_type": pd.Categorical(np.where(features[:, 1] > 0, "tumor", "stroma")),
            },
            index=[f"spot{i}" for i in range(n)],
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]),
        obsm={"spatial": xy, "X_f": features},
    )
    adata.obs.loc[adata.obs_names[::10], "cell_type"] = np.nan
    return adata


OPTIONS = {"model": "hist2scrna-lightweight", "features_key": "X_f", "library_key": "library_id", "progress": False}


@pytest.fixture(scope="module")
def fitted() -> h2s.TrainedModel:
    return h2s.tl.fit(draw_sections(), labels_key="cell_type", **OPTIONS)


@pytest.fixture(scope="module")
def unseen() -> ad.AnnData:
    return draw_sections(seed=1, n_sections=4)


@pytest.mark.numeric
def test_an_unseen_section_is_predicted_with_honest_intervals(fitted, unseen) -> None:
    evaluation = h2s.tl.evaluate(unseen, fitted, labels_key="cell_type", library_key="library_id", progress=False)
    scores = evaluation.results
    pearson = scores["scores"]["log_normalized"]["model"]["by_gene"]
    null = scores["scores"]["log_normalized"]["depth_baseline"]["by_gene"]
    assert pearson["pearson_mean"] > null["pearson_mean"] + 0.1
    counts = scores["counts"]
    assert counts["model"]["log_likelihood"] > counts["mean_baseline"]["log_likelihood"] + 0.1
    for level, covered in counts["model"]["coverage"].items():
        assert covered == pytest.approx(float(level) / 100, abs=0.03)
    assert scores["cell_types"]["accuracy"] > 0.9


def test_what_is_written(fitted, unseen) -> None:
    slide = unseen.copy()
    out = h2s.tl.predict(slide, fitted, progress=False)
    assert out is slide
    assert {"hist2scrna_mean", "hist2scrna_dropout", "hist2scrna_log_normalized"} <= set(out.layers)
    assert out.obsm["X_hist2scrna"].shape == (len(out), fitted.module.n_programs)
    total = np.log(np.asarray(unseen.X.sum(axis=1)).ravel())
    assert np.corrcoef(np.log(out.obs["hist2scrna_library_size"]), total)[0, 1] > 0.8
    known = unseen.obs["cell_type"].notna().to_numpy()
    assert (out.obs["hist2scrna_cell_type"][known] == unseen.obs["cell_type"][known]).mean() > 0.9
    np.testing.assert_allclose(out.obsm["hist2scrna_cell_type_probability"].sum(axis=1), 1, rtol=1e-5)
    # Of spots like those of the training about one in a hundred is farther than 99 % of these were.
    assert out.obs["hist2scrna_unlike_training"].mean() < 0.05


def test_saved_and_loaded_it_predicts_the_same(fitted, unseen, tmp_path) -> None:
    fitted.save(tmp_path / "model")
    again = h2s.TrainedModel.load(tmp_path / "model")
    assert isinstance(again.module, FewFeatures)
    for layer in ("mean", "dropout", "log_normalized", "uncertainty"):
        one, two = (m.predict(unseen, layers=[layer], copy=True, progress=False) for m in (fitted, again))
        np.testing.assert_array_equal(one.layers[f"hist2scrna_{layer}"], two.layers[f"hist2scrna_{layer}"])


@pytest.mark.numeric
def test_a_spot_depends_on_itself_alone_and_on_no_batch(fitted, unseen) -> None:
    whole = fitted.predict(unseen, copy=True, progress=False).layers["hist2scrna_mean"]
    part = fitted.predict(unseen[5:17].copy(), copy=True, batch_size=3, progress=False).layers["hist2scrna_mean"]
    np.testing.assert_allclose(part, whole[5:17], rtol=1e-4)


def test_tissue_unlike_the_training_is_said(fitted, unseen) -> None:
    strange = unseen.copy()
    strange.obsm["X_f"][:100] += 20
    with pytest.warns(UserWarning, match=r"10\d of 400 spots"):
        out = fitted.predict(strange, copy=True, progress=False)
    far = out.obs["hist2scrna_unlike_training"].to_numpy()
    assert far[:100].all()
    assert far[100:].mean() < 0.05
    assert (out.obs["hist2scrna_tissue_distance"].to_numpy() > 1).tolist() == far.tolist()


def test_an_imposed_library_size_moves_the_means_with_it(fitted, unseen) -> None:
    unseen = unseen.copy()
    unseen.obs["small"], unseen.obs["large"] = 100.0, 200.0
    small, large = (
        fitted.predict(unseen, copy=True, library_size=key, progress=False).layers["hist2scrna_mean"]
        for key in ("small", "large")
    )
    # The slope of each gene in the log library size is estimated: near 1, as drawn.
    slope = np.log2(large / small).mean(axis=0)
    assert (slope > 0).all()
    assert slope.mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("likelihood", ["nb", "poisson", "mse"])
def test_every_likelihood(likelihood, unseen) -> None:
    model = h2s.tl.fit(draw_sections(), likelihood=likelihood, **OPTIONS)
    assert model.likelihood == likelihood
    out = model.predict(unseen, copy=True, progress=False)
    assert ("hist2scrna_dropout" in out.layers) is False
    truth = np.log1p(1e4 * unseen.X.toarray() / unseen.X.sum(axis=1))
    layer = "mean" if likelihood == "mse" else "log_normalized"
    correlation = [
        np.corrcoef(a, b)[0, 1] for a, b in zip(out.layers[f"hist2scrna_{layer}"].T, np.asarray(truth).T, strict=True)
    ]
    assert np.mean(correlation) > 0.35


def test_one_section_and_few_landmarks_do(unseen) -> None:
    one = draw_sections(n_sections=1)
    model = h2s.tl.fit(one, **OPTIONS, preset="few", n_landmarks=30, n_programs=3)
    out = model.predict(unseen, copy=True, progress=False)
    assert np.isfinite(out.layers["hist2scrna_mean"]).all()
    assert int(model.module.n_used) == 30


def test_the_same_seed_gives_the_same_model(unseen) -> None:
    means = [
        h2s.tl.fit(draw_sections(), **OPTIONS, preset="few", n_landmarks=100, seed=seed)
        .predict(unseen, copy=True, progress=False)
        .layers["hist2scrna_mean"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.array_equal(means[0], means[2])


# -- donors ------------------------------------------------------------------------------------------------------------
def draw_donors(seed: int, sections_each: int, n_donors: int = 6) -> ad.AnnData:
    """Donors with some sections; each has its own depth and its own level of each gene, told by nothing."""
    adata = draw_sections(seed, n_sections=sections_each * n_donors)
    rng = np.random.default_rng(1000 + seed)
    donor = np.arange(len(adata)) // (sections_each * SPOTS)
    shift = rng.normal(0, 0.7, (n_donors, GENES))
    # What tells donors apart in the picture tells nothing of the next one.
    adata.obsm["X_f"] = np.concatenate([adata.obsm["X_f"], rng.normal(0, 2, (n_donors, 4))[donor]], axis=1)
    adata.X = sparse.csr_matrix(rng.poisson(adata.X.toarray() * np.exp(shift)[donor]).astype(np.float32))
    adata.obs["donor"] = pd.Categorical.from_codes(donor, [f"d{i}" for i in range(n_donors)])
    return adata


def test_by_donor_the_intervals_hold_for_another_donor() -> None:
    """Sections of one donor are alike: left out one by one, they say nothing of how donors differ."""
    train, other = draw_donors(0, sections_each=2), draw_donors(1, sections_each=1)
    other.obs["library_id"] = "other " + other.obs["library_id"].astype(str)
    found = {}
    for key in (None, "donor"):
        model = h2s.tl.fit(train, group_key=key, likelihood="nb", **OPTIONS)
        assert model.parameters["group_key"] == key
        found[key] = h2s.tl.evaluate(other, model, library_key="library_id", progress=False).results["counts"]["model"]
    for level, nominal in (("50", 0.5), ("80", 0.8), ("95", 0.95)):
        assert found["donor"]["coverage"][level] == pytest.approx(nominal, abs=0.05)
        assert found[None]["coverage"][level] < nominal - 0.05
    assert found["donor"]["log_likelihood"] > found[None]["log_likelihood"] + 0.05


# -- on a picture ------------------------------------------------------------------------------------------------------
def test_it_is_the_default_and_says_so(make_section, caplog) -> None:
    sections = ad.concat(
        [make_section(f"s{i}", seed=i, n_spots=24) for i in range(3)], uns_merge="unique", merge="same"
    )
    with caplog.at_level(logging.INFO, logger="hist2scrna"):
        model = h2s.tl.fit(sections, labels_key="cell_type", library_key="library_id", progress=False)
    assert "Preset 'few'" in caplog.text
    assert isinstance(model.module, FewSections)
    assert model.parameters["preset"] == "few"
    assert not {"lr", "max_epochs", "alpha", "losses"} & set(model.parameters)
    assert model.geometry.um == pytest.approx(6 * 36 * 2)
    slide = make_section("new", seed=9, n_spots=16)
    out = h2s.tl.predict(slide.copy(), model, progress=False)
    assert (out.obs["hist2scrna_cell_type"] == slide.obs["cell_type"]).mean() > 0.8
    total = np.asarray(slide.X.sum(axis=1)).ravel()
    assert np.corrcoef(out.obs["hist2scrna_library_size"], total)[0, 1] > 0.5


@pytest.mark.numeric
def test_what_differs_between_two_looks_counts_least() -> None:
    rng = np.random.default_rng(0)
    real, chance = rng.normal(size=(300, 3)), rng.normal(size=(2, 300, 2)) * [5.0, 0.5]
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    one, two = (np.concatenate([real, c], axis=1) @ turn for c in chance)
    metric = whiten(two - one)
    change = (two - one) @ metric
    values = np.concatenate([np.zeros(3), np.sort(np.square(chance[1] - chance[0]).sum(axis=0)) / 600])
    found = np.linalg.eigvalsh(change.T @ change / 600)
    np.testing.assert_allclose(found, values / (values + SHRINKAGE * values.mean()), atol=0.01)
    for given, low, high in ((np.eye(5), 0.0, 0.1), (metric, 0.25, 1.0)):
        nearest = np.linalg.norm((two @ given)[:, None] - one @ given, axis=2).argmin(axis=1)
        assert low <= (nearest == np.arange(300)).mean() <= high


def test_training_patches_are_varied_unless_told_not_to(make_section) -> None:
    section = make_section(n_spots=24)
    options = {"preset": "few", "patch_px": 256, "likelihood": "nb", "progress": False}
    plain, varied, again = (h2s.tl.fit(section, augment=augment, **options).module for augment in (False, True, None))
    torch.testing.assert_close(varied.landmarks, again.landmarks, atol=0, rtol=0)
    # The metric of two looks is the kernel's alone: how unlike tissue is, is measured without.
    x, landmarks = varied.landmarks[:5] + 1.0, varied.landmarks[: int(varied.n_used)]
    assert torch.equal(plain.metric, torch.eye(len(plain.metric)))
    torch.testing.assert_close(varied.distances(x), torch.cdist(x, landmarks).square(), rtol=1e-3, atol=1e-2)
    by_kernel = torch.cdist(x @ varied.metric, landmarks @ varied.metric).square()
    torch.testing.assert_close(varied.kernel_distances(x), by_kernel, rtol=1e-3, atol=1e-2)
    assert (by_kernel / varied.distances(x) - 1).abs().median() > 0.1
    spots = spots_of(section, library_key=None, spatial_key="spatial", patch_px=256, patch_per_spot=6.0)
    everyone = np.arange(len(spots))
    features = encode_spots(plain, spots, everyone, batch_size=8, device=torch.device("cpu"), progress=False)
    torch.testing.assert_close(plain.feature_mean, features.mean(dim=0), atol=1e-5, rtol=1e-4)
    assert (varied.feature_mean - features.mean(dim=0)).abs().max() > 1e-2


def test_what_belongs_to_training_step_by_step_is_refused_or_chooses_a_network(make_section) -> None:
    section = make_section()
    with pytest.raises(ValueError, match=r"solved at once: it has no `max_epochs`, `losses`"):
        h2s.tl.fit(section, preset="few", max_epochs=3, losses={"pearson": 1.0}, progress=False)
    with pytest.raises(ValueError, match=r"solved at once: it has no `alpha`, `devices`"):
        h2s.tl.fit(section, preset="few", alpha=0.3, devices=2, progress=False)
    with pytest.raises(ValueError, match="Did you mean 'few'"):
        h2s.tl.fit(section, preset="fev", progress=False)
    with pytest.raises(ValueError, match="preset of stnet"):
        h2s.tl.fit(section, model="stnet", preset="few", progress=False)
    network = h2s.tl.fit(
        section, max_epochs=1, progress=False, patch_px=32, token_px=8, width=32, depth=1, heads=2,
        graph_width=32, graph_heads=2, decoder=(32,),
    )  # fmt: skip
    assert not isinstance(network.module, FewFeatures)


@pytest.mark.parametrize(("channels", "expected"), [(3, "few"), (5, None)])
def test_pictures_of_further_stains_choose_a_network(make_section, channels, expected) -> None:
    section = make_section()
    array = np.random.default_rng(0).integers(0, 255, (400, 540, channels)).astype(np.uint8)
    slots = {"library_key": None, "img_key": None, "image": array}
    assert suited_preset(section, "hist2scrna", None, {"lr": None}, **slots) == expected
    assert suited_preset(section, "hist2scrna", None, {"lr": 1e-3}, **slots) is None
    assert suited_preset(section, "hist2scrna", "tiny", {"lr": 1e-3}, **slots) == "tiny"


@pytest.fixture(scope="module")
def left_out(shared_data, shared_fixtures) -> tuple[h2s.TrainedModel, ad.AnnData]:
    """C2, and the default model fitted on C3 to C6."""
    adata = h2s.datasets.her2st(shared_data / "her2st")
    panel = [g for g in (shared_fixtures / "her_hvg_785.txt").read_text().split() if g in adata.var_names]
    train, test = (adata[(adata.obs["library_id"] == "C2") == held_out].copy() for held_out in (False, True))
    return h2s.tl.fit(train, genes=panel, library_key="library_id", progress=False), test


@pytest.mark.slow
def test_on_her2st_it_beats_the_true_depth_of_the_spots(left_out) -> None:
    model, test = left_out
    evaluation = h2s.tl.evaluate(test, model, library_key="library_id", progress=False)
    headline = evaluation.headline
    assert headline["pearson"] > headline["depth_baseline"]
    counts = evaluation.results["counts"]
    assert counts["model"]["log_likelihood"] > counts["mean_baseline"]["log_likelihood"]
    for level, covered in counts["model"]["coverage"].items():
        assert covered == pytest.approx(float(level) / 100, abs=0.03)
        assert counts["model"]["width"][level] < counts["mean_baseline"]["width"][level]


@pytest.mark.slow
def test_on_her2st_it_does_not_matter_how_the_tissue_lies(left_out) -> None:
    """Serial sections lie alike: what hangs on that is lost when one is turned."""
    model, test = left_out
    entry = test.uns["spatial"]["C2"]
    with Image.open(entry["metadata"]["source_image_path"]) as picture:
        upright = np.asarray(picture.convert("RGB"))
    turned = test.copy()
    x, y = test.obsm["spatial"].T
    turned.obsm["spatial"] = np.stack([y, upright.shape[1] - x], axis=1)
    turned.uns["spatial"] = {
        "C2": {
            "images": {"turned": np.rot90(upright)},
            "scalefactors": {**entry["scalefactors"], "tissue_turned_scalef": 1.0},
        }
    }
    was, now = (
        h2s.tl.evaluate(section, model, library_key="library_id", progress=False).headline for section in (test, turned)
    )
    assert now["pearson"] == pytest.approx(was["pearson"], abs=0.01)
    assert now["pearson"] > now["depth_baseline"]
