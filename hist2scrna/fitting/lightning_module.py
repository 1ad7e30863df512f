"""One model in training, as Lightning takes it: steps, learning rates, and views of the patches."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint

from hist2scrna.fitting.augment import PatchAugmentation, SectionView, TileAugmentation
from hist2scrna.fitting.diverged import Diverged, Names, place_of_gradient, place_of_loss

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from hist2scrna.fitting.objective import Objective
    from hist2scrna.models.contract import Prediction, SpotBatch, SpotModel
    from hist2scrna.models.training import Training

# Spots of a section beyond which a model that reads it whole computes activations again in the backward pass. Other
# models have blocks, of a size that the user sets.
LARGE_SECTION = 512


def learning_rate_factor(step: int, steps: int) -> float:
    """Rise over the first twentieth of the steps, then fall along a cosine to one hundredth at the last."""
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    fallen = min(1.0, (step - rise) / max(1, steps - rise))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fallen))


def make_optimizer(model: SpotModel, training: Training) -> torch.optim.Optimizer:
    """Return the optimizer of the weights that learn.

    Decay shrinks maps, not offsets: biases, norms and dispersions start at the data's own means. `decay_offsets` decays
    these too, as the optimizers of PyTorch do by themselves.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in learning if p.ndim > 1 or training.decay_offsets]
    offsets = [p for p in learning if p.ndim <= 1 and not training.decay_offsets]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": offsets, "weight_decay": 0.0},
    ]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[str(training.optimizer)]
    return kind([g for g in groups if g["params"]], lr=float(training.lr or 0))


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


class TrainingModule(L.LightningModule):
    """A model with its objective and its training settings."""

    def __init__(self, model: SpotModel, objective: Objective, training: Training, names: Names | None = None) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.settings = training
        self.last: SpotBatch | None = None
        self.names = Names() if names is None else names
        on_tiles = model.context.kind == "tile"
        self.augmentation = (TileAugmentation() if on_tiles else PatchAugmentation()) if training.augment else None
        self.n_views = model.n_views if "distillation" in objective.extra and model.needs == "patches" else 0
        self.view = SectionView() if model.context.kind == "section" else PatchAugmentation()

    def transfer_batch_to_device(self, batch: SpotBatch, device: torch.device, dataloader_idx: int) -> SpotBatch:
        """Move a batch."""
        return batch.to(device, non_blocking=True)

    def training_step(self, batch: SpotBatch, batch_idx: int) -> Tensor:
        """Return the loss of an augmented batch."""
        if self.augmentation is not None:
            batch = self.augmentation(batch)
        self.last = batch
        prediction = self._predict(batch)
        prediction.views = [self._predict(batch, self.view) for _ in range(self.n_views)]
        return self._log_terms(prediction, batch, "train")

    def _predict(self, batch: SpotBatch, view: Callable[[SpotBatch], SpotBatch] | None = None) -> Prediction:
        """Predict a batch, or a view of it; of a large section, activations are computed again when they are needed."""

        def predict() -> Prediction:
            return self.model(batch if view is None else view(batch))

        if self.model.context.kind != "section" or len(batch.section) <= LARGE_SECTION:
            return predict()
        contexts = partial(_recomputing, self.model)
        return checkpoint(predict, use_reentrant=False, context_fn=contexts)

    def validation_step(self, batch: SpotBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch as it is."""
        return self._log_terms(self.model(batch), batch, "validation")

    def _log_terms(self, prediction: Prediction, batch: SpotBatch, stage: str) -> Tensor:
        terms = self.objective(prediction, batch)
        # Averaged over devices, so that all agree on the best epoch. Lightning divides the sum of the weights by the
        # number of processes, in whole numbers: of a multiple of it nothing is lost.
        weight = 0 if batch.spare else batch.n_core * self.trainer.world_size
        for name, value in terms.items():
            self.log(f"{stage}_{name}", value.detach(), on_step=False, on_epoch=True, batch_size=weight, sync_dist=True)
        finite = bool(torch.isfinite(terms["loss"]))
        # All stop together: one that waited for a process that stopped would wait forever.
        if not self.trainer.strategy.reduce_boolean_decision(finite):
            epoch = f"in epoch {self.current_epoch}"
            if finite:
                raise Diverged(f"The {stage} loss of another process is not finite {epoch}")
            where = place_of_loss(terms, prediction, batch, self.names)
            raise Diverged(f"The {stage} loss is {terms['loss'].item()} {epoch}, of {where}")
        return terms["loss"] * 0 if batch.spare else terms["loss"]

    def on_after_backward(self) -> None:
        """Refuse a gradient that is not finite before a step is made along it; with 16 bits the scaler skips it."""
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        if self.settings.precision == "16-mixed" or torch.isfinite(get_total_norm(gradients.values())):
            return
        first = next((name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()), None)
        if first is None or self.last is None:
            # Their norm alone is beyond float32: clipping makes them zero.
            return
        # The graph of the loss is gone after the backward pass.
        prediction = self.model(self.last)
        where = place_of_gradient(self.objective(prediction, self.last), prediction, self.last, self.names)
        of = "" if where is None else f", of {where}"
        raise Diverged(f"The gradient of parameter {first!r} is not finite in epoch {self.current_epoch}{of}")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return optimizer and schedule."""
        optimizer = make_optimizer(self.model, self.settings)
        if self.settings.schedule == "none":
            return optimizer
        if self.settings.schedule == "step":
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 50, gamma=0.9)}
        if self.settings.schedule == "linear":
            epochs = int(self.settings.max_epochs or 1)
            return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, lambda epoch: 1 - epoch / epochs)}
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = LambdaLR(optimizer, partial(learning_rate_factor, steps=steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
