"""The prediction itself, block by block: what is asked for, in this process or of the workers of a cluster."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from hist2scrna.cluster import run_tasks
from hist2scrna.fitting.inference import pick_device, predict_blocks
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.fitting.tissue_meter import TissueMeter
from hist2scrna.models.prediction import Prediction
from hist2scrna.processors import threads
from hist2scrna.spots.one_section import section_of
from hist2scrna.spots.tiles import with_nucleus
from hist2scrna.trained.donors import read_donors
from hist2scrna.trained.encode import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from hist2scrna import keys
    from hist2scrna.fitting.feature_store import FeatureStore
    from hist2scrna.metrics.blocks import Floats
    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel

log = logging.getLogger(__name__)

Block = tuple["NDArray[np.int64]", Prediction]


@dataclass(frozen=True)
class Asked:
    """How to predict.

    Attributes
    ----------
    batch_size
        Patches, or tiles, encoded at once.
    accelerator
        Name of the device, where it is computed.
    encoder
        The encoder of the training, where it was a function or module; None: by name, or none.
    group_key, another_donor
        As of :func:`hist2scrna.tl.predict`.
    """

    batch_size: int
    accelerator: str
    encoder: Any
    group_key: str | None
    another_donor: bool | None


@dataclass(frozen=True)
class PredictionTask:
    """What is to be predicted: spots, their rows of `.obs`, the library sizes imposed if any, and how."""

    spots: Spots
    about: pd.DataFrame
    imposed: NDArray[np.float32] | None
    asked: Asked


@in_own_torch
def predict_spots(
    model: FittedModel,
    task: PredictionTask,
    take: Callable[[NDArray[np.int64], Prediction], None],
    *,
    progress: bool,
    kept: FeatureStore | None = None,
) -> Floats | None:
    """Predict all spots, hand each block to `take`, and return how unlike the training each is; None if unknown.

    `task.spots` gets the features by the encoder, and the donors.
    """
    spots, asked, device = task.spots, task.asked, pick_device(task.asked.accelerator)
    try:
        with threads() as look_again:
            # Encoders that are built anew draw numbers.
            with torch.random.fork_rng(devices=[]):
                meter = None if model.tissue is None else TissueMeter(model.tissue, spots, model.module, device)
                watch = None if meter is None else meter.see
                where: dict[str, Any] = {"batch_size": asked.batch_size, "device": device, "watch": watch}
                encode(model, spots, asked.encoder, progress=progress, kept=kept, **where)
            spots.donor = read_donors(model, task.about, spots, group_key=asked.group_key, another=asked.another_donor)
            blocks = predict_blocks(
                model.module,
                spots,
                log_library=None if task.imposed is None else np.log(task.imposed),
                progress=progress and model.encoder is None,
                kept=kept if model.encoder is None else None,
                **where,
            )
            for core, prediction in blocks:
                take(core, prediction)
                look_again()
            return None if meter is None else meter.distance()
    finally:
        model.module.cpu()


def require_sections(model: FittedModel) -> None:
    """Refuse a model whose sections cannot be tasks of a cluster.

    Raises
    ------
    ValueError
        If it reads tiles, or whole slides.
    """
    slides = model.module.observation == "slide"
    if slides or model.module.needs == "tiles":
        raise ValueError(
            f"client= sends the spots of each section to a cluster, and model {model.name!r} reads "
            f"{'slides' if slides else 'tiles with nuclei'}. Leave it out, or predict each section by a job of its own."
        )


def predict_sections(
    client: Any,
    model: FittedModel,
    task: PredictionTask,
    take: Callable[[NDArray[np.int64], Prediction], None],
    *,
    progress: bool,
) -> Floats | None:
    """Predict as :func:`predict_spots` does, each section as a task of a cluster."""
    spots = task.spots
    rows: list[NDArray[np.int64]] = []
    tasks: list[PredictionTask] = []
    for code in range(len(spots.sections)):
        one, own = section_of(spots, code)
        imposed = None if task.imposed is None else task.imposed[own]
        rows.append(own)
        tasks.append(PredictionTask(one, task.about.iloc[own], imposed, task.asked))
    distance = None if model.tissue is None else np.full(len(spots), np.nan)
    with tqdm(total=len(spots), desc="predicting", unit="spot", disable=not progress) as bar:
        for number, (blocks, away, donor) in run_tasks(client, _predicted, model, tasks):
            own = rows[number]
            for core, prediction in blocks:
                take(own[core], prediction)
            if distance is not None:
                distance[own] = away
            if donor is not None:
                spots.donor = np.zeros(len(spots), dtype=np.int64) if spots.donor is None else spots.donor
                spots.donor[own] = donor
            bar.update(len(own))
    return distance


def _predicted(model: FittedModel, task: PredictionTask) -> tuple[list[Block], Floats | None, NDArray[np.int64] | None]:
    """Return the blocks of a section on the CPU, how unlike the training its spots are, and whose they are."""
    blocks: list[Block] = []
    # The task is kept by the scheduler, and runs again from what it was.
    task = replace(task, spots=replace(task.spots))
    distance = predict_spots(
        model, task, lambda core, prediction: blocks.append((core, _on_cpu(prediction))), progress=False
    )
    return blocks, distance, task.spots.donor


def _on_cpu(prediction: Prediction) -> Prediction:
    given = {f.name: getattr(prediction, f.name) for f in fields(prediction)}
    moved: dict[str, Any] = {name: value.cpu() for name, value in given.items() if isinstance(value, Tensor)}
    return replace(prediction, **moved, views=(), extras={})


def of_nuclei(spots: Spots, names: keys.OutputKeys) -> dict[str, NDArray[np.int64]]:
    """Return, for models on tiles, the pixels of each nucleus or the nuclei of each spot; warn of rows without one."""
    if spots.tiles is None:
        return {}
    with_nucleus(spots.tiles)
    if spots.tiles.by_spot is None:
        return {names.nucleus_px: spots.tiles.pixels, names.tile: spots.tiles.owner}
    return {names.n_nuclei: spots.tiles.n_nuclei()}
