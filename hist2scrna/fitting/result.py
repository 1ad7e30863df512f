"""What a fitter receives in addition to a model and its spots, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from hist2scrna.messages import percent

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from hist2scrna.fitting.checkpoint import TrainingCheckpoint
    from hist2scrna.fitting.closed_form.donors import DonorCounts
    from hist2scrna.fitting.objective import Objective
    from hist2scrna.models.training import Training


class Split(NamedTuple):
    """Numbers of the spots that train and of those that validate, and a sentence that says how they were split."""

    training: NDArray[np.int64]
    validating: NDArray[np.int64]
    how: str


@dataclass(frozen=True)
class FitSettings:
    """How to fit.

    Attributes
    ----------
    training
        Epochs, optimizer, device and the like, complete: no field is None but `precision` and `checkpoint_dir`.
    objective
        What training by gradient minimizes.
    seed
        Of everything random.
    progress
        Show a bar.
    expression
        Counts of further donors, without images.
    on_best
        Called with the result so far each time that an epoch is the best; None: nobody asks.
    checkpoint
        Where training is kept after each epoch, and goes on from; None: nowhere.
    look_again
        Called at every step, so that the number of threads follows other programs
        (:func:`~hist2scrna.processors.threads`); None: it stays.
    genes
        Names of the genes, for messages.
    """

    training: Training
    objective: Objective
    seed: int = 0
    progress: bool = True
    expression: tuple[DonorCounts, ...] = ()
    on_best: Callable[[FitResult], None] | None = None
    checkpoint: TrainingCheckpoint | None = None
    look_again: Callable[[], None] | None = None
    genes: Sequence[str] = ()


@dataclass(frozen=True)
class FitResult:
    """What came of a fit; the model itself was changed in place.

    Attributes
    ----------
    history
        One row an epoch, or a penalty that was tried, with `train_loss`, or `validation_loss`, and `seconds`.
    best_epoch
        The row whose weights the model has.
    seconds
        How long it took.
    validation
        What else was left out, in words, for instance by cross-validation.
    notes
        What else the model's card should tell. `stopped`: where training diverged; `batch_size`: that which fitted into
        memory, where another was asked for. `variance_explained`: share of the variance of spots left out, in
        turn or for validation.
    """

    history: pd.DataFrame
    best_epoch: int
    seconds: float
    validation: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


# Share of the variance of tissue left out below which a fit is called useless.
LEAST_EXPLAINED = 0.01


def useless(variance_explained: float | None) -> str | None:
    """Return what it means that a fit explains nothing of tissue left out; None where it does, or nobody knows."""
    if variance_explained is None or variance_explained > LEAST_EXPLAINED:
        return None
    return (
        f"The fit explains nothing of the variance of tissue that was left out ({percent(variance_explained)}): judged "
        "by that, it predicts other tissue no better than the mean of the training, which is the same for every spot"
    )
