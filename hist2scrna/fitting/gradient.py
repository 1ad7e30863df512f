"""Training by gradient, on Lightning: early stopping, the best epoch, going on after a kill; then the dispersion."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.utils.data import DataLoader

from hist2scrna.encoders.precision import has_bfloat16
from hist2scrna.fitting.batches import BlockSampler, SpotBlocks
from hist2scrna.fitting.checkpoint import BEST, TrainingCheckpoint
from hist2scrna.fitting.epochs import BestEpoch, EpochSeed, KeepTraining
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.interruption import Interrupted, interruptible
from hist2scrna.fitting.lightning_module import TrainingModule
from hist2scrna.fitting.recalibration import recalibrate_dispersion
from hist2scrna.fitting.result import FitResult, FitSettings, Split
from hist2scrna.fitting.tile_batches import TileBatches, TileSampler, tiles_of

if TYPE_CHECKING:
    from hist2scrna.models.contract import SpotModel
    from hist2scrna.models.training import Precision, Training
    from hist2scrna.spots.read import Spots


log = logging.getLogger(__name__)


def default_precision(accelerator: str) -> Precision:
    """Return bfloat16 mixed precision on a GPU that has it, full precision elsewhere."""
    device = pick_device(accelerator)
    return "bf16-mixed" if device.type == "cuda" and has_bfloat16(device) else "32-true"


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


def fit_by_gradient(model: SpotModel, spots: Spots, split: Split, settings: FitSettings) -> FitResult:
    """Train the model, then add to its dispersion what the validation spots ask for."""
    result = train(model, spots, split, settings)
    shift = recalibrate_dispersion(
        model,
        spots,
        split.validating,
        batch_size=int(settings.training.batch_size or 1),
        device=pick_device(str(settings.training.accelerator)),
        seed=settings.seed,
        progress=settings.progress,
    )
    return result if shift is None else replace(result, notes={"dispersion_shift": shift})


def train(model: SpotModel, spots: Spots, split: Split, settings: FitSettings) -> FitResult:
    """Train `model` in place, and leave it with the weights of its best epoch, in eval mode, on the CPU.

    The best epoch is that of the lowest validation loss; without validation spots it is the last.

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
    """
    monitor = "validation_loss" if len(split.validating) else None
    best = BestEpoch(monitor, settings)
    state = None if settings.checkpoint is None else settings.checkpoint.load()
    if state is not None:
        best.load_state_dict(state["best"])
        log.info(
            "going on after %d epochs, kept in %s", state["epoch"], settings.checkpoint and settings.checkpoint.path
        )
    if state is None or not state["finished"]:
        _run(model, spots, split, settings, best, state)
    elif not best.weights:
        model.load_state_dict(state["model"])
    if best.best_epoch < 0:
        raise RuntimeError("Training ended before its first epoch was complete, so there is no model to keep.")
    model.cpu()
    if best.weights:
        model.load_state_dict(best.weights)
    model.eval()
    return best.result()


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
        with _quiet(), interruptible():
            trainer = _trainer(training, callbacks)
            trainer.fit(TrainingModule(model, settings.objective, training), **loaders)
    except Interrupted as interruption:
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
    size = int(settings.training.batch_size or 1)
    if model.context.kind == "tile":
        return _tile_loaders(spots, split, size, settings.seed)
    data = SpotBlocks(spots, model.context)
    sampler = BlockSampler(spots, split.training, model.context, size, seed=settings.seed)
    loaders: dict[str, Any] = {"train_dataloaders": DataLoader(data, sampler=sampler, batch_size=None)}
    if len(split.validating):
        fixed = BlockSampler(spots, split.validating, model.context, size)
        loaders["val_dataloaders"] = DataLoader(data, sampler=fixed, batch_size=None)
    return loaders


def _tile_loaders(spots: Spots, split: Split, size: int, seed: int) -> dict[str, Any]:
    loaders: dict[str, Any] = {}
    for name, members, owned in (("train", split.training, False), ("val", split.validating, True)):
        if len(members):
            data = TileBatches(spots, members, owned=owned)
            tiles = tiles_of(spots, data.members, owned=owned)
            sampler = TileSampler(tiles, size, None if owned else seed)
            loaders[f"{name}_dataloaders"] = DataLoader(data, sampler=sampler, batch_size=None)
    return loaders


def _trainer(training: Training, callbacks: list[Callback]) -> L.Trainer:
    return L.Trainer(
        max_epochs=training.max_epochs,
        accelerator=str(training.accelerator),
        devices=int(training.devices or 1),
        precision=training.precision,
        accumulate_grad_batches=int(training.accumulate or 1),
        gradient_clip_val=training.clip or None,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
