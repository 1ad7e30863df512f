"""What training minimizes: a likelihood, cross-entropy of the cell type, library size, and further terms by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from hist2scrna.metrics.scales import log_normalize_tensor
from hist2scrna.models.by_spot import summed_expression
from hist2scrna.models.training import DEFAULTS

if TYPE_CHECKING:
    from hist2scrna.models.contract import Prediction, SpotBatch, Term

LIBRARY_WEIGHT = 0.5
ALPHA = float(DEFAULTS.alpha or 0)


def expression_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the negative log-likelihood of the counts, mean over spots and genes (squared error for `mse`)."""
    counts = _required(batch.counts)
    if prediction.value is not None:
        target = log_normalize_tensor(counts) if prediction.target == "log_normalized" else torch.log1p(counts)
        error = F.mse_loss(prediction.value, target / math.log(prediction.log_base))
        return error * prediction.target_factor**2
    if prediction.distribution is None:
        raise ValueError("The prediction has neither counts nor log-normalized expression.")
    return -prediction.distribution.log_prob(counts).mean()


def cell_type_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the cross-entropy of the cell type, mean over the labeled spots."""
    logits, label = _required(prediction.label_logits).float(), _required(batch.label)
    if not (label >= 0).any():
        return logits.sum() * 0
    return F.cross_entropy(logits, label, ignore_index=-1)


def library_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the squared error of the log library size that the model reads from the tissue."""
    return F.mse_loss(_required(prediction.log_library), _required(batch.log_library))


def smoothness_loss(prediction: Prediction, batch: SpotBatch) -> Tensor:
    """Return the squared difference of log means (at equal depth) across the edges between core spots."""
    source, target = batch.core_edges
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
    truth = log_normalize_tensor(_required(batch.counts))
    guess = prediction.log_normalized if prediction.log_mu is None else log_normalize_tensor(prediction.mean)
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
        return _required(one.log_mu if one.value is None else one.value).float()

    plain = level(prediction)
    if not prediction.views:
        return plain.sum() * 0
    views = torch.stack([level(view) for view in prediction.views])
    zero = plain.new_zeros(len(plain), 1)
    scores = torch.stack([zero if view.view_score is None else view.view_score for view in prediction.views])
    return F.mse_loss((views * scores.softmax(dim=0)).sum(dim=0), plain)


TERMS: dict[str, Term] = {
    "smoothness": smoothness_loss,
    "pearson": pearson_loss,
    "distillation": distillation_loss,
}


def _required(value: Tensor | None) -> Tensor:
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
        for name, term in (losses or {}).items():
            if name in ("loss", "expression", "cell_type", "library"):
                raise ValueError(f"The loss term {name!r} is always there; name your own otherwise.")
            if callable(term):
                self.extra[name] = (term, 1.0)
            elif isinstance(term, tuple) and len(term) == 2 and callable(term[0]):
                self.extra[name] = (term[0], float(term[1]))
            elif isinstance(term, int | float) and name in TERMS:
                self.extra[name] = (TERMS[name], float(term))
            else:
                raise ValueError(
                    f"Expected losses[{name!r}] to be a function (prediction, batch) -> scalar, a pair of function and "
                    f"weight, or a weight for one of {list(TERMS)}; found {term!r}."
                )

    def __call__(self, prediction: Prediction, batch: SpotBatch) -> dict[str, Tensor]:
        """Return every term, unweighted, and their weighted sum under `"loss"`; counts of spots with sums of nuclei."""
        if batch.spot is not None:
            prediction = summed_expression(prediction, batch.spot, len(_required(batch.tiles)))
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
