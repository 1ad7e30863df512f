"""The decoder of the kernel model: the optimum that SciPy finds, gene by gene."""

from __future__ import annotations

import numpy as np
import pytest
from builders import negative_binomial
from scipy import optimize, sparse, stats

from hist2scrna.fitting.closed_form.counts import (
    DISPERSION_PRIOR,
    DROPOUT_PRIOR,
    DROPOUT_START,
    INTERCEPT_PRIOR,
    WEIGHT_PRIOR,
    fit_decoder,
)
from hist2scrna.models.heads import LOG_DISPERSION_BOUNDS

pytestmark = pytest.mark.numeric


def test_the_decoder_finds_loadings_and_dispersion() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([0.4 * rng.normal(size=(3000, 1)), rng.normal(size=(3000, 2))], axis=1)
    loadings = np.array([[1.0, 0.8, 1.1, 1.0], [0.5, -0.3, 0.0, 0.1], [0.0, 0.2, -0.4, 0.0]])
    base, theta = np.log([2.0, 8.0, 30.0, 5.0]), np.array([1.0, 4.0, 0.5, 2.0])
    counts = negative_binomial(rng, np.exp(base + scores @ loadings), theta)
    decoder = fit_decoder(sparse.csr_array(counts), scores, scores, "nb")
    np.testing.assert_allclose(decoder.loadings, loadings, atol=0.08)
    np.testing.assert_allclose(decoder.intercept, base, atol=0.08)
    np.testing.assert_allclose(decoder.log_dispersion, np.log(theta), atol=0.15)


def test_the_loadings_of_a_gene_are_the_optimum_that_scipy_finds() -> None:
    rng = np.random.default_rng(6)
    scores = rng.normal(size=(150, 3)) * [0.5, 1.0, 1.0]
    counts = negative_binomial(rng, np.exp(np.log(3) + scores @ [1.2, 0.5, -0.4]), 1.5)
    decoder = fit_decoder(sparse.csr_array(counts[:, None]), scores, scores, "nb")
    start = np.log((counts.sum() + 0.5) / (np.exp(scores[:, 0]).sum() + 0.5))

    def loss(x) -> float:
        mu, theta = np.exp(scores @ x[:3] + x[3]), np.exp(x[4])
        priors = WEIGHT_PRIOR * ((x[0] - 1) ** 2 + x[1] ** 2 + x[2] ** 2) + INTERCEPT_PRIOR * (x[3] - start) ** 2
        likelihood = stats.nbinom.logpmf(counts, theta, theta / (theta + mu)).sum()
        return priors + DISPERSION_PRIOR * x[4] ** 2 - likelihood

    best = optimize.minimize(loss, [1, 0, 0, start, 0], tol=1e-10).x
    np.testing.assert_allclose(decoder.loadings[:, 0], best[:3], atol=1e-4)


def test_what_the_prediction_misses_goes_into_dispersion_and_mean() -> None:
    rng = np.random.default_rng(1)
    known, missed = rng.normal(size=(4000, 1)), 0.7 * rng.normal(size=(4000, 1))
    zero = np.zeros_like(known)
    counts = negative_binomial(rng, np.exp(2 + known + missed), np.array([5.0]))
    true, predicted = np.concatenate([zero, known + missed], axis=1), np.concatenate([zero, known], axis=1)
    decoder = fit_decoder(sparse.csr_array(counts), true, predicted, "nb")
    # E exp(missed) = exp(var / 2).
    assert decoder.intercept[0] == pytest.approx(2 + 0.49 / 2, abs=0.06)
    theta = np.exp(decoder.log_dispersion[0])
    assert theta < 2
    p = theta / (theta + np.exp(decoder.intercept[0] + known[:, 0]))
    at = stats.nbinom.cdf(counts[:, 0] - 1, theta, p) + rng.random(4000) * stats.nbinom.pmf(counts[:, 0], theta, p)
    for level in (0.5, 0.8, 0.95):
        assert (np.abs(at - 0.5) < level / 2).mean() == pytest.approx(level, abs=0.04)


def test_the_dispersion_of_a_gene_is_the_optimum_that_scipy_finds() -> None:
    rng = np.random.default_rng(2)
    score = 0.5 * rng.normal(size=(200, 1))
    counts = negative_binomial(rng, np.exp(1 + score[:, 0]), 2.0)[:, None]
    decoder = fit_decoder(sparse.csr_array(counts), score, score, "nb")
    mu = np.exp(score[:, 0] * decoder.loadings[0, 0] + decoder.intercept[0])
    assert mu.sum() == pytest.approx(counts.sum(), rel=2e-3)

    def loss(log_theta) -> float:
        theta = np.exp(log_theta)
        return DISPERSION_PRIOR * log_theta**2 - stats.nbinom.logpmf(counts[:, 0], theta, theta / (theta + mu)).sum()

    best = optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}).x
    assert decoder.log_dispersion[0] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("one_spot_has_it_all", [False, True])
def test_dispersion_and_dropout_of_a_gene_are_the_optimum_that_scipy_finds(one_spot_has_it_all) -> None:
    """Of a gene that one spot has, log theta ends at its bound."""
    rng = np.random.default_rng(7)
    score = 0.5 * rng.normal(size=(300, 1))
    counts = negative_binomial(rng, np.exp(1.5 + score[:, 0]), 4.0) * (rng.random(300) > 0.25)
    if one_spot_has_it_all:
        counts = np.where(np.arange(300) == 5, 1e5, 0.0)
    decoder = fit_decoder(sparse.csr_array(counts[:, None]), score, score, "zinb")
    log_mu = score[:, 0] * decoder.loadings[0, 0]
    total = np.log((counts.sum() + 0.5) / (np.exp(log_mu).sum() + 0.5))

    def loss(x) -> float:
        theta, present = np.exp(x[0]), 1 / (1 + np.exp(x[1]))
        mu = np.exp(log_mu + total) / present
        likelihood = present * stats.nbinom.pmf(counts, theta, theta / (theta + mu)) + (1 - present) * (counts == 0)
        priors = DISPERSION_PRIOR * x[0] ** 2 + DROPOUT_PRIOR * (x[1] - DROPOUT_START) ** 2
        return priors - np.log(likelihood).sum()

    best = optimize.minimize(loss, [-1, DROPOUT_START], bounds=[LOG_DISPERSION_BOUNDS, (-15, 15)], tol=1e-12).x
    assert (best[0] < LOG_DISPERSION_BOUNDS[0] + 1e-6) == one_spot_has_it_all
    np.testing.assert_allclose([decoder.log_dispersion[0], decoder.dropout_logits[0]], best, atol=2e-3)
    assert decoder.intercept[0] == pytest.approx(total + np.log1p(np.exp(best[1])), abs=2e-3)


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_each_gene_keeps_its_total_whatever_was_predicted(likelihood) -> None:
    """A gene of one batch, predicted for the other alone: the likeliest intercept would be 40 times too high."""
    rng = np.random.default_rng(5)
    batch = np.repeat([[3.0], [-3.0]], 100, axis=0)
    counts = negative_binomial(rng, np.exp(2 + batch), 5.0)
    counts[::7] = 0
    decoder = fit_decoder(sparse.csr_array(counts), batch, -batch, likelihood)
    mu = np.exp(decoder.intercept[0] - batch[:, 0] * decoder.loadings[0, 0])
    present = 1 / (1 + np.exp(decoder.dropout_logits[0])) if likelihood == "zinb" else 1.0
    assert (present * mu).sum() == pytest.approx(counts.sum(), rel=1e-3)


def test_dropout_is_found_where_it_is_and_nowhere_else() -> None:
    rng = np.random.default_rng(3)
    scores = 0.3 * rng.normal(size=(4000, 1))
    counts = negative_binomial(rng, np.exp(3 + scores) * np.ones(2), 4.0)
    counts[rng.random(4000) < 0.3, 0] = 0
    decoder = fit_decoder(sparse.csr_array(counts), scores, scores, "zinb")
    dropout = 1 / (1 + np.exp(-decoder.dropout_logits))
    assert dropout[0] == pytest.approx(0.3, abs=0.03)
    assert dropout[1] < 0.02


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_a_gene_without_counts_is_predicted_near_zero(likelihood) -> None:
    scores = np.random.default_rng(4).normal(size=(50, 2))
    decoder = fit_decoder(sparse.csr_array(np.zeros((50, 1), dtype=np.float32)), scores, scores, likelihood)
    assert np.isfinite(decoder.intercept).all()
    assert decoder.intercept[0] < np.log(0.5)
