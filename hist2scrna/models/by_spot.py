"""Predictions of nuclei, summed over the spots that they lie in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hist2scrna.models.prediction import Prediction

# Of a mean, and of the excess of a variance over it.
LEAST = 1e-8


def summed_expression(prediction: Prediction, spot: Tensor, n_spots: int) -> Prediction:
    """Return a prediction whose expression is that of spots, the sum over their nuclei; types stay those of nuclei.

    Logarithms of counts are undone, summed, and taken again. Of distributions, the sum of independent counts has the
    sum of their means and of their variances: the negative binomial of these is returned.

    Parameters
    ----------
    prediction
        What a model says of nuclei.
    spot
        `(n_core,)` int64, the spot of each.
    n_spots
        Number of spots.
    """
    mean = _total(prediction.mean, spot, n_spots)
    library = prediction.log_library
    if library is not None:
        library = torch.log(_total(library.exp(), spot, n_spots).clamp(min=LEAST))
    if prediction.value is not None:
        return replace(prediction, value=torch.log1p(mean), log_library=library)
    distribution = prediction.distribution
    assert distribution is not None
    mean = mean.clamp(min=LEAST)
    excess = (_total(distribution.variance, spot, n_spots) - mean).clamp(min=LEAST)
    return replace(
        prediction,
        log_mu=mean.log(),
        log_dispersion=2 * mean.log() - excess.log(),
        dropout_logits=None,
        log_library=library,
    )


def summed(prediction: Prediction, spot: Tensor, n_spots: int) -> Prediction:
    """Return the same with all else as the mean over the nuclei of a spot; of types, the mean of the probabilities."""
    logits = prediction.label_logits
    if logits is not None:
        shares = _average(logits.float().softmax(dim=1), spot, n_spots)
        logits = shares.clamp(min=LEAST).log()
    composition = prediction.composition
    return replace(
        summed_expression(prediction, spot, n_spots),
        embedding=_average(prediction.embedding, spot, n_spots),
        label_logits=logits,
        composition=None if composition is None else _average(composition, spot, n_spots),
        extras={},
    )


def _total(values: Tensor, spot: Tensor, n_spots: int) -> Tensor:
    return values.new_zeros(n_spots, *values.shape[1:]).index_add(0, spot, values)


def _average(values: Tensor, spot: Tensor, n_spots: int) -> Tensor:
    return _total(values, spot, n_spots) / torch.bincount(spot, minlength=n_spots).clamp(min=1)[:, None]
