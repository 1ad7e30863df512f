"""What a network starts from: gene means, another model, published weights; and the terms of its loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.encoders.weights import read_state_dict
from hist2scrna.models.heads import ExpressionHeads
from hist2scrna.models.stnet import STNet
from hist2scrna.trained.model import TrainedModel, as_trained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hist2scrna.metrics.baselines import Baselines
    from hist2scrna.models.contract import SpotModel, Term


def starting_point(init_from: TrainedModel | str | Path) -> TrainedModel | dict[str, torch.Tensor]:
    """Return the model to start from, or the state dict of a published implementation if a file is given."""
    if isinstance(init_from, str | Path) and Path(init_from).is_file():
        return read_state_dict(Path(init_from))
    return as_trained(init_from)


def loss_terms(
    network: SpotModel, losses: Mapping[str, float | Term | tuple[Term, float]]
) -> dict[str, float | Term | tuple[Term, float]]:
    """Return the model's own loss terms and the user's, who may give one of the model's another weight."""
    terms: dict[str, float | Term | tuple[Term, float]] = dict(network.terms)
    for name, given in losses.items():
        own = terms.get(name)
        terms[name] = (own[0], float(given)) if isinstance(own, tuple) and isinstance(given, int | float) else given
    return terms


def load_reference(network: SpotModel, state: dict[str, torch.Tensor], model: str) -> None:
    """Take the weights of a published implementation, or raise `ValueError` where there is none."""
    load = getattr(network, "load_reference_state_dict", None)
    if load is None:
        raise ValueError(f"Model {model!r} has no published implementation whose weights it could start from.")
    load(state)


def start_at_means(network: SpotModel, baselines: Baselines, library: np.ndarray) -> None:
    """Let the heads begin at the mean baseline."""
    if isinstance(network, STNet):
        network.start_from(torch.from_numpy(baselines.log_mean.astype(np.float32)))
    heads = getattr(network, "heads", None)
    if not isinstance(heads, ExpressionHeads):
        return
    floor = 0.5 / max(1.0, float(library.sum()))
    log_rate = np.log(np.maximum(baselines.rate, floor))
    baseline = baselines.log_mean if heads.likelihood == "mse" else log_rate
    spread = max(float(np.log(library).std()), 0.05)
    heads.start_from(
        torch.from_numpy(np.asarray(baseline, dtype=np.float32)),
        torch.from_numpy(np.log(baselines.dispersion).astype(np.float32)),
        (float(np.log(np.median(library))), spread),
    )
