r"""The kernel model brought to a donor of whom a few spots were measured, in closed form.

With :math:`\hat\ell_i` the predicted log library size of the measured spots and :math:`\ell_i` the counted one,

.. math:: \ell_i = \hat\ell_i + a + b (\hat\ell_i - \bar\ell) + \epsilon_i, \quad
   a \sim N(0, 1), \quad b \sim N(0, 0.02),

where the variance of :math:`\epsilon` is what is left over; then each gene is multiplied by
:math:`f_g = (\sum_i x_{ig} + 3) / (\sum_i \mu_{ig} + 3)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.fitting.closed_form.components import as_buffer, write_rows
from hist2scrna.fitting.closed_form.donors import PRIOR_COUNTS

if TYPE_CHECKING:
    from scipy import sparse

    from hist2scrna.metrics.blocks import Floats
    from hist2scrna.models.kernel import KernelRegression
    from hist2scrna.models.prediction import Prediction

LEVEL_VARIANCE, SLOPE_VARIANCE = 1.0, 0.02
ROUNDS = 5
# Variance that is added to 1 / theta of the training: a few spots do not tell all by which the donor differs. Of those
# tried on two donors of her2st the one whose intervals held best.
REMAINING_VARIANCE = 0.6


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
    measured = np.log(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel())
    level, slope = _line(predicted, measured)
    log_mu = prediction.log_mu.numpy().astype(np.float64)
    # Every spot of the model is as deep as the line says.
    depth = predicted + level + slope * (predicted - predicted.mean())
    mu = prediction.mean.numpy().astype(np.float64)
    mu *= np.exp(depth)[:, None] / mu.sum(axis=1, keepdims=True)
    factor = (np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() + PRIOR_COUNTS) / (mu.sum(axis=0) + PRIOR_COUNTS)
    shares = torch.cat([torch.tensor([1 + slope], dtype=torch.float32), model.program_shares])
    for name in ("dual", "slopes", "morphology_slopes", "offset"):
        buffer = getattr(model, name)
        buffer[..., : len(shares)] *= shares
    model.program_shares.fill_(1.0)
    mean = float(model.log_library_mean)
    shift = float(model.log_library_shift)
    # The line, in terms of the depth before its shift: (1 + slope) depth is in the weights.
    constant = shift * (1 + slope) + level + slope * (mean - predicted.mean())
    model.levels = as_buffer(np.array([constant]))
    rates = model.rate_shift.numpy().astype(np.float64) + np.log(factor)
    model.donor_rates = as_buffer(rates[None] - _excess(model, log_mu, depth - predicted, factor, depth))
    write_rows(model.log_dispersion, -np.log(np.exp(-model.log_dispersion.numpy()) + REMAINING_VARIANCE))
    model.section_distance.fill_(torch.inf)


def _line(predicted: Floats, measured: Floats) -> tuple[float, float]:
    """Return the level and the slope by which measured depth differs from predicted."""
    design = np.stack([np.ones_like(predicted), predicted - predicted.mean()], axis=1)
    difference = measured - predicted
    variance, weights = max(float(difference.var()), 1e-4), np.zeros(2)
    for _ in range(ROUNDS):
        precision = design.T @ design / variance + np.diag([1 / LEVEL_VARIANCE, 1 / SLOPE_VARIANCE])
        weights = np.linalg.solve(precision, design.T @ difference / variance)
        variance = max(float(np.square(difference - design @ weights).mean()), 1e-4)
    return float(weights[0]), float(weights[1])


def _excess(model: KernelRegression, log_mu: Floats, change: Floats, factor: Floats, depth: Floats) -> float:
    """Return by how much the mean log total of the measured spots would be above the line."""
    moved = log_mu + change[:, None] * model.loadings[0].numpy() + np.log(factor)
    kept = 1.0 / (1.0 + np.exp(model.dropout_logits.numpy())) if model.likelihood == "zinb" else 1.0
    return float((np.log((np.exp(moved) * kept).sum(axis=1)) - depth).mean())
