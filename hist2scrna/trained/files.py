"""A fitted model in a folder: safetensors, JSON and CSV, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

import hist2scrna
from hist2scrna.files import replaced_whole
from hist2scrna.fitting.processes import is_first_process
from hist2scrna.images.patches import PatchGeometry
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.models.registry import create_model, model_names

if TYPE_CHECKING:
    from hist2scrna.trained.fitted import FittedModel

FORMAT_VERSION = 1
WEIGHTS, REFERENCE, CARD, HISTORY = "model.safetensors", "training.safetensors", "model.json", "history.csv"
DAMAGE = (json.JSONDecodeError, KeyError, TypeError, SafetensorError, RuntimeError, pd.errors.ParserError)


def save_model(model: FittedModel, folder: Path, overwrite: bool) -> Path:
    """Write a model to a folder; a model that was there stays until the new one is whole.

    Of several processes that trained it together, the first writes.

    Raises
    ------
    FileExistsError
        If something is there already, and is no model or may not be replaced.
    """
    if not is_first_process():
        return folder
    if folder.exists() and not overwrite:
        raise FileExistsError(f"'{folder}' exists already. Pass overwrite=True to replace the model there.")
    if folder.exists() and not (folder / CARD).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"'{folder}' exists and holds no {CARD}: it is no model, and is left as it is.")
    with replaced_whole(folder, folder=True) as new:
        save_file({name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}, new / WEIGHTS)
        save_arrays({**model.baselines.to_arrays(), "fingerprints": model.fingerprints}, new / REFERENCE)
        model.history.to_csv(new / HISTORY)
        (new / CARD).write_text(json.dumps(card_of(model), indent=2) + "\n", encoding="utf-8")
    return folder


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
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        _check_readable(folder, card)
        arrays = load_arrays(folder / REFERENCE)
        geometry = card["geometry"]
        return {
            "module": _load_module(folder, card),
            "geometry": None if geometry is None else PatchGeometry(**geometry),
            "fingerprints": arrays.pop("fingerprints"),
            "baselines": Baselines.from_arrays(arrays),
            "history": pd.read_csv(folder / HISTORY, index_col="epoch"),
            **{
                name: card[name]
                for name in ("name", "choice", "options", "genes", "classes", "encoder", "parameters", "training")
            },
        }
    except DAMAGE as error:
        raise ValueError(f"The model in '{folder}' is damaged: {error}. Save or copy it again.") from error


def _check_readable(folder: Path, card: dict[str, Any]) -> None:
    version = card["format_version"]
    if version > FORMAT_VERSION:
        raise ValueError(
            f"'{folder}' was written in format {version}; this hist2scrna {hist2scrna.__version__} reads up to "
            f"{FORMAT_VERSION}. Install a newer one."
        )
    if card["name"] not in model_names():
        raise ValueError(
            f"The model in '{folder}' is {card['name']!r}, which is not registered here. Import the module that "
            f"registers it (its class is defined in {card['module']!r}), then load it again."
        )


def _load_module(folder: Path, card: dict[str, Any]) -> Any:
    module = create_model(card["name"], n_genes=len(card["genes"]), n_classes=len(card["classes"]), **card["options"])
    module.load_state_dict(load_file(folder / WEIGHTS))
    return module.eval()
