"""Start from the weights of another model: all that fit, with the outputs matched by gene and class name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

log = logging.getLogger(__name__)

# Gene programs were found in the counts of this fit, and scores are of these.
RATES = "heads.rate."
PROGRAMS = f"{RATES}loadings"


@torch.no_grad()
def start_from(
    model: nn.Module,
    weights: dict[str, Tensor],
    *,
    genes: tuple[Sequence[str], Sequence[str]],
    classes: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Copy weights into `model`; rows of outputs go to the gene or class of the same name.

    A model whose rates are made of gene programs keeps its own: rates are not copied.

    Parameters
    ----------
    model
        The model to start.
    weights
        State dict of the other model, of the same architecture.
    genes, classes
        Names of the outputs: of `model`, then of the other model. Those of `model` alone keep what they have.

    Raises
    ------
    ValueError
        If the weights are of another architecture, or no gene is shared.
    """
    shared = set(genes[0]) & set(genes[1])
    if not shared:
        raise ValueError(
            f"The model in `init_from` shares no gene with this data: it predicts {list(genes[1][:3])}, ..., the data "
            f"have {list(genes[0][:3])}, ... Are both gene names or both gene ids?"
        )
    ours = model.state_dict()
    for key, value in ours.items():
        if key not in weights or (PROGRAMS in ours and key.startswith(RATES)):
            continue
        names = classes if key.startswith("heads.cell_type.") else genes
        is_output = key.startswith("heads.") and value.ndim > 0 and len(value) == len(names[0]) != 1
        other = weights[key]
        if is_output and len(other) == len(names[1]) and other.shape[1:] == value.shape[1:]:
            rows = [(i, names[1].index(name)) for i, name in enumerate(names[0]) if name in set(names[1])]
            if rows:
                here, there = (torch.tensor(r) for r in zip(*rows, strict=True))
                value[here] = other[there]
        elif other.shape == value.shape:
            value.copy_(other)
        else:
            raise ValueError(
                f"The model in `init_from` has another architecture: {key} is {tuple(other.shape)} there and "
                f"{tuple(value.shape)} here. Pass the same model, preset and options."
            )
    log.info("warm start: %d of %d genes known", len(shared), len(genes[0]))
