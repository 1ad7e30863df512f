"""What training minimizes: a likelihood, cross-entropy of the cell type, library size, and further terms by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from hist2scrna.models.contract import Prediction, SpotBatch, Term

TARGET_SUM = 1e4
LIBRARY_WEIGHT = 0.5
# Of the cell types.
ALPHA = 0.1


def log_normalized(counts: Tensor) -> Tensor:
    """Return log(1 + 1e4 x / library size), `(n, G)`."""
    return torch.log1p(counts * (TARGET_SUM / counts.sum(dim=1, keepdim=True).clamp(min=1)))


def expression_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the negative log-likelihood of the counts, mean over spots and genes (squared error for `mse`)."""
    counts = _given(batch.counts)
    if prediction.value is not None:
        target = log_normalized(counts) if prediction.target == "log_normalized" else torch.log1p(counts)
        return F.mse_loss(prediction.value, target / math.log(prediction.log_base))
    if prediction.distribution is None:
        raise ValueError("The prediction has neither counts nor log-normalized expression.")
    return -prediction.distribution.log_prob(counts).mean()


def cell_type_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the cross-entropy of the cell type, mean over the labeled spots."""
    logits, label = _given(prediction.label_logits).float(), _given(batch.label)
    if not (label >= 0).any():
        return logits.sum() * 0
    return F.cross_entropy(logits, label, ignore_index=-1)


def library_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the squared error of the log library size that the model reads from the tissue."""
    return F.mse_loss(_given(prediction.log_library), _given(batch.log_library))


def smoothness_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the squared difference of log means (at equal depth) across the edges between core spots."""
    source, target = batch.seed_edges
    if len(source) == 0:
        return prediction.mean.sum() * 0
    if prediction.log_mu is None:
        level = prediction.mean
    else:
        level = prediction.log_mu.float()
        if batch.log_library is not None:
            level = level - batch.log_library[:, None]
    return F.mse_loss(level[source], level[target])


def pearson_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return one minus the Pearson correlation over the core spots, on log-normalized values: mean of varying genes."""
    truth = log_normalized(_given(batch.counts))
    guess = prediction.read_out if prediction.log_mu is None else log_normalized(prediction.mean)
    truth = truth - truth.mean(dim=0)
    guess = guess - guess.mean(dim=0)
    varies = truth.square().sum(dim=0) > 0
    if not varies.any():
        return guess.sum() * 0
    norm = (truth.square().sum(dim=0) * guess.square().sum(dim=0) + 1e-8).sqrt()
    return 1 - ((truth * guess).sum(dim=0) / norm)[varies].mean()


def distillation_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the squared error against the weighted mean of the predictions from augmented views; 0 without views.

    The weights are the softmax of the views' scores, equal where the model gives none; gradients flow into both sides.
    Taken on the expression head of `mse` models, on the logarithm of the count mean of the others. Source: Hist2ST.
    """

    def level(one: Prediction) -> Tensor:
        return _given(one.log_mu if one.value is None else one.value).float()

    own = level(prediction)
    if not prediction.views:
        return own.sum() * 0
    views = torch.stack([level(view) for view in prediction.views])
    zero = own.new_zeros(len(own), 1)
    scores = torch.stack([zero if view.view_score is None else view.view_score for view in prediction.views])
    return F.mse_loss((views * scores.softmax(dim=0)).sum(dim=0), own)


TERMS: dict[str, Term] = {
    "smoothness": smoothness_loss,
    "pearson": pearson_loss,
    "distillation": distillation_loss,
}


def _given(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("The batch or the prediction lacks what this loss term reads.")
    return value


class Objective:
    """Weighted sum of loss terms.

    Parameters
    ----------
    alpha
        Weight of the cross-entropy of the cell type.
    losses
        Further terms: a weight for `"smoothness"`, `"pearson"` or `"distillation"`; for a term of the user's own, the
        function `(prediction, batch) -> scalar`, or a pair of function and weight.

    Raises
    ------
    ValueError
        If a name is not known and no function is given for it, or a weight is not a number.
    """

    def __init__(
        self, alpha: float = ALPHA, losses: Mapping[str, float | Term | tuple[Term, float]] | None = None
    ) -> None:
        self.alpha = alpha
        self.extra: dict[str, tuple[Term, float]] = {}
        for name, given in (losses or {}).items():
            if name in ("loss", "expression", "cell_type", "library"):
                raise ValueError(f"The loss term {name!r} is always there; name your own otherwise.")
            if callable(given):
                self.extra[name] = (given, 1.0)
            elif isinstance(given, tuple) and len(given) == 2 and callable(given[0]):
                self.extra[name] = (given[0], float(given[1]))
            elif isinstance(given, int | float) and name in TERMS:
                self.extra[name] = (TERMS[name], float(given))
            else:
                raise ValueError(
                    f"Expected losses[{name!r}] to be a function (prediction, batch) -> scalar, a pair of function and "
                    f"weight, or a weight for one of {list(TERMS)}; found {given!r}."
                )

    def __call__(self, prediction: Prediction, batch: SpotBatch) -> dict[str, Tensor]:
        """Return every term, unweighted, and their weighted sum under `"loss"`."""
        terms = {"expression": expression_loss(prediction, batch)}
        total = terms["expression"]
        if prediction.label_logits is not None and batch.label is not None:
            terms["cell_type"] = cell_type_loss(prediction, batch)
            total = total + self.alpha * terms["cell_type"]
        if prediction.log_library is not None and batch.log_library is not None:
            terms["library"] = library_loss(prediction, batch)
            total = total + LIBRARY_WEIGHT * terms["library"]
        for name, (term, weight) in self.extra.items():
            value = term(prediction, batch)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise ValueError(f"The loss term {name!r} must return a scalar tensor, found {type(value).__name__}.")
            terms[name] = value.reshape(())
            total = total + weight * terms[name]
        return {"loss": total, **terms}
