"""What a benchmark will run: data sets, models and seeds, checked before anything is trained."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anndata as ad

from hist2scrna import keys
from hist2scrna.benchmarking.folds import Fold, describe_folds, leave_one_group_out
from hist2scrna.benchmarking.job import Job
from hist2scrna.benchmarking.panel import Panel, choose_panel
from hist2scrna.benchmarking.sections import Reads, check_slots, digests
from hist2scrna.models.registry import model_options
from hist2scrna.spots.counts import choose_genes
from hist2scrna.spots.source import resolve_library_key
from hist2scrna.tl._fit import fit

Source: TypeAlias = ad.AnnData | str | Path
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


# Option of a model that is no argument of `fit`: the folds that it is run on.
FOLDS = "folds"


@dataclass(frozen=True)
class Question:
    """What is asked of every data set; arguments of :func:`hist2scrna.tl.benchmark`."""

    group_key: str | None
    library_key: str | None
    labels_key: str | None
    layer: str | None
    genes: Sequence[str] | str | None
    n_genes: int | None
    min_detected: float


@dataclass(frozen=True)
class FoldPlan:
    """The jobs of one fold, and what their data are made of."""

    source: Source
    fold: Fold
    panel: Panel
    reads: Reads
    jobs: tuple[Job, ...]


def read_source(source: Source) -> ad.AnnData:
    """Return a data set, from memory or from a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If it is neither AnnData nor the path of an .h5ad or .zarr.
    """
    if isinstance(source, ad.AnnData):
        return source
    if not isinstance(source, str | Path):
        raise TypeError(f"Expected a data set to be AnnData or a path, found {type(source).__name__}.")
    path = Path(source)
    if path.suffix not in (".h5ad", ".zarr"):
        raise ValueError(f"Expected a data set to be an .h5ad or .zarr, found '{path}'.")
    if not path.exists():
        raise FileNotFoundError(f"No data set at '{path}'.")
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)


def name_datasets(datasets: Mapping[str, Source] | Source) -> dict[str, Source]:
    """Return the data sets by name: a path goes by its stem, one AnnData as `"data"`."""
    if isinstance(datasets, str | Path):
        return {Path(datasets).stem: datasets}
    if not isinstance(datasets, Mapping):
        return {"data": datasets}
    if not datasets:
        raise ValueError("No data set: `datasets` is empty.")
    return {str(name): source for name, source in datasets.items()}


def read_models(models: Sequence[str] | Mapping[str, Mapping[str, Any] | str]) -> dict[str, dict[str, Any]]:
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
    found: dict[str, dict[str, Any]] = {}
    for label, given in models.items():
        options = {"model": given} if isinstance(given, str) else dict(given)
        folds = options.pop(FOLDS, None)
        if "model" not in options:
            raise ValueError(f"Model {label!r} does not say which: expected 'model' among its options {list(options)}.")
        for name in options:
            if name in SHARED:
                raise ValueError(
                    f"Option {name!r} of model {label!r} is the same for all models: pass {SHARED[name]} instead."
                )
        own = {k: v for k, v in options.items() if k not in inspect.signature(fit).parameters}
        model_options(options["model"], options.get("preset"), **own)
        options = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
        for name, value in options.items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise TypeError(
                    f"Option {name!r} of model {label!r} is no plain value ({type(value).__name__}): each job runs in "
                    "a process of its own, and its options are kept in a file. Give numbers, words, lists or paths."
                ) from error
        found[str(label)] = json.loads(json.dumps(options))
        if folds is not None:
            found[str(label)][FOLDS] = [folds] if isinstance(folds, str) else [str(fold) for fold in folds]
    return found


def plan_dataset(
    name: str,
    source: Source,
    models: Mapping[str, Mapping[str, Any]],
    question: Question,
    seeds: Sequence[int],
    only: Sequence[str] | None,
) -> list[FoldPlan]:
    """Return the folds of a data set with their panels and jobs."""
    adata = read_source(source)
    library_key = resolve_library_key(adata, question.library_key)
    if library_key is None:
        raise KeyError(
            f"Nothing tells the sections of data set {name!r} apart: adata.obs[{keys.LIBRARY!r}] is not there, or does "
            f"not name libraries of adata.uns['{keys.SPATIAL}']. Pass library_key=, one of {list(adata.obs.columns)}."
        )
    reads = {label: _reads(options, library_key, question) for label, options in models.items()}
    union = Reads(
        library_key,
        question.labels_key,
        question.layer,
        tuple(dict.fromkeys(key for one in reads.values() for key in one.obsm)),
        question.group_key,
    )
    check_slots(adata, union)
    given = None if question.n_genes is not None else question.genes
    all_genes = choose_genes(adata, given)
    data = digests(adata, all_genes, union)
    plans = []
    for fold in leave_one_group_out(adata, library_key, question.group_key, only):
        panel = choose_panel(
            adata,
            ~fold.test,
            genes=question.genes,
            n_genes=question.n_genes,
            min_detected=question.min_detected,
            layer=question.layer,
        )
        jobs = []
        for label, options in models.items():
            if fold.name not in options.get(FOLDS, [fold.name]):
                continue
            settings = {
                "dataset": name,
                "fold": fold.name,
                "label": label,
                "options": {k: v for k, v in options.items() if k not in ("labels_key", FOLDS)},
                "panel": {"n_genes": len(panel.genes), "how": panel.how, "sha256": panel.sha256},
                "split": describe_folds(library_key, question.group_key),
                "reads": asdict(reads[label]),
                "data": {k: v for k, v in data.items() if _is_read(k, reads[label])},
            }
            jobs += [
                Job(name, fold.name, label, seed, settings["options"], {**settings, "seed": seed})  # type: ignore[arg-type]
                for seed in seeds
            ]
        plans.append(FoldPlan(source, fold, panel, union, tuple(jobs)))
    return plans


def _reads(options: Mapping[str, Any], library_key: str, question: Question) -> Reads:
    """Return what one model reads; `labels_key` None or empty among its options leaves the labels out for it."""
    slots = [options.get("spatial_key", keys.SPATIAL), options.get("features_key")]
    labels_key = question.labels_key
    if "labels_key" in options:
        if options["labels_key"] not in (None, "", labels_key):
            raise ValueError(
                f"Expected `labels_key` of a model to be that of the benchmark ({labels_key!r}), or empty for a model "
                f"without cell types; found {options['labels_key']!r}."
            )
        labels_key = options["labels_key"] or None
    return Reads(library_key, labels_key, question.layer, tuple(key for key in slots if key), question.group_key)


def _is_read(part: str, reads: Reads) -> bool:
    if part == "labels":
        return reads.labels_key is not None
    return not part.startswith("obsm") or part in {f"obsm[{key!r}]" for key in reads.obsm}
