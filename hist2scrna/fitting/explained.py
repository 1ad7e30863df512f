"""How much of the expression of spots left out a network explains."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hist2scrna.fitting.recalibration import predictions
from hist2scrna.fitting.split import some_of
from hist2scrna.messages import percent
from hist2scrna.metrics.scales import log_normalize

if TYPE_CHECKING:
    from hist2scrna.fitting.result import Split
    from hist2scrna.models.contract import SpotModel
    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

# Axes of expression: as many gene programs as the kernel model has, and depth.
N_AXES = 11
# Spots that axes are found on, and those that are predicted: more tell little more.
MOST_DENSE, MOST_PREDICTED = 2000, 1000
# The variance over fewer is chance.
FEWEST = 10


@torch.no_grad()
def variance_explained(
    model: SpotModel,
    spots: Spots,
    split: Split,
    *,
    batch_size: int,
    device: torch.device,
    seed: int,
    progress: bool,
) -> float | None:
    """Return which share of the variance of the validation spots is explained, below 0 where the mean is nearer.

    Counts of a gene are mostly noise, which nothing explains. So log-normalized expression is compared along the
    leading axes of the training spots, in which genes go together, about its mean there.

    Parameters
    ----------
    model
        The model; on the CPU and in eval mode afterwards.
    spots, split
        All spots, with counts, and which of them train and validate. Axes are found on at most 2,000 of the former, and
        at most 1,000 of the latter are predicted.
    batch_size, device
        Patches encoded at once, and where to compute.
    seed
        Of the draws.
    progress
        Show a bar.

    Returns
    -------
    None of fewer than ten validation spots, or where all training spots are the same.
    """
    if spots.counts is None or len(split.validating) < FEWEST:
        return None
    from sklearn.utils.extmath import randomized_svd

    rng = np.random.default_rng(seed)
    training = log_normalize(spots.counts[some_of(rng, split.training, MOST_DENSE)].toarray())
    mean = training.mean(axis=0)
    n_axes = min(N_AXES, *training.shape)
    axes = randomized_svd(training - mean, n_axes, random_state=0)[2].T
    members = some_of(rng, split.validating, MOST_PREDICTED)
    error = variance = 0.0
    where: dict[str, Any] = {"batch_size": batch_size, "device": device, "progress": progress}
    for core, prediction in predictions(model, spots, members, **where):
        truth = (log_normalize(spots.counts[core].toarray()) - mean) @ axes
        said = (prediction.log_normalized.double().cpu().numpy() - mean) @ axes
        error += float(np.square(said - truth).sum())
        variance += float(np.square(truth).sum())
    model.cpu()
    if not variance > 0 or not np.isfinite(error):
        return None
    explained = 1 - error / variance
    log.info("Of the variance of %d validation spots, %s is explained", len(members), percent(explained))
    return explained
