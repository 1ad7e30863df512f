"""Expected log-normalized expression of a prediction whose depth may be off by a factor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from hist2scrna.models.prediction import Prediction

pytestmark = pytest.mark.numeric
LOG_MU = torch.tensor([[-1.0, 0.5, 2.0], [0.0, 1.0, 3.0]])
INVERSE_DISPERSION = torch.tensor([0.3, 0.5, 0.2])


def predicted(variance: list[float], dropout: bool) -> Prediction:
    widened = INVERSE_DISPERSION + torch.tensor(variance)[:, None]
    return Prediction(
        torch.zeros(2, 1),
        log_mu=LOG_MU,
        log_dispersion=-widened.log(),
        dropout_logits=torch.full((2, 3), -1.0) if dropout else None,
        depth_variance=torch.tensor(variance),
    )


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("variance", [0.3, 0.75])
def test_it_is_read_one_standard_deviation_below_the_median_depth(variance, dropout) -> None:
    """Against SciPy: a sum over counts, and the moments of the logarithm of the Gamma distribution."""
    found = predicted([variance, variance], dropout).log_normalized.numpy()
    factor = stats.gamma(1 / variance, scale=variance)
    mean_log = factor.expect(np.log)
    deviation = np.sqrt(factor.expect(lambda x: (np.log(x) - mean_log) ** 2))
    shallow = factor.median() * np.exp(-deviation)
    kept = 1 / (1 + np.exp(-1.0)) if dropout else 1.0
    mu, theta = np.exp(LOG_MU.numpy().astype(float)), 1 / INVERSE_DISPERSION.numpy().astype(float)
    total = shallow * (kept * mu).sum(axis=1, keepdims=True)
    counts = np.arange(1500)
    probability = stats.nbinom.pmf(counts, theta[None, :, None], (theta / (theta + shallow * mu))[..., None])
    expected = kept * (probability * np.log1p(1e4 * counts / total[..., None])).sum(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_without_a_factor_it_is_the_expectation_under_the_distribution() -> None:
    none, zero = predicted([0.0, 0.0], dropout=True), predicted([0.0, 0.75], dropout=True)
    plain = Prediction(
        torch.zeros(2, 1), log_mu=LOG_MU, log_dispersion=none.log_dispersion, dropout_logits=none.dropout_logits
    )
    torch.testing.assert_close(none.log_normalized, plain.log_normalized)
    torch.testing.assert_close(zero.log_normalized[0], plain.log_normalized[0])
    # A section that is read as shallower shows fewer genes.
    assert (zero.log_normalized[1] < plain.log_normalized[1]).all()


def test_it_is_never_negative() -> None:
    """Fold changes of what is negative are not a number in Scanpy."""
    tiny = Prediction(torch.zeros(1, 1), log_mu=torch.full((1, 5), -15.0), log_dispersion=torch.zeros(5))
    assert (tiny.log_normalized >= 0).all()
