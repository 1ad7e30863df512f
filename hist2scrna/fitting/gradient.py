"""Training by gradient, on Lightning: early stopping, the best epoch, history and progress; then the dispersion."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from hist2scrna.encoders.precision import has_bfloat16
from hist2scrna.fitting.batches import BlockSampler, SpotBlocks
from hist2scrna.fitting.duration import Duration
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.lightning_module import TrainingModule
from hist2scrna.fitting.recalibration import recalibrate_dispersion
from hist2scrna.fitting.result import FitResult, FitSettings, Split
from hist2scrna.fitting.tile_batches import TileBatches, TileSampler, tiles_of

if TYPE_CHECKING:
    from hist2scrna.models.contract import SpotBatch, SpotModel
    from hist2scrna.models.training import Precision, Training
    from hist2scrna.spots.read import Spots


class _BestEpoch(Callback):
    """Keep history, the weights of the best epoch (the last, without a monitor), and one line of progress an epoch."""

    def __init__(self, monitor: str | None, settings: FitSettings) -> None:
        self.monitor = monitor
        self.best_value = float("inf")
        self.best_epoch = -1
        self.weights: dict[str, Tensor] = {}
        self.rows: list[dict[str, float]] = []
        self.progress = settings.progress
        self.on_best = settings.on_best
        self.look_again = settings.look_again

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(total=trainer.max_epochs, desc="training", unit="epoch", disable=not self.progress)
        self.start = time.perf_counter()
        epochs = int(trainer.max_epochs or 1)
        self.duration = Duration(f"training for {epochs} epochs, or fewer, on {pl_module.device}", epochs)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: SpotBatch, batch_idx: int
    ) -> None:
        if self.look_again is not None:
            self.look_again()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, **metrics, "seconds": time.perf_counter() - self.start})
        value = -trainer.current_epoch if self.monitor is None else metrics[self.monitor]
        if value < self.best_value:
            self.best_value, self.best_epoch = value, trainer.current_epoch
            model = pl_module.model
            assert isinstance(model, torch.nn.Module)
            if self.monitor is not None:
                self.weights = {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
            if self.on_best is not None:
                self.on_best(self.result())
        shown = {k: f"{v:.4f}" for k, v in metrics.items() if k.endswith("_loss")}
        self.bar.set_postfix({**shown, "best": self.best_epoch})
        self.bar.update()
        self.duration.step(trainer.current_epoch + 1)

    def result(self) -> FitResult:
        """Return the result so far."""
        return FitResult(pd.DataFrame(self.rows).set_index("epoch"), self.best_epoch, time.perf_counter() - self.start)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


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
    training = settings.training
    monitor = "validation_loss" if len(split.validating) else None
    best = _BestEpoch(monitor, settings)
    with _quiet():
        trainer = _trainer(training, _callbacks(best, monitor, training))
        module = TrainingModule(model, settings.objective, training)
        trainer.fit(module, **_loaders(model, spots, split, settings))
    if best.best_epoch < 0:
        raise RuntimeError("Training ended before its first epoch was complete, so there is no model to keep.")
    model.cpu()
    if best.weights:
        model.load_state_dict(best.weights)
    model.eval()
    return best.result()


def _callbacks(best: _BestEpoch, monitor: str | None, training: Training) -> list[Callback]:
    if not training.patience:
        return [best]
    watched = monitor or "train_loss"
    return [EarlyStopping(watched, patience=training.patience, check_on_train_epoch_end=True), best]


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
