"""Every metric against SciPy, scikit-learn, Scanpy, Squidpy or a closed form."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse, stats
from sklearn import metrics as sk

from hist2scrna import metrics
from hist2scrna.metrics import blocks as blocks_module
from hist2scrna.metrics.calibration import MOST_MEASURED

pytestmark = pytest.mark.numeric

FORMATS = [np.asarray, sparse.csr_array, sparse.csc_array, sparse.csr_matrix]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every table fall into several blocks."""
    monkeypatch.setattr(blocks_module.blocks, "__defaults__", (150,))


@pytest.fixture
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.poisson((0.3 + rng.gamma(1, 1, 13)) * rng.gamma(3, 0.5, (60, 1))).astype(float)


@pytest.fixture
def prediction(counts) -> np.ndarray:
    rng = np.random.default_rng(1)
    return 0.3 * counts + rng.gamma(2, 0.5, counts.shape)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("ours", "theirs", "axis"),
    [
        (metrics.pearson_by_gene, stats.pearsonr, 0),
        (metrics.spearman_by_gene, stats.spearmanr, 0),
        (metrics.pearson_by_spot, stats.pearsonr, 1),
        (metrics.spearman_by_spot, stats.spearmanr, 1),
    ],
)
def test_correlations_are_those_of_scipy(counts, prediction, kind, ours, theirs, axis) -> None:
    t, p = (counts.T, prediction.T) if axis == 0 else (counts, prediction)
    expected = [theirs(a, b).statistic for a, b in zip(t, p, strict=True)]
    np.testing.assert_allclose(ours(kind(counts), prediction), expected, rtol=1e-12)
    np.testing.assert_allclose(ours(kind(counts), kind(prediction)), expected, rtol=1e-12)


@pytest.mark.parametrize("correlate", [metrics.pearson_by_gene, metrics.spearman_by_gene])
def test_constant_genes(counts, prediction, correlate) -> None:
    counts[:, 2] = 3
    prediction[:, 4] = 0.7
    prediction[:, 2] = prediction[:, 5] = 1e6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r = correlate(counts, prediction)
    assert np.isnan(r[2])
    assert r[4] == r[5] == 0
    assert np.isfinite(np.delete(r, 2)).all()


def test_float32_noise_about_a_constant_is_constant(counts) -> None:
    rng = np.random.default_rng(2)
    nearly = np.float32(7.3) * (1 + 1e-7 * rng.standard_normal(counts.shape))
    np.testing.assert_array_equal(metrics.pearson_by_gene(counts, nearly.astype(np.float32)), 0)
    np.testing.assert_array_equal(metrics.spearman_by_gene(counts, nearly.astype(np.float32)), 0)


def test_offsets_do_not_cost_digits() -> None:
    rng = np.random.default_rng(3)
    t, p = rng.standard_normal((2, 50, 3))
    np.testing.assert_allclose(metrics.pearson_by_gene(t + 1e6, p), metrics.pearson_by_gene(t, p), rtol=1e-8)


@given(
    arrays(np.int64, (7, 3), elements=st.integers(0, 4)),
    arrays(np.float64, (7, 3), elements=st.integers(-3, 3).map(float)),
)
def test_spearman_with_any_ties(truth, prediction) -> None:
    found = metrics.spearman_by_gene(truth, prediction)
    for t, p, r in zip(truth.T, prediction.T, found, strict=True):
        if np.ptp(t) == 0:
            assert np.isnan(r)
        elif np.ptp(p) == 0:
            assert r == 0
        else:
            assert r == pytest.approx(stats.spearmanr(t, p).statistic, abs=1e-12)


@given(arrays(np.float64, (6, 2), elements=st.floats(-1e3, 1e3)), st.floats(0.1, 10), st.floats(-5, 5))
def test_pearson_does_not_see_scale_and_offset(table, factor, offset) -> None:
    other = np.arange(12.0).reshape(6, 2) ** 1.5
    once = metrics.pearson_by_gene(other, table)
    again = metrics.pearson_by_gene(other, factor * table + offset)
    # What is constant up to rounding before may not be after, and the other way round.
    clear = np.ptp(table, axis=0) > 1e-3 * np.abs(table).max(initial=1.0)
    np.testing.assert_allclose(again[clear], once[clear], atol=1e-6)


def test_depth_partial_is_the_correlation_of_residuals(counts, prediction) -> None:
    library = counts.sum(axis=1)
    design = np.column_stack([np.ones(len(library)), np.log(library)])
    left = [y - design @ np.linalg.lstsq(design, y, rcond=None)[0] for y in (counts, prediction)]
    expected = [stats.pearsonr(a, b).statistic for a, b in zip(left[0].T, left[1].T, strict=True)]
    np.testing.assert_allclose(metrics.depth_partial_pearson(counts, prediction, library), expected, rtol=1e-9)


def test_depth_alone_has_no_depth_partial(counts) -> None:
    library = counts.sum(axis=1)
    depth = np.outer(np.log(library), np.linspace(-1, 2.1, counts.shape[1])) + 3
    np.testing.assert_array_equal(metrics.depth_partial_pearson(counts, depth, library), 0)
    assert (metrics.pearson_by_gene(counts, depth) != 0).all()
    assert np.isnan(metrics.depth_partial_pearson(depth, counts, library)).all()
    even = np.full(len(library), 9.0)
    np.testing.assert_allclose(
        metrics.depth_partial_pearson(counts, depth, even), metrics.pearson_by_gene(counts, depth), rtol=1e-12
    )


def test_depth_must_be_positive(counts, prediction) -> None:
    with pytest.raises(ValueError, match="positive total counts"):
        metrics.depth_partial_pearson(counts, prediction, np.zeros(len(counts)))


@pytest.mark.parametrize("kind", FORMATS)
def test_overall(counts, prediction, kind) -> None:
    t, p = counts.ravel(), prediction.ravel()
    found = metrics.overall(kind(counts), prediction)
    expected = {
        "mse": sk.mean_squared_error(t, p),
        "rmse": sk.root_mean_squared_error(t, p),
        "mae": sk.mean_absolute_error(t, p),
        "r2": sk.r2_score(t, p),
        "pearson": stats.pearsonr(t, p).statistic,
        "spearman": stats.spearmanr(t, p).statistic,
    }
    assert found == pytest.approx(expected, rel=1e-12)


def test_overall_of_large_tables_ranks_spots_at_random(counts, prediction) -> None:
    found = metrics.overall(counts, prediction, most_ranked=counts.size // 2)
    whole = metrics.overall(counts, prediction)
    assert found["spearman"] == pytest.approx(whole["spearman"], abs=0.1)
    assert found["spearman"] != whole["spearman"]
    assert {k: v for k, v in found.items() if k != "spearman"} == {k: v for k, v in whole.items() if k != "spearman"}


def test_overall_of_constants(counts) -> None:
    flat = np.full(counts.shape, 2.0)
    found = metrics.overall(counts, flat)
    assert found["pearson"] == found["spearman"] == 0
    assert found["r2"] == pytest.approx(sk.r2_score(counts.ravel(), flat.ravel()))
    assert all(np.isnan(metrics.overall(flat, counts)[k]) for k in ("r2", "pearson", "spearman"))


def test_errors_by_gene(counts, prediction) -> None:
    table = metrics.errors_by_gene(sparse.csr_array(counts), prediction)
    np.testing.assert_allclose(table["mse"], sk.mean_squared_error(counts, prediction, multioutput="raw_values"))
    np.testing.assert_allclose(table["mae"], sk.mean_absolute_error(counts, prediction, multioutput="raw_values"))
    np.testing.assert_allclose(table["truth_mean"], counts.mean(axis=0))
    np.testing.assert_allclose(table["truth_sd"], counts.std(axis=0))
    np.testing.assert_allclose(table["prediction_mean"], prediction.mean(axis=0))
    np.testing.assert_allclose(table["spread_ratio"], prediction.std(axis=0) / counts.std(axis=0))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_log_normalize_is_that_of_scanpy(counts, kind) -> None:
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(sparse.csr_matrix(counts))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    found = metrics.log_normalize(kind(counts))
    assert sparse.issparse(found) == sparse.issparse(kind(counts))
    assert not sparse.issparse(found) or found.format == kind(counts).format
    np.testing.assert_allclose(found.toarray() if sparse.issparse(found) else found, adata.X.toarray(), rtol=1e-5)


def test_log_normalize_leaves_empty_spots_empty() -> None:
    np.testing.assert_array_equal(metrics.log_normalize(np.array([[0, 0], [1, 3]]))[0], 0)
    table = sparse.csr_array(np.array([[0.0, 0], [1, 3]]))
    np.testing.assert_array_equal(metrics.log_normalize(table).toarray()[0], 0)
    np.testing.assert_array_equal(table.toarray(), [[0, 0], [1, 3]])


def test_pearson_residuals_are_those_of_scanpy(counts) -> None:
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(counts.copy())
    sc.experimental.pp.normalize_pearson_residuals(adata)
    np.testing.assert_allclose(metrics.pearson_residuals(counts), adata.X, rtol=1e-6)
    np.testing.assert_allclose(metrics.pearson_residuals(sparse.csr_array(counts)), adata.X, rtol=1e-6)


def test_depth_times_rate_has_no_residual() -> None:
    means = np.outer(np.array([5, 50, 500.0]), [0.1, 0.2, 0.7]).astype(np.float32)
    np.testing.assert_array_equal(metrics.pearson_residuals(means), 0)


# -- ceiling ----------------------------------------------------------------------------------------------------------
def test_thinning_finds_the_reliability_of_poisson_counts() -> None:
    rng = np.random.default_rng(4)
    means = rng.gamma(np.array([1.0, 4.0, 30.0]), np.array([0.5, 1.0, 0.2]), (30_000, 3))
    counts = rng.poisson(means)
    known = means.var(axis=0) / (means.var(axis=0) + means.mean(axis=0))
    np.testing.assert_allclose(metrics.thinning_reliability(counts, scale="counts"), known, atol=0.02)
    # What the ceiling is for: the score of a prediction that knows the means.
    perfect = metrics.pearson_by_gene(counts, means)
    np.testing.assert_allclose(metrics.noise_ceiling(counts, scale="counts"), perfect, atol=0.02)


@pytest.mark.parametrize("scale", ["log_normalized", "residual"])
def test_perfect_means_reach_the_ceiling_on_other_scales(scale) -> None:
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.full(40, 3.0), size=4000)
    means = shares * 1500
    counts = rng.poisson(means)
    transform = {"log_normalized": metrics.log_normalize, "residual": metrics.pearson_residuals}[scale]
    perfect = metrics.pearson_by_gene(transform(counts), transform(means))
    ceiling = metrics.noise_ceiling(sparse.csr_array(counts), scale=scale)
    np.testing.assert_allclose(ceiling, perfect, atol=0.03)
    assert ceiling.mean() == pytest.approx(perfect.mean(), abs=0.01)


def test_perfect_means_reach_the_depth_partial_noise_ceiling() -> None:
    rng = np.random.default_rng(12)
    shares = rng.dirichlet(np.full(40, 3.0), size=4000)
    depth = rng.gamma(3, 0.33, (4000, 1))
    means = shares * 1500 * depth
    counts = rng.poisson(means)
    library = counts.sum(axis=1)
    perfect = metrics.depth_partial_pearson(metrics.log_normalize(counts), metrics.log_normalize(means), library)
    ceiling = metrics.noise_ceiling(sparse.csr_array(counts), library=library)
    assert ceiling.mean() == pytest.approx(perfect.mean(), abs=0.02)
    # On counts the formula is exact, and regressing out the depth lowers what can be reached.
    perfect = metrics.depth_partial_pearson(counts, means, library)
    ceiling = metrics.noise_ceiling(counts, scale="counts", library=library)
    assert (ceiling < metrics.noise_ceiling(counts, scale="counts")).all()
    np.testing.assert_allclose(ceiling, perfect, atol=0.01)
    assert ceiling.mean() == pytest.approx(perfect.mean(), abs=0.001)
    with pytest.raises(ValueError, match="residuals hold no depth"):
        metrics.noise_ceiling(counts, scale="residual", library=library)


def test_zinb_means_reach_the_known_ceiling() -> None:
    counts, mu, theta, dropout = zinb_sample(5)
    mean = (1 - dropout) * mu
    noise = mean * (1 + mu * (dropout + 1 / theta))
    known = np.sqrt(mean.var(axis=0) / (mean.var(axis=0) + noise.mean(axis=0)))
    np.testing.assert_allclose(metrics.pearson_by_gene(counts, mean), known, atol=4 / np.sqrt(SHAPE[0]))
    # Overdispersion and dropout count as signal in a ceiling that is found from counts.
    assert (metrics.noise_ceiling(counts, scale="counts") > known - 0.05).all()


def test_ceiling_of_noise_and_of_nothing() -> None:
    rng = np.random.default_rng(6)
    counts = np.column_stack([rng.poisson(2, 20_000), np.zeros(20_000, int), np.full(20_000, 4)])
    ceiling = metrics.noise_ceiling(counts, scale="counts")
    assert ceiling[0] < 0.2
    assert np.isnan(ceiling[1:]).all()


def test_ceiling_is_reproducible_and_leaves_the_counts_alone(counts) -> None:
    table = sparse.csr_array(counts)
    once, again = metrics.noise_ceiling(table, seed=3), metrics.noise_ceiling(table, seed=3)
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, metrics.noise_ceiling(table, seed=4))
    np.testing.assert_array_equal(table.toarray(), counts)


@pytest.mark.parametrize("wrong", [np.array([[0.5, 1.0]]), np.array([[-1.0, 1.0]])])
def test_thinning_refuses_what_is_no_count(wrong) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        metrics.thinning_reliability(wrong)


def test_thinning_refuses_unknown_scale_and_no_draw(counts) -> None:
    with pytest.raises(ValueError, match="found 'log'"):
        metrics.noise_ceiling(counts, scale="log")
    with pytest.raises(ValueError, match="at least 1, found 0"):
        metrics.noise_ceiling(counts, n_repeats=0)


def test_ceiling_of_her2st_is_the_square_root(shared_data, shared_fixtures) -> None:
    import pandas as pd

    table = pd.read_csv(shared_data / "her2st" / "C2.tsv.gz", sep="\t", index_col=0)
    panel = (shared_fixtures / "her_hvg_785.txt").read_text().split()
    spots = pd.read_csv(shared_data / "her2st" / "C2_selection.tsv", sep="\t")
    table = table[table.index.isin([f"{x}x{y}" for x, y in zip(spots.x, spots.y, strict=True)])]
    counts = table.loc[table.sum(axis=1) >= 200, panel].to_numpy()
    assert np.nanmedian(metrics.noise_ceiling(counts)) == pytest.approx(0.51, abs=0.015)
    assert np.nanmedian(metrics.thinning_reliability(counts)) == pytest.approx(0.26, abs=0.015)


# -- zeros ------------------------------------------------------------------------------------------------------------
def test_zero_scores_are_those_of_scikit_learn(counts, prediction) -> None:
    rng = np.random.default_rng(7)
    p_zero = np.round(np.clip(np.exp(-prediction) + 0.2 * rng.standard_normal(counts.shape), 0, 1), 2)
    found = metrics.zero_scores(sparse.csr_matrix(counts), p_zero, prediction)
    present, called = counts.ravel() > 0, p_zero.ravel() < 0.5
    expected = {
        "observed_zero_rate": (counts == 0).mean(),
        "predicted_zero_rate": p_zero.mean(),
        "accuracy": sk.accuracy_score(present, called),
        "sensitivity": sk.recall_score(present, called),
        "specificity": sk.recall_score(~present, ~called),
        "f1": sk.f1_score(present, called),
        "mae_nonzero": np.abs(counts - prediction)[counts > 0].mean(),
        "auroc": sk.roc_auc_score(present, 1 - p_zero.ravel()),
    }
    assert found == pytest.approx(expected, rel=1e-10)


def test_auroc_needs_both_kinds() -> None:
    assert metrics.auroc([True, False, True], [0.9, 0.1, 0.4]) == 1
    assert metrics.auroc([True, False], [0.3, 0.3]) == 0.5
    assert np.isnan(metrics.auroc([True, True], [0.1, 0.2]))


# -- cell types -------------------------------------------------------------------------------------------------------
def test_cell_type_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(8)
    names = np.array(["B", "T", "stroma", "tumor"])
    truth = rng.choice(names, 200, p=[0.1, 0.1, 0.2, 0.6])
    guess = np.where(rng.random(200) < 0.6, truth, rng.choice(names[1:], 200))
    truth[:3] = "never seen"
    found = metrics.cell_type_scores(truth, guess)
    classes = sorted(set(truth))
    assert found["classes"] == classes
    assert found["accuracy"] == sk.accuracy_score(truth, guess)
    assert found["f1_macro"] == pytest.approx(sk.f1_score(truth, guess, average="macro", zero_division=0))
    assert found["f1_weighted"] == pytest.approx(sk.f1_score(truth, guess, average="weighted", zero_division=0))
    assert found["confusion"] == sk.confusion_matrix(truth, guess, labels=classes).tolist()
    report = sk.classification_report(truth, guess, output_dict=True, zero_division=0)
    for name in classes:
        row = {"f1-score" if key == "f1" else key: value for key, value in found["report"][name].items()}
        assert row == pytest.approx(report[name])
    assert found["majority_accuracy"] == pytest.approx(max(np.mean(truth == c) for c in classes))
    assert found["expected_calibration_error"] is None


def test_calibration_error_by_hand() -> None:
    right, confidence = [True, True, False, False], [0.95, 0.85, 0.92, 0.15]
    # Bins (.9, 1], (.8, .9] and (.1, .2]: gaps |1 - 1.87|, |1 - .85| and |0 - .15|, over four spots.
    assert metrics.expected_calibration_error(right, confidence) == pytest.approx((0.87 + 0.15 + 0.15) / 4)
    assert metrics.expected_calibration_error([True, False], [1.0, 0.0]) == 0
    with pytest.raises(ValueError, match="one probability"):
        metrics.expected_calibration_error([True], [1.2])


def test_calibrated_confidence_has_next_to_no_error() -> None:
    rng = np.random.default_rng(9)
    confidence = rng.uniform(0.3, 1, 50_000)
    assert metrics.expected_calibration_error(rng.random(50_000) < confidence, confidence) < 0.01
    assert metrics.expected_calibration_error(rng.random(50_000) < confidence - 0.2, confidence) == pytest.approx(
        0.2, abs=0.01
    )


def test_agreement_of_clusters_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(10)
    truth = rng.choice(["a", "b", "c"], 150)
    guess = np.where(rng.random(150) < 0.7, truth, rng.choice(["a", "b", "c", "d"], 150))
    found = metrics.cluster_agreement(truth, guess)
    assert found == {
        "ari": pytest.approx(sk.adjusted_rand_score(truth, guess)),
        "nmi": pytest.approx(sk.normalized_mutual_info_score(truth, guess)),
    }
    # The adjusted Rand index from its definition: pairs of spots that both, or one, of the partitions join.
    pairs = np.triu_indices(150, 1)
    one, other = (np.asarray(v)[pairs[0]] == np.asarray(v)[pairs[1]] for v in (truth, guess))
    expected = one.sum() * other.sum() / len(one)
    assert found["ari"] == pytest.approx(((one & other).sum() - expected) / ((one.sum() + other.sum()) / 2 - expected))
    renamed = np.array([{"a": 7, "b": 1, "c": 3}[name] for name in truth])
    assert metrics.cluster_agreement(truth, renamed) == pytest.approx({"ari": 1, "nmi": 1})
    assert metrics.cluster_agreement(truth, np.zeros(150)) == {"ari": 0, "nmi": 0}


def test_cell_types_need_spots() -> None:
    with pytest.raises(ValueError, match="name a type for each spot"):
        metrics.cell_type_scores(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="name a type for each spot"):
        metrics.cell_type_scores([], [])


# -- counts -----------------------------------------------------------------------------------------------------------
SHAPE = (4000, 6)


def zinb_sample(seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    mu = rng.gamma(2, np.array([0.1, 0.5, 1.0, 3.0, 10.0, 60.0]), SHAPE)
    theta = np.array([0.5, 2.0, 1.0, 5.0, 2.0, 20.0])
    dropout = rng.uniform(0, 0.5, SHAPE)
    counts = rng.negative_binomial(theta, theta / (theta + mu)) * (rng.random(SHAPE) > dropout)
    return counts, mu, theta, dropout


def test_log_likelihood_is_that_of_scipy() -> None:
    counts, mu, theta, dropout = zinb_sample(0)
    found = metrics.count_scores(sparse.csr_array(counts), mu, theta, dropout)
    nb = stats.nbinom(theta, theta / (theta + mu))
    expected = np.log(dropout * (counts == 0) + (1 - dropout) * nb.pmf(counts))
    np.testing.assert_allclose(found.log_likelihood, expected.mean(axis=0), rtol=1e-9)
    assert found.scores["log_likelihood"] == pytest.approx(expected.mean(), rel=1e-9)
    np.testing.assert_allclose(found.p_zero, (dropout + (1 - dropout) * nb.pmf(0)).mean(axis=0), rtol=1e-9)
    found = metrics.count_scores(counts, mu, theta)
    np.testing.assert_allclose(found.log_likelihood, nb.logpmf(counts).mean(axis=0), rtol=1e-9)
    found = metrics.count_scores(counts, mu)
    np.testing.assert_allclose(found.log_likelihood, stats.poisson(mu).logpmf(counts).mean(axis=0), rtol=1e-9)


def test_poisson_deviance_is_that_of_scikit_learn() -> None:
    counts, mu, _, _ = zinb_sample(1)
    found = metrics.count_scores(counts, mu).deviance
    zinb = metrics.count_scores(counts, mu / 0.7, 2.0, np.full(counts.shape, 0.3))
    np.testing.assert_allclose(zinb.poisson_deviance, found, rtol=1e-9)
    np.testing.assert_allclose(found, [sk.mean_poisson_deviance(x, m) for x, m in zip(counts.T, mu.T, strict=True)])


def test_true_parameters_are_calibrated() -> None:
    counts, mu, theta, dropout = zinb_sample(2)
    scores = metrics.count_scores(counts, mu, theta, dropout).scores
    error = 4 * np.sqrt(0.25 / counts.size)
    for level, nominal in (("50", 0.5), ("80", 0.8), ("95", 0.95)):
        assert scores["coverage"][level] == pytest.approx(nominal, abs=error)
        assert scores["interval_coverage"][level] >= nominal - error
    np.testing.assert_allclose(scores["pit"], 0.05, atol=4 * np.sqrt(0.05 / counts.size))
    # Kolmogorov and Smirnov's bound at 1 in 1000.
    assert scores["pit_distance"] < 1.95 / np.sqrt(counts.size)


def test_wrong_parameters_are_not() -> None:
    counts, mu, theta, dropout = zinb_sample(3)
    true = metrics.count_scores(counts, mu, theta, dropout).scores
    narrow = metrics.count_scores(counts, mu * (1 - dropout)).scores
    wide = metrics.count_scores(counts, mu, theta / 10, dropout).scores
    high = metrics.count_scores(counts, mu * 3, theta, dropout).scores
    assert narrow["coverage"]["80"] < 0.7
    assert wide["coverage"]["80"] > 0.82
    assert min(s["pit_distance"] for s in (narrow, wide, high)) > 5 * true["pit_distance"]
    assert max(s["log_likelihood"] for s in (narrow, wide, high)) < true["log_likelihood"]


def test_interval_coverage_is_that_of_quantiles() -> None:
    counts, mu, theta, _ = zinb_sample(4)
    nb = stats.nbinom(theta, theta / (theta + mu))
    found = metrics.count_scores(counts, mu, theta).scores["interval_coverage"]
    for level in (0.5, 0.8, 0.95):
        inside = (counts >= nb.ppf((1 - level) / 2)) & (counts <= nb.ppf((1 + level) / 2))
        assert found[f"{level:.0%}".rstrip("%")] == pytest.approx(inside.mean(), abs=2e-4)


def width_by_hand(pmf: np.ndarray, level: float) -> np.ndarray:
    """Sum over all counts (first axis) of the share of their probability that lies within the central `level`."""
    low, high = (1 - level) / 2, (1 + level) / 2
    upper = np.cumsum(pmf, axis=0)
    lower = upper - pmf
    within = np.clip(np.minimum(upper, high) - np.maximum(lower, low), 0, None)
    # Between zero and the bulk of a zero-inflated count probabilities are too small to be added up.
    whole = (lower >= low) & (upper <= high)
    return np.divide(within, pmf, out=whole.astype(float), where=~whole & (pmf > 0)).sum(axis=0)


@pytest.mark.parametrize("likelihood", ["poisson", "nb", "zinb"])
def test_width_counts_what_the_interval_holds(likelihood: str) -> None:
    counts, mu, theta, dropout = (p[:300] if p.ndim == 2 else p for p in zinb_sample(5))
    k = np.arange(5000)[:, None, None]
    if likelihood == "poisson":
        found, pmf = metrics.count_scores(counts, mu), stats.poisson(mu).pmf(k)
    else:
        pmf = stats.nbinom(theta, theta / (theta + mu)).pmf(k)
        if likelihood == "zinb":
            pmf = dropout * (k == 0) + (1 - dropout) * pmf
        found = metrics.count_scores(counts, mu, theta, dropout if likelihood == "zinb" else None)
    for level in (0.5, 0.8, 0.95):
        expected = np.median(width_by_hand(pmf, level).mean(axis=0))
        assert found.scores["width"][f"{level:.0%}".rstrip("%")] == pytest.approx(expected, rel=1e-6)


def test_width_of_a_rare_count_is_a_share_of_zero() -> None:
    mu = np.full((10, 1), -np.log(0.9))
    width = metrics.count_scores(np.zeros((10, 1)), mu).scores["width"]
    # From .25 to .75 all is zero, of probability .9; from .1 to .9 it ends where zero does.
    assert width["50"] == pytest.approx(0.5 / 0.9)
    assert width["80"] == pytest.approx(0.8 / 0.9)


def test_width_of_many_values_is_that_of_some() -> None:
    counts, mu, theta, dropout = (np.repeat(p, 5, axis=-1) for p in zinb_sample(6))
    assert counts.size > 5 * MOST_MEASURED
    found = metrics.count_scores(counts, mu, theta, dropout).scores["width"]
    again = metrics.count_scores(counts, mu, theta, dropout, seed=1).scores["width"]
    for level, width in found.items():
        assert width != again[level]
        assert width == pytest.approx(again[level], rel=0.03)


def test_impossible_counts_stay_finite() -> None:
    scores = metrics.count_scores(np.array([[3, 0]]), np.zeros((1, 2)), 1.0, np.ones((1, 2))).scores
    assert np.isfinite(scores["log_likelihood"])
    assert np.isfinite(scores["deviance"])


# -- in space ---------------------------------------------------------------------------------------------------------
def test_morans_i_is_that_of_squidpy(make_section) -> None:
    import squidpy as sq

    adata = make_section(n_spots=60, n_genes=8)
    adata.X = adata.X.toarray()
    sq.gr.spatial_neighbors_knn(adata, n_neighs=5)
    sq.gr.spatial_autocorr(adata, mode="moran", n_perms=None, show_progress_bar=False)
    expected = adata.uns["moranI"].loc[adata.var_names, "I"]
    found = metrics.morans_i_by_gene(sparse.csr_array(adata.X), adata.obsp["spatial_connectivities"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_morans_i_of_constants_and_islands() -> None:
    values = np.column_stack([np.ones(4), np.arange(4.0)])
    chain = sparse.diags_array([np.ones(3), np.ones(3)], offsets=[-1, 1])
    found = metrics.morans_i_by_gene(values, chain)
    assert np.isnan(found[0])
    assert found[1] > 0
    assert np.isnan(metrics.morans_i_by_gene(values, sparse.csr_array((4, 4)))).all()
    with pytest.raises(ValueError, match=r"shape \(4, 4\), found \(3, 3\)"):
        metrics.morans_i_by_gene(values, sparse.eye_array(3))


# -- what all refuse --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("score", [metrics.pearson_by_gene, metrics.spearman_by_spot, metrics.overall])
def test_bad_tables_are_refused(score, counts, prediction) -> None:
    with pytest.raises(ValueError, match=r"one shape, found \(60, 13\) and \(60, 12\)"):
        score(counts, prediction[:, 1:])
    with pytest.raises(ValueError, match=r"spots x genes, found shape \(60,\)"):
        score(counts[:, 0], prediction)
    prediction[3, 4] = np.nan
    with pytest.raises(ValueError, match="`prediction` to hold finite numbers"):
        score(counts, prediction)
