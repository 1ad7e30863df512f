"""Where a loss or a gradient is not finite: in which term, at which gene and which spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hist2scrna.models.contract import Prediction, SpotBatch

# What a term reads of a prediction, a row a spot: with a column a gene, and otherwise.
BY_GENE, BY_SPOT = ("log_mu", "dropout_logits", "log_dispersion", "value"), ("label_logits", "log_library")


class Diverged(FloatingPointError):
    """A loss or a gradient that is NaN or infinite; the message says where."""


@dataclass(frozen=True)
class Names:
    """What spots and genes are called, by their numbers."""

    spots: Sequence[str] = ()
    genes: Sequence[str] = ()


def place_of_loss(terms: Mapping[str, Tensor], prediction: Prediction, batch: SpotBatch, names: Names) -> str:
    """Return in words where the loss is not finite: the term, and gene and spot where one of them is the first."""
    broken = [name for name, value in terms.items() if name != "loss" and not torch.isfinite(value)]
    if not broken:
        return "the sum of its terms"
    term = broken[0]
    values: Tensor | None = None
    with torch.no_grad():
        if term == "expression" and prediction.value is not None:
            values = prediction.value
        elif term == "expression" and prediction.distribution is not None and batch.counts is not None:
            values = prediction.distribution.log_prob(batch.counts)
        elif term == "cell_type":
            values = prediction.label_logits
        elif term == "library":
            values = prediction.log_library
    return f"its term {term!r}{_at(values, batch, names, by_gene=term == 'expression')}"


def place_of_gradient(
    terms: Mapping[str, Tensor], prediction: Prediction, batch: SpotBatch, names: Names
) -> str | None:
    """Return in words where the gradient is not finite, None where all terms have a finite one.

    Parameters
    ----------
    terms, prediction
        The terms of the loss, and the prediction of which they are functions, with their graph.
    batch, names
        The batch, and the names of spots and genes.
    """
    outputs = {name: getattr(prediction, name) for name in (*BY_GENE, *BY_SPOT)}
    outputs = {name: value for name, value in outputs.items() if value is not None and value.requires_grad}
    for term, value in terms.items():
        if term == "loss" or not value.requires_grad:
            continue
        found = torch.autograd.grad(value, list(outputs.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(outputs, found, strict=True):
            if gradient is not None and not torch.isfinite(gradient).all():
                return f"its term {term!r}{_at(gradient, batch, names, by_gene=name in BY_GENE)}"
    return None


def _at(values: Tensor | None, batch: SpotBatch, names: Names, *, by_gene: bool) -> str:
    """Return the first spot, and gene, at which values are not finite, as the end of a sentence."""
    if values is None or torch.isfinite(values).all():
        return ""
    place = torch.nonzero(~torch.isfinite(values))[0].tolist()
    gene = f", at gene {_name(names.genes, place[-1])}" if by_gene else ""
    if values.shape[0] != batch.n_core:
        return gene
    spot = place[0] if batch.number is None else int(batch.number[place[0]])
    return f"{gene} of spot {_name(names.spots, spot)}" if by_gene else f", at spot {_name(names.spots, spot)}"


def _name(names: Sequence[str], number: int) -> str:
    return repr(str(names[number])) if number < len(names) else f"number {number}"
