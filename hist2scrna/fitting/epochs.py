"""What is done after each epoch of a training by gradient: history, the best weights, progress, and the checkpoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from hist2scrna.fitting.duration import Duration
from hist2scrna.fitting.result import FitResult
from hist2scrna.messages import warn_user

if TYPE_CHECKING:
    from hist2scrna.fitting.batches import BlockSampler
    from hist2scrna.fitting.checkpoint import TrainingCheckpoint
    from hist2scrna.fitting.dealt import DealtSampler
    from hist2scrna.fitting.result import FitSettings
    from hist2scrna.fitting.tile_batches import TileSampler
    from hist2scrna.models.contract import SpotBatch
    from hist2scrna.models.training import Training


class BestEpoch(Callback):
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
        self.before = 0.0
        self.stopped: str | None = None

    def stop(self, model: torch.nn.Module, reason: str, training: Training) -> None:
        """Note why training ended early, and say which weights it ends with.

        Raises
        ------
        FloatingPointError
            If there are none: no epoch was complete, or the model holds values that are not finite.
        """
        advice = f"Lower lr= (it is {training.lr:g}) in training=, or pass precision='32-true' there."
        here = all(torch.isfinite(value).all() for value in model.state_dict().values() if value.is_floating_point())
        if self.best_epoch < 0 or not (self.weights or here):
            raise FloatingPointError(f"{reason}. {advice}")
        self.stopped = reason
        kept = f"those of epoch {self.best_epoch}, the best" if self.weights else "those of the last finite step"
        warn_user(f"Training stops after {len(self.rows)} epochs. {reason}. The weights are {kept}. {advice}")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the bar and the clock."""
        from tqdm.auto import tqdm

        self.first, epochs = len(self.rows), int(trainer.max_epochs or 1)
        self.bar = tqdm(total=epochs, initial=self.first, desc="training", unit="epoch", disable=not self.progress)
        self.start = time.perf_counter() - self.before
        left = epochs - self.first
        self.duration = Duration(f"training for {left} epochs, or fewer, on {pl_module.device}", left)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: SpotBatch, batch_idx: int
    ) -> None:
        """Let the number of threads follow other programs."""
        if self.look_again is not None:
            self.look_again()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the losses, and the weights if they are the best."""
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, **metrics, "seconds": self.seconds})
        value = -trainer.current_epoch if self.monitor is None else metrics[self.monitor]
        if value < self.best_value:
            self.best_value, self.best_epoch = value, trainer.current_epoch
            if self.monitor is not None:
                self.weights = {k: v.detach().to("cpu", copy=True) for k, v in _model(pl_module).state_dict().items()}
            if self.on_best is not None:
                self.on_best(self.result())
        shown = {k: f"{v:.4f}" for k, v in metrics.items() if k.endswith("_loss")}
        self.bar.set_postfix({**shown, "best": self.best_epoch})
        self.bar.update()
        self.duration.step(trainer.current_epoch + 1 - self.first)

    @property
    def seconds(self) -> float:
        """Time of training so far, that before an interruption included."""
        return time.perf_counter() - self.start if hasattr(self, "start") else self.before

    def result(self) -> FitResult:
        """Return the result so far."""
        return FitResult(pd.DataFrame(self.rows).set_index("epoch"), self.best_epoch, self.seconds)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bar."""
        if hasattr(self, "bar"):
            self.bar.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into the checkpoint."""
        names = ("best_value", "best_epoch", "weights", "rows")
        return {**{name: getattr(self, name) for name in names}, "before": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        vars(self).update(state_dict)


class EpochSeed(Callback):
    """Draw each epoch from a seed of its own: it is the same after those before it and after a checkpoint.

    Each of several processes draws views and dropout of its own; the blocks, which all draw, are the same.
    """

    def __init__(self, seed: int, sampler: BlockSampler | TileSampler | DealtSampler) -> None:
        self.seed = seed
        self.sampler = sampler

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seed blocks, views and dropout."""
        self.sampler.epoch = trainer.current_epoch
        rank = [trainer.global_rank] if trainer.global_rank else []
        drawn = np.random.SeedSequence([self.seed, trainer.current_epoch, *rank]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(drawn))


class KeepTraining(Callback):
    """Keep the whole state of training after each epoch, and put it back before the first.

    Lightning's own way back from a checkpoint goes through the counters of all its loops, which repeat an epoch's end,
    or skip its validation, by where in the epoch they were stored. Only the number of the epoch is set here.
    """

    def __init__(
        self, checkpoint: TrainingCheckpoint, state: dict[str, Any] | None, best: BestEpoch, stopping: list[Callback]
    ) -> None:
        self.checkpoint = checkpoint
        self.state = state
        self.first = 0 if state is None else int(state["epoch"])
        self.best = best
        self.stopping = stopping

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the state back."""
        if self.state is None:
            return
        _model(pl_module).load_state_dict(self.state["model"])
        for held, stored in zip(self._stateful(trainer), self.state["held"], strict=True):
            held.load_state_dict(stored)
        progress = trainer.fit_loop.epoch_progress
        for counts in (progress.current, progress.total):
            vars(counts).update(dict.fromkeys(("ready", "started", "processed", "completed"), self.first))
        self.state = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep what the epoch before has come to: only now have schedules moved on, and early stopping decided."""
        if trainer.current_epoch > self.first:
            self._keep(trainer, pl_module, finished=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the end."""
        self._keep(trainer, pl_module, finished=True)

    def _keep(self, trainer: L.Trainer, pl_module: L.LightningModule, *, finished: bool) -> None:
        if trainer.is_global_zero:
            self.checkpoint.save(
                {
                    "epoch": trainer.current_epoch,
                    "finished": finished,
                    "model": _model(pl_module).state_dict(),
                    "best": self.best.state_dict(),
                    "held": [held.state_dict() for held in self._stateful(trainer)],
                }
            )

    def _stateful(self, trainer: L.Trainer) -> list[Any]:
        """Return what changes from epoch to epoch besides the model."""
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        return [*trainer.optimizers, *schedules, *self.stopping, trainer.precision_plugin]


def _model(pl_module: L.LightningModule) -> torch.nn.Module:
    model = pl_module.model
    assert isinstance(model, torch.nn.Module)
    return model
