"""From the jobs of a benchmark to its tables: one row a job, and one row a model with an interval over the folds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hist2scrna.benchmarking.job import Job, JobResult
from hist2scrna.evaluation.predictors import BASELINES, NOISE_CEILING, PREDICTOR_LABELS
from hist2scrna.evaluation.score import value_of
from hist2scrna.evaluation.scores import benchmark_columns
from hist2scrna.messages import warn_user

HEADLINE = ("score_over_ceiling", "beats_mean_baseline", "beats_depth_baseline", "collapsed", "held_out")
# Of slides alone: rank correlation over the genes within a slide.
WITHIN_SLIDES = "within_slides_spearman"
MEASURED = (
    "fit_seconds",
    "predict_seconds",
    "peak_memory_mib",
    "gpu_peak_memory_mib",
    "n_parameters",
    "epochs_run",
    "best_epoch",
    "n_spots_train",
    "device",
)
PROTOCOL = ("n_genes", "panel", "panel_sha256", "normalization", "smoothing", "split", "noise_ceiling")
IDENTITY = ("dataset", "fold", "model", "kind", "seed", "status")
COMPLETE = "complete"
# Numbers of a job that are averaged over folds, besides the scores.
COSTS = ("fit_seconds", "predict_seconds", "peak_memory_mib", "gpu_peak_memory_mib", "n_parameters", "epochs_run")


def job_columns() -> list[str]:
    """Return the columns of the table of jobs."""
    return [
        *IDENTITY,
        *benchmark_columns(),
        *HEADLINE,
        WITHIN_SLIDES,
        *MEASURED,
        *("n_spots_test", "architecture", "likelihood", "version"),
        *PROTOCOL,
    ]


def averaged_columns() -> dict[str, bool]:
    """Return the columns that are averaged over folds, and whether their mean has an interval."""
    scores = {name: score.interval for name, (score, _) in benchmark_columns().items()}
    shares = ("score_over_ceiling", "beats_mean_baseline", "beats_depth_baseline")
    return scores | dict.fromkeys((*shares, WITHIN_SLIDES, *COSTS), False)


# Baselines and ceilings of a fold come from the same counts whatever the model; more than rounding is a fault.
AGREEMENT = 1e-6


def jobs_table(jobs: Sequence[Job], done: Mapping[int, JobResult], failed: Mapping[int, str]) -> pd.DataFrame:
    """Return one row a job (of given splits one a test section), and after those of a fold its baselines and ceiling.

    Parameters
    ----------
    jobs
        All of them, in order.
    done, failed
        Complete jobs, and the error of failed ones, by their place in `jobs`.

    Warns
    -----
    UserWarning
        If the baselines or the ceilings of a fold differ between its jobs.
    """
    rows: list[dict[str, Any]] = []
    folds = dict.fromkeys((job.dataset, job.fold) for job in jobs)
    for dataset, fold in folds:
        own = [i for i, job in enumerate(jobs) if (job.dataset, job.fold) == (dataset, fold)]
        for i in own:
            if i in done:
                rows += [_job_row(done[i], name) for name in jobs[i].rows]
            elif i in failed:
                status = {"status": f"failed: {failed[i]}"} | protocol(jobs[i])
                rows += [_identity(jobs[i], name) | status for name in jobs[i].rows]
        complete = [done[i] for i in own if i in done]
        rows += [row for name in jobs[own[0]].rows for row in _reference_rows(complete, name)]
    table = pd.DataFrame(rows, columns=job_columns())
    return table.astype(dict.fromkeys(("seed", "n_parameters", "epochs_run", "best_epoch"), "Int64"))


def protocol(job: Job) -> dict[str, Any]:
    """Return what a number of this job must be read with."""
    panel, split = job.settings["panel"], job.settings["split"]
    return {
        "n_genes": panel["n_genes"],
        "panel": panel["how"],
        "panel_sha256": panel["sha256"],
        "smoothing": "none",
        "split": split,
    }


def _identity(job: Job, name: str) -> dict[str, Any]:
    return {"dataset": job.dataset, "fold": name, "model": job.label, "kind": "model", "seed": job.seed}


def _scored(found: Mapping[str, Any], predictor: str) -> dict[str, Any]:
    return {
        name: value_of(found, score, predictor, level=level) for name, (score, level) in benchmark_columns().items()
    }


def _told(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "n_spots_test": found["data"]["n_spots"],
        "normalization": found["normalization"],
        "noise_ceiling": found["noise_ceiling"]["method"],
        "version": found["package_version"],
    }


def _job_row(done: JobResult, name: str) -> dict[str, Any]:
    found, card = done.results[name], done.card
    return {
        **_identity(done.job, name),
        "status": COMPLETE,
        **_scored(found, "model"),
        **{column: found["headline"][column] for column in HEADLINE},
        WITHIN_SLIDES: found["headline"].get(WITHIN_SLIDES),
        **{column: card[column] for column in MEASURED},
        "architecture": found["model"]["name"],
        "likelihood": found["model"]["likelihood"],
        **_told(found),
        **protocol(done.job),
    }


def _reference_rows(done: Sequence[JobResult], scored: str) -> list[dict[str, Any]]:
    """Return the baselines and the ceiling of what is scored, of which every complete job has the same."""
    if not done:
        return []
    job = done[0].job
    where = f"{job.dataset}, {scored}"
    rows = []
    for name, label in (*((name, PREDICTOR_LABELS[name]) for name in BASELINES), (NOISE_CEILING, NOISE_CEILING)):
        found = [_reference(one.results[scored], name) for one in done]
        scores = {
            column: _agreed([row.get(column) for row in found], f"{label} of {where}: {column}") for column in found[0]
        }
        rows.append(
            {
                "dataset": job.dataset,
                "fold": scored,
                "model": label,
                "kind": NOISE_CEILING if name == NOISE_CEILING else "baseline",
                "status": COMPLETE,
                **scores,
                **_told(done[0].results[scored]),
                **protocol(job),
            }
        )
    return rows


def _reference(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    head = found["headline"]
    if name == NOISE_CEILING:
        return {"pearson": head["noise_ceiling"], "depth_partial": head["depth_partial_noise_ceiling"]}
    row = _scored(found, name)
    limit, reached = head["noise_ceiling"], row["pearson"]
    defined = limit is not None and limit > 0 and reached is not None
    row |= {"score_over_ceiling": reached / limit if defined else None}
    return row | {WITHIN_SLIDES: head.get(f"{WITHIN_SLIDES}_{name}")}


def _agreed(values: Iterable[float | None], what: str) -> float | None:
    known = [value for value in values if value is not None]
    if known and max(known) - min(known) > AGREEMENT * max(1.0, abs(known[0])):
        warn_user(
            f"{what} is between {min(known):.6g} and {max(known):.6g} in jobs of one fold, where it should be one "
            "number; the first is shown. Were they run by different versions (column 'version')?"
        )
    return known[0] if known else None


def summary_table(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set, way in which it was split, and model.

    Parameters
    ----------
    jobs
        As :func:`jobs_table` returns it.

    Returns
    -------
    Columns as :func:`hist2scrna.tl.benchmark` describes them. Seeds are averaged within a fold first; intervals are
    Student's t over the folds, and undefined for fewer than two.
    """
    rows = []
    for (dataset, _), of_split in jobs.groupby(["dataset", "split"], sort=False):
        references = of_split[of_split["kind"] != "model"]
        for part in (of_split[of_split["kind"] == "model"], references):
            for model, own in part.groupby("model", sort=False):
                rows.append({"dataset": dataset, "model": model, **_summary(own, references)})
    return pd.DataFrame(rows).convert_dtypes(
        convert_string=False, convert_floating=False, convert_boolean=False, convert_integer=True
    )


def _summary(own: pd.DataFrame, references: pd.DataFrame) -> dict[str, Any]:
    complete = own[own["status"] == COMPLETE]
    averaged = averaged_columns()
    numbers = complete[list(averaged)].apply(pd.to_numeric, errors="coerce").astype(float)
    by_fold = numbers.groupby(complete["fold"], sort=False).mean()
    kind = str(own["kind"].iloc[0])
    row: dict[str, Any] = {
        "kind": kind,
        "folds": ", ".join(by_fold.index),
        "n_folds": len(by_fold),
        "n_seeds": int(own["seed"].nunique()) if kind == "model" else None,
        "n_jobs": len(own),
        "n_failed": int(len(own) - len(complete)),
    }
    for name, has_interval in averaged.items():
        row[name] = float(by_fold[name].mean())
        if has_interval:
            row[f"{name}_low"], row[f"{name}_high"] = t_interval(by_fold[name].to_numpy())
    of_model = kind == "model"
    row["n_collapsed"] = int(complete["collapsed"].eq(True).sum()) if of_model else None
    row["folds_beating_depth_baseline"] = None
    if of_model:
        depth = (
            references[references["model"] == PREDICTOR_LABELS["depth_baseline"]]
            .set_index("fold")["pearson"]
            .astype(float)
        )
        row["folds_beating_depth_baseline"] = int((by_fold["pearson"] > depth.reindex(by_fold.index)).sum())
    for name in PROTOCOL:
        values = [str(value) for value in dict.fromkeys(own[name].dropna())]
        if name == "n_genes":
            row[name] = int(own[name].iloc[0]) if len(values) == 1 else None
        elif name == "panel_sha256":
            row[name] = values[0] if len(values) == 1 else f"{len(values)} panels"
        else:
            row[name] = "; ".join(values)
    return row


def by_split(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each data set, by its name; where several splits of it were given, of each split."""
    parts: dict[str, pd.DataFrame] = {}
    for dataset, of_dataset in table.groupby("dataset", sort=False):
        splits = dict(list(of_dataset.groupby("split", sort=False)))
        parts |= {str(dataset) if len(splits) == 1 else f"{dataset}, {name}": rows for name, rows in splits.items()}
    return parts


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval of the mean of the finite values; NaN for fewer than two."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return float(known.mean() - half), float(known.mean() + half)
