"""Likelihood and deviance of counts, against SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from builders import zinb_sample
from scipy import sparse, stats
from sklearn import metrics as sk

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


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


def test_impossible_counts_stay_finite() -> None:
    scores = metrics.count_scores(np.array([[3, 0]]), np.zeros((1, 2)), 1.0, np.ones((1, 2))).scores
    assert np.isfinite(scores["log_likelihood"])
    assert np.isfinite(scores["deviance"])
