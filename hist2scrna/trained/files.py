"""A fitted model in a folder: safetensors, JSON and CSV, no pickle."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_parameter_registration_hook

import hist2scrna
from hist2scrna.arguments import shown
from hist2scrna.encoders.weights import file_sha256, write_tensors
from hist2scrna.files import replaced_whole, require_own
from hist2scrna.fitting.processes import is_first_process
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.fitting.tissue import Tissue
from hist2scrna.images.patches import PatchGeometry
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.models.create import create_model
from hist2scrna.models.published import model_folder
from hist2scrna.models.registry import model_names
from hist2scrna.trained.card_fields import wrong_value
from hist2scrna.trained.fitted import FittedModel

if TYPE_CHECKING:
    from collections.abc import Iterator


FORMAT_VERSION = 1
WEIGHTS, REFERENCE, CARD, HISTORY = "model.safetensors", "training.safetensors", "model.json", "history.csv"
# Before the names of what tells unlike tissue, in the file of the training.
TISSUE = "tissue."
FILES = (WEIGHTS, REFERENCE, HISTORY)
FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "choice": str,
    "options": dict,
    "likelihood": str,
    "genes": list,
    "classes": list,
    "geometry": (dict, NoneType),
    "encoder": (dict, NoneType),
    "parameters": dict,
    "training": dict,
}
# Of values that are dictionaries, what every use of the model reads.
WITHIN = {
    "encoder": ("name", "version", "sha256", "by_name", "weights", "mean", "std"),
    "parameters": ("spatial_key", "seed"),
    "training": ("sections", "n_training", "n_validation", "validation", "monitor", "best_epoch"),
}
# Modules are built before some of their parameters are replaced or shared.
MOST_REPLACED = 4


class DamagedModel(Exception):
    """What is wrong with the files of a model."""


DAMAGE = (
    DamagedModel,
    UnicodeDecodeError,
    json.JSONDecodeError,
    KeyError,
    TypeError,
    AttributeError,
    SafetensorError,
    RuntimeError,
    RecursionError,
    pd.errors.ParserError,
    pd.errors.EmptyDataError,
)


def save_model(model: FittedModel, folder: Path, overwrite: bool) -> Path:
    """Write a model to a folder; a model that was there stays until the new one is whole.

    Of several processes that trained it together, the first writes.

    Raises
    ------
    FileExistsError
        If something is there already, and is no model, or may not be replaced, or holds other files.
    """
    if not is_first_process():
        return folder
    check_replaceable(folder, overwrite)
    with replaced_whole(folder, folder=True) as new:
        write_tensors(model.module.state_dict(), new / WEIGHTS)
        arrays = {**model.baselines.to_arrays(), "fingerprints": model.fingerprints}
        if model.tissue is not None:
            arrays |= {TISSUE + name: array for name, array in model.tissue.to_arrays().items()}
        write_tensors({name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}, new / REFERENCE)
        model.history.to_csv(new / HISTORY)
        card = card_of(model)
        card["sha256"] = {name: file_sha256(new / name) for name in FILES}
        card["sha256"][CARD] = card_sha256(card)
        (new / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return folder


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuse to write a model where something is that may not be replaced.

    Raises
    ------
    FileExistsError
        If it is a model and `overwrite` is false, or no model, or other files lie in it.
    """
    if folder.exists() and not overwrite:
        raise FileExistsError(f"'{folder}' exists already. Pass overwrite=True to replace the model there.")
    if folder.exists() and not (folder / CARD).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"'{folder}' exists and holds no {CARD}: it is no model, and is left as it is.")
    if folder.exists():
        require_own(folder, (CARD, *FILES), "a model")


def card_of(model: FittedModel) -> dict[str, Any]:
    """Return what is known of a model besides its arrays, as values that JSON can hold."""
    return {
        "format_version": FORMAT_VERSION,
        "name": model.name,
        "module": type(model.module).__module__,
        "choice": model.choice,
        "options": model.options,
        "likelihood": model.likelihood,
        "genes": model.genes,
        "classes": model.classes,
        "geometry": None if model.geometry is None else asdict(model.geometry),
        "encoder": model.encoder,
        "parameters": model.parameters,
        "training": model.training,
    }


def card_sha256(card: dict[str, Any]) -> str:
    """Return the SHA-256 of a card but for those that it keeps itself."""
    # As a reader has it: keys are words, and tuples are lists.
    said = json.loads(json.dumps({name: value for name, value in card.items() if name != "sha256"}))
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@in_own_torch
def load_fields(folder: Path) -> dict[str, Any]:
    """Return the fields of the :class:`FittedModel` that was saved in a folder.

    Raises
    ------
    FileNotFoundError
        If the folder or a file in it is missing.
    ValueError
        If a file is damaged, or written by a newer version, or the model is not registered.
    """
    if not (folder / CARD).is_file():
        what = "no folder" if not folder.is_dir() else f"no {CARD} in it: it is no saved model"
        raise FileNotFoundError(f"'{folder}': {what}. Give the folder that TrainedModel.save wrote.")
    try:
        card = _read_card(folder)
        _check_files(folder, card)
        arrays = load_arrays(folder / REFERENCE)
        tissue = {name.removeprefix(TISSUE): arrays.pop(name) for name in list(arrays) if name.startswith(TISSUE)}
        geometry = card["geometry"]
        return {
            "module": _load_module(folder, card),
            "geometry": None if geometry is None else PatchGeometry(**geometry),
            "fingerprints": arrays.pop("fingerprints"),
            "tissue": Tissue.from_arrays(tissue) if tissue else None,
            "baselines": Baselines.from_arrays(arrays),
            "history": _read_history(folder / HISTORY, card),
            **{name: card[name] for name in FIELDS if name not in ("geometry", "likelihood")},
        }
    except DAMAGE as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"The model in '{folder}' is damaged: {reason}. Save or copy it again.") from error


def as_fitted(model: FittedModel | str | Path) -> FittedModel:
    """Return the model, loading it if a folder is given.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(model, str | Path):
        return FittedModel(**load_fields(model_folder(model)))
    if not isinstance(model, FittedModel):
        raise TypeError(f"Expected `model` to be a TrainedModel or the folder of one, found {shown(model)}.")
    return model


def _read_card(folder: Path) -> dict[str, Any]:
    """Return the card, its values of the types that they were written with."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    version = card.get("format_version") if isinstance(card, dict) else None
    if not isinstance(version, int):
        raise DamagedModel(f"{CARD} does not say in which format it is")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"'{folder}' was written in format {version}; this hist2scrna {hist2scrna.__version__} reads up to "
            f"{FORMAT_VERSION}. Install a newer one."
        )
    for name, kinds in FIELDS.items():
        if not isinstance(card[name], kinds):
            raise DamagedModel(f"{name!r} in {CARD} is {type(card[name]).__name__}")
    for name, needed in WITHIN.items():
        if card[name] is not None and (absent := [key for key in needed if key not in card[name]]):
            raise DamagedModel(f"{name!r} in {CARD} lacks {absent}")
    if (wrong := wrong_value(card)) is not None:
        raise DamagedModel(f"{wrong} in {CARD}")
    for name in ("genes", "classes"):
        if not all(isinstance(word, str) for word in card[name]) or len(set(card[name])) < len(card[name]):
            raise DamagedModel(f"{name!r} in {CARD} are not names that each occur once")
    if card["name"] not in model_names():
        raise ValueError(
            f"The model in '{folder}' is {card['name']!r}, which is not registered here. Import the module that "
            f"registers it (its class is defined in {card['module']!r}), then load it again."
        )
    return card


def _check_files(folder: Path, card: dict[str, Any]) -> None:
    """Refuse files that are not those that were saved together."""
    for name in FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"'{folder}' has no {name}: the model was not copied whole. Copy it again.")
        if file_sha256(folder / name) != card["sha256"][name]:
            raise DamagedModel(f"{name} is not the file that was saved: its SHA-256 is another")
    if card_sha256(card) != card["sha256"][CARD]:
        raise DamagedModel(f"{CARD} is not the file that was saved: its SHA-256 is another")


def _read_history(path: Path, card: dict[str, Any]) -> pd.DataFrame:
    """Return the losses by epoch; the epoch that the card calls the best must be one of them."""
    history = pd.read_csv(path, float_precision="round_trip")
    training = card["training"]
    if "epoch" not in history or training["monitor"] not in history or training["best_epoch"] >= len(history):
        raise DamagedModel(f"{path.name} has no epoch {training['best_epoch']} with {training['monitor']!r}")
    if not all(pd.api.types.is_numeric_dtype(history[name]) for name in history):
        raise DamagedModel(f"{path.name} holds what is no number")
    return history.set_index("epoch")


def _load_module(folder: Path, card: dict[str, Any]) -> Any:
    """Return the model with its weights; nothing is allocated unless the card asks for just what the file holds."""
    build = partial(
        create_model, card["name"], n_genes=len(card["genes"]), n_classes=len(card["classes"]), **card["options"]
    )
    with safe_open(folder / WEIGHTS, "pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    try:
        with _at_most(len(stored)), torch.device("meta"):
            draft = build()
    except (ValueError, ArithmeticError, MemoryError) as error:
        raise DamagedModel(f"the options in {CARD} make no model: {error}") from error
    # Refuses tensors of other shapes; those of models that learn a shape by fitting take it from here.
    try:
        draft.load_state_dict({name: torch.empty(shape, device="meta") for name, shape in stored.items()})
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise DamagedModel(f"{CARD} tells another model than {WEIGHTS} holds: {first}") from error
    with torch.random.fork_rng(devices=[]):
        module = build()
    module.load_state_dict(load_file(folder / WEIGHTS))
    return module.eval()


@contextmanager
def _at_most(n_tensors: int) -> Iterator[None]:
    """Stop building a module that has more parameters than its file holds: a card may claim a million layers."""
    found = 0

    def count(*_: Any) -> None:
        nonlocal found
        found += 1
        if found > MOST_REPLACED * n_tensors:
            raise DamagedModel(f"by its {CARD} the model has more parameters than the {n_tensors} in {WEIGHTS}")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
