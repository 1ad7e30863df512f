"""Reliability by thinning and the noise ceiling, against closed forms and known means."""

from __future__ import annotations

import numpy as np
import pytest
from builders import zinb_sample
from scipy import sparse

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


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
    np.testing.assert_allclose(metrics.pearson_by_gene(counts, mean), known, atol=4 / np.sqrt(len(counts)))
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
