r"""The kernel model brought to a donor of whom a few spots were measured, in closed form.

With :math:`\hat\ell_i` the predicted log library size of the measured spots and :math:`\ell_i` the counted one,

.. math:: \ell_i = \hat\ell_i + a + b (\hat\ell_i - \bar\ell) + \epsilon_i, \quad
   a \sim N(0, 1), \quad b \sim N(0, 0.02),

where the variance of :math:`\epsilon` is what is left over; then each gene is multiplied by
:math:`f_g = (\sum_i x_{ig} + 3) / (\sum_i \mu_{ig} + 3)`.

Spots that were not measured then vary about these means as

.. math:: 1 / \theta'_g = s / \theta_g + 1 / (\sum_i x_{ig} + 3).

The second part is what a few counts leave open of the factor: with a Gamma prior of shape and rate 3, and counts that
are Poisson about it, :math:`f_g` is the mean of the posterior, and this its variance as a share of the squared mean.
The first is how far this donor's spots are from what is predicted of them, against those that were left out in
training: :math:`s` has the highest likelihood of the measured counts, each predicted by the line and the factors of the
others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import softplus

from hist2scrna.fitting.closed_form.components import as_buffer, write_rows
from hist2scrna.fitting.closed_form.donors import PRIOR_COUNTS
from hist2scrna.zinb import NB, ZINB

if TYPE_CHECKING:
    from scipy import sparse

    from hist2scrna.metrics.blocks import Floats
    from hist2scrna.models.kernel import KernelRegression
    from hist2scrna.models.prediction import Prediction

LEVEL_VARIANCE, SLOPE_VARIANCE = 1.0, 0.02
ROUNDS = 5
# Of the measured spots, how many parts are left out in turn, and how many the spread is estimated on.
PARTS, MOST_SPREAD = 30, 300
# Bounds of the logarithm of the spread.
SPREAD_BOUNDS = (-4.0, 4.0)


def adapt_kernel(model: KernelRegression, prediction: Prediction, counts: sparse.csr_array) -> None:
    """Change a model in place, so that the donor of the measured spots is the one that it knows.

    Parameters
    ----------
    model
        The model.
    prediction
        What it says of the measured spots, as tissue of another donor.
    counts
        `(n, genes)` of these spots.
    """
    assert prediction.log_library is not None and prediction.log_mu is not None
    predicted = prediction.log_library.numpy().astype(np.float64)
    totals = np.log(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel())
    log_mu = prediction.log_mu.numpy().astype(np.float64)
    mean = prediction.mean.numpy().astype(np.float64)
    mean /= mean.sum(axis=1, keepdims=True)
    line = Line.fit(predicted, totals)
    # Every spot of the model is as deep as the line says.
    depth = line.at(predicted)
    factor = _factors(mean * np.exp(depth)[:, None], counts)
    if model.likelihood != "poisson":
        _widen(model, predicted, totals, mean, counts)
    shares = torch.cat([torch.tensor([1 + line.slope], dtype=torch.float32), model.program_shares])
    for name in ("dual", "slopes", "morphology_slopes", "offset"):
        buffer = getattr(model, name)
        buffer[..., : len(shares)] *= shares
    model.program_shares.fill_(1.0)
    shift = float(model.log_library_shift)
    # The line, in terms of the depth before its shift: (1 + slope) depth is in the weights.
    constant = shift * (1 + line.slope) + line.level + line.slope * (float(model.log_library_mean) - line.center)
    model.levels = as_buffer(np.array([constant]))
    rates = model.rate_shift.numpy().astype(np.float64) + np.log(factor)
    model.donor_rates = as_buffer(rates[None] - _excess(model, log_mu, depth - predicted, factor, depth))
    model.section_distance.fill_(torch.inf)


@dataclass(frozen=True)
class Line:
    """By how much measured depth differs from predicted: a level, and a slope about the mean predicted depth."""

    level: float
    slope: float
    center: float

    @classmethod
    def fit(cls, predicted: Floats, measured: Floats) -> Line:
        """Fit it to the log library sizes of measured spots."""
        center = float(predicted.mean())
        design = np.stack([np.ones_like(predicted), predicted - center], axis=1)
        difference = measured - predicted
        variance = max(float(difference.var()), 1e-4)
        weights = np.zeros(2)
        for _ in range(ROUNDS):
            precision = design.T @ design / variance + np.diag([1 / LEVEL_VARIANCE, 1 / SLOPE_VARIANCE])
            weights[:] = np.linalg.solve(precision, design.T @ difference / variance)
            variance = max(float(np.square(difference - design @ weights).mean()), 1e-4)
        return cls(float(weights[0]), float(weights[1]), center)

    def at(self, predicted: Floats) -> Floats:
        """Return the log library size of spots, from what was predicted."""
        return predicted + self.level + self.slope * (predicted - self.center)


def _factors(expected: Floats, counts: sparse.csr_array) -> Floats:
    """Return the factor of each gene, from what its total is expected to be and what it is."""
    factors: Floats = (_total(counts) + PRIOR_COUNTS) / (expected.sum(axis=0) + PRIOR_COUNTS)
    return factors


def _total(counts: sparse.csr_array) -> Floats:
    return np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()


def _widen(
    model: KernelRegression, predicted: Floats, totals: Floats, shares: Floats, counts: sparse.csr_array
) -> None:
    """Set the dispersion of spots that were not measured; see the head of the file."""
    from scipy.optimize import minimize_scalar

    some = np.unique(np.linspace(0, len(predicted) - 1, min(len(predicted), MOST_SPREAD)).astype(np.int64))
    part = np.arange(len(predicted)) % PARTS
    without = np.zeros_like(shares)
    for number in np.unique(part):
        left, kept = part == number, part != number
        line = Line.fit(predicted[kept], totals[kept])
        expected = shares * np.exp(line.at(predicted))[:, None]
        without[left] = expected[left] * _factors(expected[kept], counts[kept])
    open_factor = torch.from_numpy(1 / (_total(counts) + PRIOR_COUNTS))
    own = torch.exp(-model.log_dispersion.double())
    logits = model.dropout_logits.double()
    log_mean = torch.from_numpy(np.log(without[some]))
    seen = torch.from_numpy(counts[some].toarray().astype(np.float64))

    def unlikely(log_spread: float) -> float:
        log_theta = -torch.log(np.exp(log_spread) * own + open_factor)
        if model.likelihood == "zinb":
            return -float(ZINB(log_mean + softplus(logits), log_theta, logits).log_prob(seen).sum())
        return -float(NB(log_mean, log_theta).log_prob(seen).sum())

    spread = np.exp(minimize_scalar(unlikely, bounds=SPREAD_BOUNDS, method="bounded").x)
    write_rows(model.log_dispersion, -torch.log(spread * own + open_factor).numpy())


def _excess(model: KernelRegression, log_mu: Floats, change: Floats, factor: Floats, depth: Floats) -> float:
    """Return by how much the mean log total of the measured spots would be above the line."""
    moved = log_mu + change[:, None] * model.loadings[0].numpy() + np.log(factor)
    kept = 1.0 / (1.0 + np.exp(model.dropout_logits.numpy())) if model.likelihood == "zinb" else 1.0
    return float((np.log((np.exp(moved) * kept).sum(axis=1)) - depth).mean())
