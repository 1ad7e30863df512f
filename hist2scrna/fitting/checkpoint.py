"""Training as it stands after an epoch, in a file from which the same call goes on; no pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from hist2scrna.encoders.weights import state_sha256, write_tensors
from hist2scrna.files import clear_scratch, replaced_whole
from hist2scrna.fitting.identity import differences

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

FORMAT_VERSION = 1
# In the folder that the user names: training after the last epoch, and the model of the best.
LAST, BEST = "last.safetensors", "best"
# Entries of the file's header.
STATE, IDENTITY, CHECKSUM = "state", "training", "sha256"
# How tensors, and dictionaries whose keys are no words, are written in JSON.
TENSOR, ITEMS = "__tensor__", "__items__"
DAMAGE = (
    SafetensorError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


class TrainingCheckpoint:
    """The file in a user's folder that holds weights, optimizer, schedule, history and the best weights so far.

    Parameters
    ----------
    folder
        The folder; created when the first epoch is kept.
    identity
        What must be the same for training to go on; plain values.

    Attributes
    ----------
    folder
        The folder.
    path
        The file in it.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LAST
        self.identity = json.loads(json.dumps({"format_version": FORMAT_VERSION, **identity}))

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep the state of training: nested dictionaries and lists of tensors and plain values."""
        tensors: dict[str, Tensor] = {}
        text = json.dumps(_packed(state, tensors))
        header = {STATE: text, IDENTITY: json.dumps(self.identity), CHECKSUM: _checksum(text, tensors)}
        with replaced_whole(self.path) as scratch:
            write_tensors(tensors, scratch, header)

    def load(self) -> dict[str, Any] | None:
        """Return the state that was kept, its tensors on the CPU; None if there is none.

        Raises
        ------
        ValueError
            If it is of another training, or damaged.
        """
        clear_scratch(self.path)
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                header = file.metadata()
                theirs = json.loads(header[IDENTITY])
                differing = differences(theirs, self.identity)
                tensors = {} if differing else {name: file.get_tensor(name) for name in file.keys()}
            if not differing and _checksum(header[STATE], tensors) != header[CHECKSUM]:
                raise ValueError("its SHA-256 is another")
            state = None if differing else _unpacked(json.loads(header[STATE]), tensors)
        except DAMAGE as error:
            raise ValueError(
                f"'{self.path}' is damaged: {error}. Delete it to train from the beginning, or pass another "
                "checkpoint_dir=."
            ) from error
        if differing:
            raise ValueError(
                f"'{self.path}' was kept by a training that differs from this one: {'; '.join(differing)}. Call it as "
                "before to go on, pass another checkpoint_dir=, or delete the file to train from the beginning."
            )
        assert isinstance(state, dict)
        return state


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON has it; tensors are put aside under a number."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # Of its own: safetensors refuses those that share memory, as tied weights do.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {TENSOR: name}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _packed(item, tensors) for key, item in value.items()}
        return {ITEMS: [[_packed(key, tensors), _packed(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_packed(item, tensors) for item in value]
    return value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {TENSOR}:
        return tensors[value[TENSOR]]
    if set(value) == {ITEMS}:
        return {key: _unpacked(item, tensors) for key, item in value[ITEMS]}
    return {key: _unpacked(item, tensors) for key, item in value.items()}


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{text}\n{state_sha256(tensors)}".encode()).hexdigest()
