"""The training loop, on Lightning: steps, early stopping, the best epoch, history and progress."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from hist2scrna.fitting.augment import PatchAugmentation, SectionView
from hist2scrna.fitting.batches import BlockSampler, SpotBlocks
from hist2scrna.fitting.inference import has_bfloat16, pick_device

if TYPE_CHECKING:
    import numpy as np
    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from numpy.typing import NDArray

    from hist2scrna.fitting.objective import Objective
    from hist2scrna.models.contract import Prediction, SpotBatch, SpotModel
    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

# Spots of a section beyond which a model that reads it whole computes activations again in the backward pass. Other
# models have blocks, of a size that the user sets.
LARGE_SECTION = 512


@dataclass(frozen=True)
class Schedule:
    """How to train: what :func:`hist2scrna.tl.fit` takes, and what the model's recipe adds, under the same names."""

    max_epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    patience: int | None
    optimizer: str
    decay: str
    clip: float | None
    precision: str
    accumulate: int
    accelerator: str
    devices: int
    seed: int
    augment: bool
    progress: bool


@dataclass
class Trained:
    """History of a run, one row an epoch, and the epoch whose weights the model has."""

    history: pd.DataFrame
    best_epoch: int
    seconds: float


def learning_rate_factor(step: int, steps: int) -> float:
    """Rise over the first twentieth of the steps, then fall along a cosine to one hundredth at the last."""
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


def _recomputing(
    model: torch.nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """Return the contexts of a first and of a repeated forward pass: the second leaves the batch statistics alone."""

    @contextlib.contextmanager
    def again() -> Iterator[None]:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        kept = [(m.momentum, m.num_batches_tracked) for m in norms]
        for norm in norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        try:
            yield
        finally:
            for norm, (momentum, tracked) in zip(norms, kept, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, tracked

    return contextlib.nullcontext(), again()


class _Training(L.LightningModule):
    def __init__(self, model: SpotModel, objective: Objective, schedule: Schedule) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.schedule = schedule
        self.augmentation = PatchAugmentation() if schedule.augment else None
        self.n_views = model.n_views if "distillation" in objective.extra and model.needs == "patches" else 0
        self.view = SectionView() if model.context.kind == "section" else PatchAugmentation()

    def transfer_batch_to_device(self, batch: SpotBatch, device: torch.device, dataloader_idx: int) -> SpotBatch:
        return batch.to(device, non_blocking=True)

    def training_step(self, batch: SpotBatch, batch_idx: int) -> Tensor:
        if self.augmentation is not None:
            batch = self.augmentation(batch)
        prediction = self._see(batch)
        prediction.views = [self._see(batch, self.view) for _ in range(self.n_views)]
        return self._score(prediction, batch, "train")

    def _see(self, batch: SpotBatch, view: Callable[[SpotBatch], SpotBatch] | None = None) -> Prediction:
        """Predict a batch, or a view of it; of a large section, activations are computed again when they are needed."""

        def predict() -> Prediction:
            return self.model(batch if view is None else view(batch))

        if self.model.context.kind != "section" or len(batch.section) <= LARGE_SECTION:
            return predict()
        contexts = partial(_recomputing, self.model)
        return checkpoint(predict, use_reentrant=False, context_fn=contexts)

    def validation_step(self, batch: SpotBatch, batch_idx: int) -> Tensor:
        return self._score(self.model(batch), batch, "validation")

    def _score(self, prediction: Prediction, batch: SpotBatch, stage: str) -> Tensor:
        terms = self.objective(prediction, batch)
        for name, value in terms.items():
            self.log(f"{stage}_{name}", value.detach(), on_step=False, on_epoch=True, batch_size=batch.n_core)
        if not torch.isfinite(terms["loss"]):
            raise FloatingPointError(
                f"The {stage} loss is {terms['loss'].item()} in epoch {self.current_epoch}. Lower lr= "
                f"(it is {self.schedule.lr:g}), or pass precision='32-true'."
            )
        return terms["loss"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Decay shrinks maps, not offsets: biases, norms and dispersions start at the data's own means.
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        offsets = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.schedule.weight_decay},
            {"params": offsets, "weight_decay": 0.0},
        ]
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.schedule.optimizer]
        optimizer = kind([g for g in groups if g["params"]], lr=self.schedule.lr)
        if self.schedule.decay == "none":
            return optimizer
        if self.schedule.decay == "step":
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 50, gamma=0.9)}
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_factor, steps=steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _BestEpoch(Callback):
    """Keep history, the weights of the best epoch (the last, without a monitor), and one line of progress an epoch."""

    def __init__(self, monitor: str | None, progress: bool, on_best: Callable[[Trained], None]) -> None:
        self.monitor = monitor
        self.best_value = float("inf")
        self.best_epoch = -1
        self.weights: dict[str, Tensor] = {}
        self.rows: list[dict[str, float]] = []
        self.progress = progress
        self.on_best = on_best

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(total=trainer.max_epochs, desc="training", unit="epoch", disable=not self.progress)
        self.start = time.perf_counter()

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
            self.on_best(self.run())
        shown = {k: f"{v:.4f}" for k, v in metrics.items() if k.endswith("_loss")}
        self.bar.set_postfix({**shown, "best": self.best_epoch})
        self.bar.update()

    def run(self) -> Trained:
        """Return the run so far."""
        return Trained(pd.DataFrame(self.rows).set_index("epoch"), self.best_epoch, time.perf_counter() - self.start)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


def default_precision(accelerator: str) -> str:
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


def train(
    model: SpotModel,
    spots: Spots,
    training: NDArray[np.int64],
    validating: NDArray[np.int64],
    objective: Objective,
    schedule: Schedule,
    on_best: Callable[[Trained], None],
) -> Trained:
    """Train `model` in place, and leave it with the weights of its best epoch, in eval mode, on the CPU.

    The best epoch is that of the lowest validation loss; without validation spots it is the last.

    Parameters
    ----------
    model
        The model.
    spots
        All spots, with counts.
    training, validating
        Numbers of the spots that train and that validate.
    objective
        The loss.
    schedule
        Epochs, batch size, optimizer, device.
    on_best
        Called with the run so far each time that an epoch is the best.
    """
    monitor = "validation_loss" if len(validating) else None
    best = _BestEpoch(monitor, schedule.progress, on_best)
    data = SpotBlocks(spots, model.context)
    sampler = BlockSampler(spots, training, model.context, schedule.batch_size, seed=schedule.seed)
    loaders: dict[str, Any] = {"train_dataloaders": DataLoader(data, sampler=sampler, batch_size=None)}
    if len(validating):
        fixed = BlockSampler(spots, validating, model.context, schedule.batch_size)
        loaders["val_dataloaders"] = DataLoader(data, sampler=fixed, batch_size=None)
    callbacks: list[Callback] = [best]
    if schedule.patience is not None:
        watched = monitor or "train_loss"
        callbacks.insert(0, EarlyStopping(watched, patience=schedule.patience, check_on_train_epoch_end=True))
    with _quiet():
        trainer = L.Trainer(
            max_epochs=schedule.max_epochs,
            accelerator=schedule.accelerator,
            devices=schedule.devices,
            precision=schedule.precision,  # type: ignore[arg-type]
            accumulate_grad_batches=schedule.accumulate,
            gradient_clip_val=schedule.clip,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(_Training(model, objective, schedule), **loaders)
    if best.best_epoch < 0:
        raise RuntimeError("Training ended before its first epoch was complete, so there is no model to keep.")
    model.cpu()
    if best.weights:
        model.load_state_dict(best.weights)
    model.eval()
    return best.run()
