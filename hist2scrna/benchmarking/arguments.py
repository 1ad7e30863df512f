"""The arguments of a benchmark, checked before anything runs: data sets, models, seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import anndata as ad

from hist2scrna.benchmarking.fit import check_options
from hist2scrna.stored import STORES, read_anndata

Dataset: TypeAlias = ad.AnnData | str | Path
Models: TypeAlias = Sequence[str] | Mapping[str, Mapping[str, Any] | str]
# Arguments of `fit` that are the same for all models, and what sets them.
SHARED = {
    "genes": "genes= or n_genes=",
    "layer": "layer=",
    "library_key": "library_key=",
    "group_key": "group_key=",
    "seed": "seeds=",
    "accelerator": "accelerator=",
    "progress": "progress=",
    "checkpoint_dir": "keep_models=",
}
# An option of a model that is no argument of `fit`: the folds on which it is run.
FOLDS = "folds"


def read_dataset(dataset: Dataset) -> ad.AnnData:
    """Return a data set, from memory or from a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If it is neither AnnData nor the path of an .h5ad or .zarr.
    """
    if isinstance(dataset, ad.AnnData):
        return dataset
    if not isinstance(dataset, str | Path):
        raise TypeError(f"Expected a data set to be AnnData or a path, found {type(dataset).__name__}.")
    path = Path(dataset)
    if path.suffix not in STORES:
        raise ValueError(f"Expected a data set to be an .h5ad or .zarr, found '{path}'.")
    if not path.exists():
        raise FileNotFoundError(f"No data set at '{path}'.")
    return read_anndata(path)


def name_datasets(datasets: Mapping[str, Dataset] | Dataset) -> dict[str, Dataset]:
    """Return the data sets by name: a path is named after its stem, a single AnnData `"data"`."""
    if isinstance(datasets, str | Path):
        return {Path(datasets).stem: datasets}
    if not isinstance(datasets, Mapping):
        return {"data": datasets}
    if not datasets:
        raise ValueError("No data set: `datasets` is empty.")
    return {str(name): dataset for name, dataset in datasets.items()}


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Return the seeds as whole numbers.

    Raises
    ------
    ValueError
        If there is none, one is negative, or one occurs twice.
    """
    numbers = [int(seed) for seed in seeds]
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise ValueError(f"Expected `seeds` to be one or more different numbers from 0 on, found {list(seeds)}.")
    return numbers


def read_models(models: Models) -> dict[str, dict[str, Any]]:
    """Return the arguments of `fit` by label, checked.

    Raises
    ------
    TypeError
        If an option is no plain value: options are written to disk and compared.
    ValueError
        If there is no model, a label occurs twice, or a model, preset or option is not known.
    """
    if isinstance(models, str):
        raise TypeError(f"Expected `models` to be a list of names or a mapping, found {models!r}. Pass [{models!r}].")
    if not models:
        raise ValueError("No model: `models` is empty.")
    if not isinstance(models, Mapping):
        if len(set(models)) < len(models):
            raise ValueError(f"A model is named twice in {list(models)}. Give each a label: {{label: options}}.")
        models = {name: name for name in models}
    return {str(label): _read_model(str(label), options) for label, options in models.items()}


def _read_model(label: str, model: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return the arguments of `fit` for one model, as JSON gives them back."""
    options = {"model": model} if isinstance(model, str) else dict(model)
    folds = options.pop(FOLDS, None)
    for name in options:
        if name in SHARED:
            raise ValueError(
                f"Option {name!r} of model {label!r} is the same for all models: pass {SHARED[name]} instead."
            )
    check_options(label, options)
    options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    for name, value in options.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise TypeError(
                f"Option {name!r} of model {label!r} is no plain value ({type(value).__name__}): each job runs in a "
                "process of its own, and its options are kept in a file. Give numbers, words, lists or paths."
            ) from error
    plain: dict[str, Any] = json.loads(json.dumps(options))
    if folds is not None:
        plain[FOLDS] = [folds] if isinstance(folds, str) else [str(fold) for fold in folds]
    return plain
