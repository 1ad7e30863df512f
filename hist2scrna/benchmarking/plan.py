"""What a benchmark will run: folds, panels and jobs, all checked before anything is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import anndata as ad

from hist2scrna import keys
from hist2scrna.benchmarking.arguments import (
    FOLDS,
    Dataset,
    Models,
    check_seeds,
    name_datasets,
    read_dataset,
    read_models,
)
from hist2scrna.benchmarking.folds import Fold, Splits, given_splits, leave_one_group_out
from hist2scrna.benchmarking.job import Job
from hist2scrna.benchmarking.panel import Panel, choose_panel
from hist2scrna.benchmarking.sections import SlotSelection, check_slots, digests
from hist2scrna.spots.counts import choose_genes
from hist2scrna.spots.slides import pooled
from hist2scrna.spots.source import resolve_library_key


@dataclass(frozen=True)
class BenchmarkSpec:
    """What is compared, on what; the arguments of :func:`hist2scrna.tl.benchmark`, under their names."""

    datasets: Mapping[str, Dataset] | Dataset
    models: Models
    group_key: str | None = None
    folds: Mapping[str, Sequence[str]] | Sequence[str] | None = None
    splits: Splits | None = None
    seeds: Sequence[int] = (0,)
    genes: Sequence[str] | str | None = None
    n_genes: int | None = None
    min_detected: float = 0.1
    layer: str | None = None
    labels_key: str | None = None
    library_key: str | None = None


@dataclass(frozen=True)
class FoldPlan:
    """The jobs of one fold, and what their data are made of.

    Attributes
    ----------
    dataset
        The data set.
    fold
        Which spots are held out.
    panel
        The genes.
    slots
        Every slot that any of the models reads.
    jobs
        Each model with each seed.
    """

    dataset: Dataset
    fold: Fold
    panel: Panel
    slots: SlotSelection
    jobs: tuple[Job, ...]


def plan_benchmark(spec: BenchmarkSpec) -> list[FoldPlan]:
    """Return all folds of all data sets, with their panels and jobs.

    Raises
    ------
    FileNotFoundError
        If a data set is missing.
    KeyError, TypeError, ValueError
        If an argument, model, option, slot or group is wrong, for any data set.
    """
    models, seeds, datasets = read_models(spec.models), check_seeds(spec.seeds), name_datasets(spec.datasets)
    if spec.folds is not None and spec.splits is not None:
        raise ValueError("Expected one of `folds` and `splits`, found both: name in `splits` all that is to be run.")
    if isinstance(spec.folds, Mapping) and (unknown := sorted(set(spec.folds) - set(datasets))):
        raise KeyError(f"Data sets {unknown} in `folds` not found. Given: {list(datasets)}.")
    plans = [plan for name, dataset in datasets.items() for plan in _plan_dataset(name, dataset, models, seeds, spec)]
    held_out = {plan.fold.name for plan in plans}
    for label, options in models.items():
        if absent := sorted(set(options.get(FOLDS, [])) - held_out):
            raise KeyError(f"Folds {absent} of model {label!r} not found. Held out are {sorted(held_out)}.")
    return plans


def _plan_dataset(
    name: str, dataset: Dataset, models: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], spec: BenchmarkSpec
) -> list[FoldPlan]:
    """Return the folds of one data set."""
    adata = read_dataset(dataset)
    library_key = _library_key(adata, name, spec)
    by_label = {label: _slots_of(options, library_key, spec, pooled(adata)) for label, options in models.items()}
    slots = SlotSelection(
        library_key,
        spec.labels_key,
        spec.layer,
        tuple(dict.fromkeys(key for selection in by_label.values() for key in selection.obsm)),
        spec.group_key,
    )
    check_slots(adata, slots)
    data = digests(adata, choose_genes(adata, None if spec.n_genes is not None else spec.genes), slots)
    plans = []
    for fold in _folds_of(adata, name, library_key, spec):
        panel = choose_panel(
            adata,
            fold.train,
            genes=spec.genes,
            n_genes=spec.n_genes,
            min_detected=spec.min_detected,
            layer=spec.layer,
        )
        settings = {
            "dataset": name,
            "fold": fold.name,
            "panel": {"n_genes": len(panel.genes), "how": panel.how, "sha256": panel.sha256},
            "split": fold.split,
        }
        if fold.scored:
            settings |= {"trained_on": list(fold.trained_on), "scored": list(fold.scored)}
        jobs = [
            job
            for label, options in models.items()
            if fold.name in options.get(FOLDS, [fold.name])
            for job in _jobs_of(label, options, by_label[label], settings, data, seeds)
        ]
        plans.append(FoldPlan(dataset, fold, panel, slots, tuple(jobs)))
    return plans


def _folds_of(adata: ad.AnnData, name: str, library_key: str, spec: BenchmarkSpec) -> list[Fold]:
    """Return what is trained on and held out of one data set."""
    if spec.splits is not None:
        return given_splits(adata, library_key, spec.splits, spec.group_key)
    only = spec.folds.get(name) if isinstance(spec.folds, Mapping) else spec.folds
    return leave_one_group_out(adata, library_key, spec.group_key, only)


def _library_key(adata: ad.AnnData, name: str, spec: BenchmarkSpec) -> str:
    library_key = resolve_library_key(adata, spec.library_key)
    if library_key is None and pooled(adata):
        raise KeyError(
            f"Nothing tells which slides of data set {name!r} belong together: adata.obs[{keys.LIBRARY!r}] is not "
            f"there. Pass library_key=, one of {list(adata.obs.columns)}, for instance the donor: slides of one value "
            "are held out together, since they are compared with one another."
        )
    if library_key is None:
        raise KeyError(
            f"Nothing tells the sections of data set {name!r} apart: adata.obs[{keys.LIBRARY!r}] is not there, or does "
            f"not name libraries of adata.uns['{keys.SPATIAL}']. Pass library_key=, one of {list(adata.obs.columns)}."
        )
    return library_key


def _jobs_of(
    label: str,
    options: Mapping[str, Any],
    slots: SlotSelection,
    fold_settings: Mapping[str, Any],
    data: Mapping[str, str],
    seeds: Sequence[int],
) -> list[Job]:
    """Return the jobs of one model on one fold, one a seed."""
    fit_options = {key: value for key, value in options.items() if key not in ("labels_key", FOLDS)}
    settings = {
        **fold_settings,
        "label": label,
        "options": fit_options,
        "slots": asdict(slots),
        "data": {part: digest for part, digest in data.items() if slots.includes(part)},
    }
    dataset, fold = fold_settings["dataset"], fold_settings["fold"]
    return [Job(dataset, fold, label, seed, fit_options, {**settings, "seed": seed}) for seed in seeds]


def _slots_of(
    options: Mapping[str, Any], library_key: str, spec: BenchmarkSpec, of_slides: Mapping[str, Any]
) -> SlotSelection:
    """Return what one model reads; `labels_key` None or empty among its options leaves the labels out for it."""
    obsm = [options.get("spatial_key", keys.SPATIAL), options.get("features_key")]
    if of_slides:
        obsm = [options.get("features_key", of_slides["features_key"])]
    labels_key = spec.labels_key
    if "labels_key" in options:
        if options["labels_key"] not in (None, "", labels_key):
            raise ValueError(
                f"Expected `labels_key` of a model to be that of the benchmark ({labels_key!r}), or empty for a model "
                f"without cell types; found {options['labels_key']!r}."
            )
        labels_key = options["labels_key"] or None
    return SlotSelection(library_key, labels_key, spec.layer, tuple(key for key in obsm if key), spec.group_key)
