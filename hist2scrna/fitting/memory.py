"""Training that does not fit into memory is tried again with smaller batches."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hist2scrna.messages import warn_user

if TYPE_CHECKING:
    from hist2scrna.fitting.result import FitSettings
    from hist2scrna.models.contract import SpotModel

# How the allocator of a CPU says that there is no more, as a plain RuntimeError.
CPU_IS_FULL = "can't allocate memory"


def within_memory(model: SpotModel, settings: FitSettings, run: Callable[[FitSettings], None]) -> FitSettings:
    """Train by `run`, with batches half as large each time that memory runs out, and return the settings that fit.

    Training starts again from the weights and the seed that it began with, so that it ends as one with these smaller
    batches from the start.

    Parameters
    ----------
    model
        The model, which `run` trains in place.
    settings
        How to train.
    run
        Trains with given settings.

    Warns
    -----
    UserWarning
        Each time that the batch is halved.

    Raises
    ------
    MemoryError
        If even batches of one do not fit, or the model reads whole sections, whatever the size of a batch.
    """
    start = {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
    while True:
        full: str | None = None
        try:
            run(settings)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, torch.OutOfMemoryError | MemoryError) and CPU_IS_FULL not in str(error):
                raise
            full = str(error).partition("\n")[0]
        # Here, for while an error is handled its traceback holds the tensors of the batch.
        if full is None:
            return settings
        settings = _halved(model, settings, full)
        model.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        model.cpu().load_state_dict(start)


def _halved(model: SpotModel, settings: FitSettings, full: str) -> FitSettings:
    size = int(settings.training.batch_size or 1)
    if size == 1 or model.context.kind == "section":
        way_out = "smaller sections" if model.context.kind == "section" else "a smaller preset="
        raise MemoryError(
            f"Training does not fit into memory, even one {'section' if size > 1 else 'spot'} at once: {full}. Give "
            f"{way_out}, or a device with more memory."
        )
    warn_user(
        f"Training does not fit into memory with batch_size={size}: {full}. It starts again with batch_size="
        f"{size // 2}; pass that in training= to spare the first attempt."
    )
    return replace(settings, training=replace(settings.training, batch_size=size // 2))
