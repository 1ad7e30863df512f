"""The loss terms of GHIST beside the expression of a nucleus and its type: each a mean over one batch of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from hist2scrna.models.contract import Prediction, SpotBatch

IGNORED = -100
LEAST_SHARE = 1e-11


def type_map(batch: SpotBatch) -> Tensor:
    """Return `(t, H, W)` the class of each pixel: 0 outside of nuclei, 1 + type, -100 where the type is not known."""
    assert batch.masks is not None and batch.label is not None
    known = torch.where(batch.label >= 0, batch.label + 1, IGNORED)
    halo = known.new_full((len(batch.section) - batch.n_core,), IGNORED)
    return torch.cat([known.new_zeros(1), known, halo])[batch.masks.long()]


def map_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the cross-entropy of the type map, mean over pixels."""
    logits, types = prediction.extras["map_logits"].float(), type_map(batch)
    if (types == IGNORED).all():
        return logits.sum() * 0
    return F.cross_entropy(logits, types, ignore_index=IGNORED)


def type_from_expression_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the cross-entropy of the type that is read from the predicted expression, mean over labeled nuclei."""
    assert batch.label is not None
    logits = prediction.extras["logits_of_prediction"].float()
    if not (batch.label >= 0).any():
        return logits.sum() * 0
    return F.cross_entropy(logits, batch.label, ignore_index=-1)


def embedding_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return one minus the cosine between the features of predicted and of true expression; gradient into both."""
    of_prediction, of_truth = (prediction.extras[f"features_of_{name}"].float() for name in ("prediction", "truth"))
    return (1 - F.cosine_similarity(of_prediction, of_truth, dim=1)).mean()


def logits_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the squared difference of the type logits of predicted and of true expression; gradient into both."""
    of_prediction, of_truth = (prediction.extras[f"logits_of_{name}"].float() for name in ("prediction", "truth"))
    return F.mse_loss(of_prediction, of_truth)


def composition_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the divergence of the estimated composition of the tiles, each as often as it has nuclei, from the true.

    As published, it is taken between the softmax of the shares, which are between 0 and 1 already, and divided by the
    number of types.
    """
    assert prediction.composition is not None
    return _divergence(prediction.composition.float().mean(dim=0), batch)


def classified_composition_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the same of the shares of the most probable types: no gradient flows through these, as published."""
    assert prediction.label_logits is not None
    n_types = prediction.label_logits.shape[1]
    return _divergence(F.one_hot(prediction.label_logits.argmax(dim=1), n_types).float().mean(dim=0), batch)


def _divergence(shares: Tensor, batch: SpotBatch) -> Tensor:
    assert batch.label is not None
    label = batch.label[batch.label >= 0]
    if not len(label):
        return shares.sum() * 0
    true = torch.bincount(label, minlength=len(shares)) / len(label)
    log_true, log_shares = ((values + LEAST_SHARE).log_softmax(dim=0) for values in (true, shares))
    return (log_true.exp() * (log_true - log_shares)).sum() / len(shares)


class SpecialLoss:
    """Squared error of the head of some types, over nuclei that truly are of these, divided by the number of types.

    Parameters
    ----------
    head
        Its name.
    types
        Numbers of its types.
    """

    def __init__(self, head: str, types: tuple[int, ...]) -> None:
        self.head = head
        self.types = types

    def __call__(self, prediction: Prediction, batch: SpotBatch) -> Tensor:
        """Return the loss; 0 where the batch has no such nucleus."""
        assert batch.label is not None and prediction.label_logits is not None
        value, truth = (prediction.extras[name].float() for name in (f"expression_{self.head}", "expression_truth"))
        rows = torch.isin(batch.label, torch.tensor(self.types, device=batch.label.device))
        if not rows.any():
            return value.sum() * 0
        return F.mse_loss(value[rows], truth[rows]) / prediction.label_logits.shape[1]
