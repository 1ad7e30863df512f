"""How far the depth of another donor may be off, against SciPy's Gamma distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hist2scrna.fitting.closed_form.donors import LEVEL_SD, depth_factor


@pytest.mark.parametrize(
    ("levels", "variance"),
    [
        ([0.0], 2 * LEVEL_SD**2),
        ([-1.1, 1.1], (2 * LEVEL_SD**2 + 2 * 1.1**2) / 3 * 1.5),
        (np.zeros(20), 2 * LEVEL_SD**2 / 21 * 21 / 20),
    ],
    ids=["one", "two", "many alike"],
)
def test_its_logarithm_varies_as_a_new_level_less_the_known_mean_about_which_it_lies(levels, variance) -> None:
    log_mean, share = depth_factor(np.asarray(levels))
    factor = stats.gamma(1 / share, scale=share * np.exp(log_mean))
    assert factor.mean() == pytest.approx(np.exp(log_mean))
    assert factor.median() == pytest.approx(1)
    mean_log = factor.expect(np.log)
    assert factor.expect(lambda x: (np.log(x) - mean_log) ** 2) == pytest.approx(variance, rel=1e-3)


def test_donors_deeper_and_shallower_by_as_much_are_as_likely_within_an_interval() -> None:
    """Drawn as levels are said to be, two counts of a donor lie within 80 % of what is predicted of the other."""
    rng = np.random.default_rng(0)
    log_mean, share = depth_factor(np.zeros(1))
    mu, theta = 20 * np.exp(log_mean), 1 / share
    new = rng.poisson(20 * np.exp(rng.normal(0, np.sqrt(2) * LEVEL_SD, 20_000)))
    inside = stats.nbinom(theta, theta / (theta + mu)).cdf(new)
    assert np.mean((inside > 0.1) & (inside < 0.9)) == pytest.approx(0.8, abs=0.03)
    assert np.mean(inside < 0.5) == pytest.approx(0.5, abs=0.06)
