"""Training by gradient, on Lightning: early stopping, the best epoch, going on after a kill; then the dispersion."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader, Dataset

from hist2scrna.encoders.precision import has_bfloat16
from hist2scrna.fitting.batches import BlockSampler, SpotBlocks
from hist2scrna.fitting.checkpoint import BEST, TrainingCheckpoint
from hist2scrna.fitting.dealt import DealtBatches, DealtSampler
from hist2scrna.fitting.diverged import Diverged, Names
from hist2scrna.fitting.epochs import BestEpoch, EpochSeed, KeepTraining
from hist2scrna.fitting.explained import variance_explained
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.interruption import Interrupted, interruptible
from hist2scrna.fitting.lightning_module import TrainingModule
from hist2scrna.fitting.memory import within_memory
from hist2scrna.fitting.processes import n_machines, place_among
from hist2scrna.fitting.recalibration import recalibrate_dispersion
from hist2scrna.fitting.result import FitResult, FitSettings, Split
from hist2scrna.fitting.tile_batches import TileBatches, TileSampler, tiles_of

if TYPE_CHECKING:
    from hist2scrna.models.contract import SpotBatch, SpotModel
    from hist2scrna.models.training import Precision, Training
    from hist2scrna.spots.read import Spots


log = logging.getLogger(__name__)

# From it cuBLAS reads how much memory it may use for sums in a fixed order; Lightning sets it.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def default_precision(accelerator: str) -> Precision:
    """Return bfloat16 mixed precision on a GPU that has it, full precision elsewhere."""
    device = pick_device(accelerator)
    return "bf16-mixed" if has_bfloat16(device) else "32-true"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's own banners and hints: what a user needs to know is said by our bar and history."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _algorithms_restored() -> Iterator[None]:
    """Leave the process as it was: with `deterministic`, Lightning changes which operations all of it may use."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(WORKSPACE)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        if workspace is None:
            os.environ.pop(WORKSPACE, None)


def fit_by_gradient(model: SpotModel, spots: Spots, split: Split, settings: FitSettings) -> FitResult:
    """Train the model; add to its dispersion what the validation spots ask for; see how much of them is explained."""
    result = train(model, spots, split, settings)
    where: dict[str, Any] = {
        "batch_size": int(result.notes.get("batch_size", settings.training.batch_size or 1)),
        "device": pick_device(str(settings.training.accelerator)),
        "seed": settings.seed,
        "progress": settings.progress,
    }
    found = {
        "dispersion_shift": recalibrate_dispersion(model, spots, split.validating, **where),
        "variance_explained": variance_explained(model, spots, split, **where),
    }
    notes = {name: value for name, value in found.items() if value is not None}
    return replace(result, notes={**result.notes, **notes})


def train(model: SpotModel, spots: Spots, split: Split, settings: FitSettings) -> FitResult:
    """Train `model` in place, and leave it with the weights of its best epoch, in eval mode, on the CPU.

    The best epoch is that of the lowest validation loss; without validation spots it is the last. Where a loss or a
    gradient is not finite, training stops, and the notes of the result say why; without validation the weights are then
    those of the last step.

    Parameters
    ----------
    model
        The model.
    spots
        All spots, with counts.
    split
        Which spots train and which validate.
    settings
        Loss, epochs, batch size, optimizer, device.

    Warns
    -----
    UserWarning
        If training stops early because it diverges, or starts again with smaller batches.

    Raises
    ------
    FloatingPointError
        If it diverges before its first epoch is complete.
    MemoryError
        If it does not fit into memory.
    """
    state = None if settings.checkpoint is None else settings.checkpoint.load()
    if state is not None:
        log.info(
            "going on after %d epochs, kept in %s", state["epoch"], settings.checkpoint and settings.checkpoint.path
        )
    best, notes = _best_so_far(split, settings, state), {}
    if state is None or not state["finished"]:
        attempts = iter([(best, state)])

        def run(smaller: FitSettings) -> None:
            nonlocal best
            # Only the first attempt goes on from what was kept: it was with larger batches.
            best, kept = next(attempts, (_best_so_far(split, smaller, None), None))
            _run(model, spots, split, smaller, best, kept)

        fitting = within_memory(model, settings, run)
        if fitting is not settings:
            notes["batch_size"] = fitting.training.batch_size
    elif not best.weights:
        model.load_state_dict(state["model"])
    if best.best_epoch < 0:
        raise RuntimeError("Training ended before its first epoch was complete, so there is no model to keep.")
    model.cpu()
    if best.weights:
        model.load_state_dict(best.weights)
    model.eval()
    stopped = {} if best.stopped is None else {"stopped": best.stopped}
    return replace(best.result(), notes={**notes, **stopped})


def _best_so_far(split: Split, settings: FitSettings, state: dict[str, Any] | None) -> BestEpoch:
    best = BestEpoch("validation_loss" if len(split.validating) else None, settings)
    if state is not None:
        best.load_state_dict(state["best"])
    return best


def _run(
    model: SpotModel, spots: Spots, split: Split, settings: FitSettings, best: BestEpoch, state: dict[str, Any] | None
) -> None:
    """Train, from the state that was kept if there is one.

    Raises
    ------
    KeyboardInterrupt, SystemExit
        If a signal ended it; what was saved has been logged.
    """
    training, kept = settings.training, settings.checkpoint
    loaders = _loaders(model, spots, split, settings)
    stopping: list[Callback] = []
    if training.patience:
        watched = best.monitor or "train_loss"
        stopping = [EarlyStopping(watched, patience=training.patience, check_on_train_epoch_end=True)]
    keeping = [] if kept is None else [KeepTraining(kept, state, best, stopping)]
    callbacks = [*stopping, *keeping, best, EpochSeed(settings.seed, loaders["train_dataloaders"].sampler)]
    try:
        with _quiet(), interruptible(), _algorithms_restored():
            trainer = _trainer(training, callbacks)
            names = Names(spots.names, settings.genes)
            trainer.fit(TrainingModule(model, settings.objective, training, names), **loaders)
    except Diverged as diverged:
        best.stop(model, str(diverged), training)
    except (Interrupted, SIGTERMException) as caught:
        # An exception that a signal raises within a finalizer is lost; Lightning then ends the batch by its own.
        interruption = caught if isinstance(caught, Interrupted) else Interrupted(signal.SIGTERM)
        message = f"Training was {interruption} after {len(best.rows)} whole epochs. {_saved(best, kept)}"
        log.warning("%s", message)
        interruption.leave(message)


def _saved(best: BestEpoch, kept: TrainingCheckpoint | None) -> str:
    if kept is None:
        return "Nothing was saved: with checkpoint_dir= in training= the same call goes on from the last whole epoch."
    if not kept.path.exists():
        return f"There is nothing in '{kept.folder}' to go on from yet."
    return (
        f"The same call goes on from the last whole epoch, in '{kept.path}'; the best model so far, that of epoch "
        f"{best.best_epoch}, is in '{kept.folder / BEST}'."
    )


def _loaders(model: SpotModel, spots: Spots, split: Split, settings: FitSettings) -> dict[str, Any]:
    size, devices = int(settings.training.batch_size or 1), int(settings.training.devices or 1)
    loaders: dict[str, Any] = {}
    for name, members in (("train", split.training), ("val", split.validating)):
        if not len(members):
            continue
        seed = settings.seed if name == "train" else None
        sampler: BlockSampler | TileSampler | DealtSampler
        data: Dataset[SpotBatch]
        if model.context.kind == "tile":
            data = on_tiles = TileBatches(spots, members, owned=seed is None)
            sampler = TileSampler(tiles_of(spots, on_tiles.members, owned=seed is None), size, seed)
        else:
            data, sampler = SpotBlocks(spots, model.context), BlockSampler(spots, members, model.context, size, seed)
        if devices > 1:
            data, sampler = DealtBatches(data), DealtSampler(sampler, place_among(devices))
        loaders[f"{name}_dataloaders"] = DataLoader(data, sampler=sampler, batch_size=None)
    return loaders


def _trainer(training: Training, callbacks: list[Callback]) -> L.Trainer:
    devices = int(training.devices or 1)
    machines = n_machines(devices)
    return L.Trainer(
        max_epochs=training.max_epochs,
        accelerator=str(training.accelerator),
        devices=devices // machines,
        num_nodes=machines,
        use_distributed_sampler=False,
        precision=training.precision,
        deterministic=training.deterministic or None,
        accumulate_grad_batches=int(training.accumulate or 1),
        gradient_clip_val=training.clip or None,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
