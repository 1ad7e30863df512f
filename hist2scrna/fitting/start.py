"""What a model starts from: what the training data tell, published weights; and the terms of its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.fitting.closed_form.components import standardization
from hist2scrna.fitting.closed_form.counts import fit_loadings
from hist2scrna.fitting.closed_form.donors import DonorCounts, Donors
from hist2scrna.fitting.closed_form.programs import MOST_DENSE, Programs
from hist2scrna.fitting.split import some_of
from hist2scrna.fitting.tile_batches import tiles_of
from hist2scrna.metrics.blocks import taken
from hist2scrna.models.contract import TrainingStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hist2scrna.metrics.baselines import Baselines
    from hist2scrna.models.contract import SpotModel, Term
    from hist2scrna.spots.read import Spots

LEAST_SPREAD = 0.05


def training_statistics(
    spots: Spots,
    training: NDArray[np.int64],
    baselines: Baselines,
    n_programs: int = 0,
    expression: Sequence[DonorCounts] = (),
) -> TrainingStatistics:
    """Return what the training spots tell before training.

    Parameters
    ----------
    spots
        All spots, with counts.
    training
        Numbers of the training spots.
    baselines
        Baselines fitted on their counts.
    n_programs, expression
        How many gene programs to find, 0 for none; counts of donors without images, which they are found in too.
    """
    library = spots.library_size[training]
    # What the rows tell is of spots, and the model predicts the nuclei in them.
    nuclei = 1.0 if spots.tiles is None else float(spots.tiles.n_nuclei()[training].mean())
    # A gene without counts is taken to have half a one.
    floor = 0.5 / max(1.0, float(library.sum()))
    color_mean, color_scale = (None, None) if spots.tiles is None else _colors(spots, training)
    mean, scale = (None, None) if spots.features is None else standardization(taken(spots.features, training))
    return TrainingStatistics(
        log_rate=_tensor(np.log(np.maximum(baselines.rate, floor))),
        mean_log_normalized=_tensor(baselines.log_mean),
        log_dispersion=_tensor(np.log(baselines.dispersion / nuclei)),
        log_library=(float(np.log(np.median(library) / nuclei)), max(float(np.log(library).std()), LEAST_SPREAD)),
        feature_mean=None if mean is None else _tensor(mean),
        feature_scale=None if scale is None else _tensor(scale),
        color_mean=color_mean,
        color_scale=color_scale,
        program_loadings=_program_loadings(spots, training, n_programs, expression) if n_programs else None,
    )


def _program_loadings(
    spots: Spots, training: NDArray[np.int64], n_programs: int, expression: Sequence[DonorCounts]
) -> torch.Tensor:
    """Return what depth and programs do to the share of each gene, by the rules of the kernel model."""
    assert spots.counts is not None
    some = some_of(np.random.default_rng(0), training, MOST_DENSE)
    counts = taken(spots.counts, some)
    donors = Donors(np.zeros(len(some), dtype=np.int64) if spots.group is None else spots.group[some])
    programs = Programs.fit(counts, n_programs, np.arange(len(some)), donors, expression)
    loadings = fit_loadings(counts, programs.scores, donors.code)
    # Means are the library size times the rate.
    loadings[0] -= 1
    return _tensor(np.ascontiguousarray(loadings.T))


def _colors(spots: Spots, training: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    assert spots.tiles is not None
    tiles = tiles_of(spots, np.isin(np.arange(len(spots)), training), owned=False)
    mean, deviation = spots.tiles.colors(tiles)
    return _tensor(mean), _tensor(deviation)


def _tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def loss_terms(
    model: SpotModel, losses: Mapping[str, float | Term | tuple[Term, float]]
) -> dict[str, float | Term | tuple[Term, float]]:
    """Return the model's own loss terms and the user's, who may give one of the model's another weight."""
    terms: dict[str, float | Term | tuple[Term, float]] = dict(model.terms)
    for name, term in losses.items():
        default = terms.get(name)
        reweighted = isinstance(default, tuple) and isinstance(term, int | float)
        terms[name] = (default[0], float(term)) if reweighted else term  # type: ignore[index, arg-type]
    return terms


def load_reference(model: SpotModel, state: dict[str, torch.Tensor], name: str) -> None:
    """Take the weights of a published implementation, or raise `ValueError` where there is none."""
    load = getattr(model, "load_reference_state_dict", None)
    if load is None:
        raise ValueError(f"Model {name!r} has no published implementation whose weights it could start from.")
    load(state)
