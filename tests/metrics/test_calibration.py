"""Coverage and width of intervals and the probability integral transform, against SciPy and true parameters."""

from __future__ import annotations

import numpy as np
import pytest
from builders import zinb_sample
from scipy import stats

from hist2scrna import metrics
from hist2scrna.metrics.calibration import MOST_MEASURED

pytestmark = pytest.mark.numeric


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
