"""Sums over the nuclei of a spot: moments by hand, and by drawing counts."""

from __future__ import annotations

import pytest
import torch

from hist2scrna.models.by_spot import summed, summed_expression
from hist2scrna.models.prediction import Prediction

SPOT = torch.tensor([1, 0, 1, 1])
ROWS = {0: [1], 1: [0, 2, 3]}


def test_logarithms_are_undone_and_summed() -> None:
    counts = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) * 9
    value = torch.log1p(counts)
    prediction = Prediction(torch.eye(4), value=value, target="log_counts", target_factor=5.0)
    by_spot = summed_expression(prediction, SPOT, 2)
    for spot, rows in ROWS.items():
        torch.testing.assert_close(by_spot.mean[spot], counts[rows].sum(dim=0))
    assert (by_spot.target, by_spot.target_factor) == ("log_counts", 5.0)


@pytest.mark.parametrize("zero_inflated", [False, True])
def test_sums_of_counts_have_the_mean_and_the_variance_of_drawn_sums(zero_inflated) -> None:
    generator = torch.Generator().manual_seed(1)
    log_mu = torch.randn(4, 3, generator=generator) + 1
    logits = torch.randn(4, 3, generator=generator) - 1 if zero_inflated else None
    log_theta = torch.tensor([0.5, 1.0, 2.0])
    prediction = Prediction(torch.eye(4), log_mu=log_mu, log_dispersion=log_theta, dropout_logits=logits)
    by_spot = summed_expression(prediction, SPOT, 2).distribution
    rng = torch.distributions
    torch.manual_seed(0)
    rate = rng.Gamma(log_theta.exp(), log_theta.exp() / log_mu.exp()).sample((200_000,))
    drawn = torch.poisson(rate)
    if logits is not None:
        drawn = drawn * (torch.rand(drawn.shape) > torch.sigmoid(logits))
    for spot, rows in ROWS.items():
        total = drawn[:, rows].sum(dim=1)
        torch.testing.assert_close(by_spot.mean[spot], total.mean(dim=0), rtol=0.02, atol=0)
        torch.testing.assert_close(by_spot.variance[spot], total.var(dim=0), rtol=0.04, atol=0)


def test_types_of_a_spot_are_shares_and_library_sizes_are_sums() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]]))
    prediction = Prediction(
        torch.eye(4), log_mu=torch.zeros(4, 2), label_logits=logits, log_library=torch.log(torch.tensor([1.0, 2, 3, 4]))
    )
    prediction.log_dispersion = torch.zeros(2)
    by_spot = summed(prediction, SPOT, 2)
    torch.testing.assert_close(by_spot.label_logits.softmax(dim=1), torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    torch.testing.assert_close(by_spot.log_library.exp(), torch.tensor([2.0, 8.0]))
    torch.testing.assert_close(by_spot.embedding[1], torch.tensor([1, 0, 1, 1]) / 3)
