"""How a model is trained: the one place where epochs, optimizer, device and the like are spelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

from hist2scrna.arguments import require_flag, require_number, require_whole, shown
from hist2scrna.messages import fields_known, require_known

Schedule = Literal["cosine", "step", "linear", "none"]
Optimizer = Literal["adamw", "adam"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
# Fields that are counted, and the least that each may be; those that are true or false; and those that are chosen.
LEAST = {"max_epochs": 1, "batch_size": 1, "accumulate": 1, "devices": 1, "patience": 0}
FLAGS = {"decay_offsets", "augment", "deterministic"}
CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": get_args(Schedule),
    "optimizer": get_args(Optimizer),
    "precision": get_args(Precision),
    "accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
}


@fields_known("field of `training`")
@dataclass(frozen=True)
class Training:
    """How to train. Every field that is None takes the default of the model, which may be its published schedule.

    Attributes
    ----------
    max_epochs
        Largest number of epochs. Default: 50.
    patience
        Training stops after so many epochs without a better validation loss; 0: never early. Default: 10.
    batch_size
        Largest number of spots of a batch, of which each device has one at a step. Default: 64.
    lr
        Learning rate. Default: 1e-4.
    schedule
        How the learning rate changes. `"cosine"`: it rises over the first twentieth of the steps, then falls along a
        cosine to one hundredth; `"linear"`: it falls along a line, from epoch to epoch; `"step"`: it falls by a tenth
        every 50 epochs; `"none"`: it stays. Default: `"cosine"`.
    optimizer
        `"adamw"` or `"adam"`. Default: `"adamw"`.
    weight_decay
        Decay of the weights: with `"adamw"` apart from the gradient, with `"adam"` added to it. Default: 0.01.
    decay_offsets
        Decay biases and norms too. Default: False.
    clip
        Largest norm of the gradient; 0: it is not clipped. Default: 1.
    precision
        `"32-true"`, `"bf16-mixed"` or `"16-mixed"`. The likelihood is always computed in float32. Default: bfloat16
        mixed on a GPU that has it, else float32.
    accumulate
        Number of batches of each device whose gradients are averaged before a step. Default: 1.
    augment
        Vary the training patches at random: networks see them flipped, turned and with other colors; the kernel model
        encodes each twice, with other stains, turned and blurred, and gives less weight to features that then differ,
        which doubles the time. Default: True, except for the published models.
    alpha
        Weight of the cross-entropy of the cell type in the loss. Default: 0.1.
    validation
        Share of the sections to hold out (of the groups, where there are three or more; with fewer than three
        sections, of each section one spatial block, with a gap as wide as what the model sees), or the names of the
        sections, or 0. Default: 0.1; 0 for the models in closed form, which choose their penalties by
        cross-validation.
    accelerator
        `"auto"`, `"cpu"`, `"gpu"`, `"cuda"` or `"mps"`. Default: `"auto"`.
    devices
        Number of devices, on all machines together. Default: 1. More than one need a process each: start your script
        with `torchrun --nproc-per-node 2 script.py`, the shell with `torchrun --nproc-per-node 2 --no-python hist2scrna
        fit ...`. The batches of an epoch are dealt to the processes in turn: two devices learn what one learns with
        `accumulate=2`, but for what each draws at random (dropout, augmentation).
    deterministic
        Train with operations alone that give the same numbers each time on the same GPU, which is slower; an operation
        that has no such form is an error. On a CPU the numbers are the same in any case. Default: False.
    checkpoint_dir
        Folder in which training is kept after each epoch: the best model so far as `best/`, and all that it takes to go
        on as `last.safetensors`. After a kill or an interruption the same call goes on from the last whole epoch, and
        ends (same machine, CPU, `"32-true"`) with the weights that it would have had; once it has ended, it returns
        the same model again. Models in closed form keep `best/` alone. Default: nothing is kept.

    Raises
    ------
    ValueError
        If a value is out of range, or a name is not known.

    Examples
    --------
    >>> training = h2s.Training(max_epochs=20, lr=3e-4)
    >>> training.given
    {'max_epochs': 20, 'lr': 0.0003}
    """

    max_epochs: int | None = None
    patience: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    schedule: Schedule | None = None
    optimizer: Optimizer | None = None
    weight_decay: float | None = None
    decay_offsets: bool | None = None
    clip: float | None = None
    precision: Precision | None = None
    accumulate: int | None = None
    augment: bool | None = None
    alpha: float | None = None
    validation: float | Sequence[str] | None = None
    accelerator: str | None = None
    devices: int | None = None
    deterministic: bool | None = None
    checkpoint_dir: str | Path | None = None

    def __post_init__(self) -> None:
        given = self.given
        for name, least in LEAST.items():
            if name in given:
                require_whole(name, given[name], least)
        for name in given.keys() & {"weight_decay", "clip", "alpha"}:
            require_number(name, given[name], 0)
        if "lr" in given:
            require_number("lr", self.lr, 0, above=True)
        for name in given.keys() & FLAGS:
            require_flag(name, given[name])
        for name in given.keys() & CHOICES.keys():
            require_known(f"`{name}`", given[name], CHOICES[name])
        if not isinstance(self.checkpoint_dir, str | Path | None):
            raise ValueError(f"Expected `checkpoint_dir` to be the path of a folder, found {self.checkpoint_dir!r}.")
        _check_validation(self.validation)

    @property
    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def filled_by(self, defaults: Training) -> Training:
        """Return this with the values of `defaults` in place of None."""
        return replace(defaults, **self.given)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as values that JSON can hold."""
        values = asdict(self)
        if values["checkpoint_dir"] is not None:
            values["checkpoint_dir"] = str(values["checkpoint_dir"])
        if not isinstance(values["validation"], int | float | None):
            values["validation"] = [*values["validation"]]
        return values


def _check_validation(validation: Any) -> None:
    """Refuse what is neither a share nor names of sections."""
    if isinstance(validation, Real) and not isinstance(validation, bool) and 0 <= float(validation) < 1:
        return
    words = [validation] if isinstance(validation, str) else validation
    named = isinstance(words, Iterable) and not isinstance(words, Mapping) and len(words := [*words]) > 0
    if validation is None or (named and all(isinstance(word, str) for word in words)):
        return
    raise ValueError(
        "Expected `validation` to be a share of at least 0 and less than 1, or names of sections, found "
        f"{shown(validation)}."
    )


FIELDS = tuple(f.name for f in fields(Training))
# Of every model, where its own entry in the registry says nothing else.
DEFAULTS = Training(
    max_epochs=50,
    patience=10,
    batch_size=64,
    lr=1e-4,
    schedule="cosine",
    optimizer="adamw",
    weight_decay=0.01,
    decay_offsets=False,
    clip=1.0,
    accumulate=1,
    augment=True,
    alpha=0.1,
    validation=0.1,
    accelerator="auto",
    devices=1,
    deterministic=False,
)


def as_training(training: Training | Mapping[str, Any] | None) -> Training:
    """Return the `Training` that a user gave as one, as a dictionary of its fields, or not at all.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If a field is not known; the nearest known one is named.
    """
    if training is None:
        return Training()
    if isinstance(training, Training):
        return training
    if not isinstance(training, Mapping):
        raise TypeError(f"Expected `training` to be a Training or a dictionary, found {type(training).__name__}.")
    return Training(**training)
