"""The tables of a benchmark as files: CSV, JSON and Markdown."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from hist2scrna.benchmarking.table import PROTOCOL, WITHIN_SLIDES, by_split
from hist2scrna.evaluation.plain import number, plain
from hist2scrna.evaluation.predictors import BASELINES, NOISE_CEILING, PREDICTOR_LABELS
from hist2scrna.evaluation.score import Score
from hist2scrna.evaluation.scores import benchmark_scores
from hist2scrna.files import replaced_whole
from hist2scrna.messages import percent

SCHEMA_VERSION = 1
REFERENCES = (*(PREDICTOR_LABELS[name] for name in BASELINES), NOISE_CEILING)
JOBS, TABLE = "jobs", "table"
NOTES = """\
Pearson by gene over the spots of a section, on log-normalized expression, averaged over genes, sections and seeds, then
over folds (of a given split, over its test sections). Intervals are Student's t over the folds; folds share training
sections, so that they are not independent, and the true ones are wider. Depth-partial: with the log total regressed out
of truth and prediction. Spread: standard deviation of the prediction over that of the truth, median gene; collapsed:
below 0.05. Log-likelihood: per count, in nats; that of the baselines is of a negative binomial about their means.
Coverage: counts within the central 50, 80 and 95 % of what was predicted; width: how many counts these hold, median
gene. The depth baseline knows the true total of each spot. MiB: peak of the whole process, evaluation included.
"""


def write_tables(folder: Path, jobs: pd.DataFrame, table: pd.DataFrame) -> None:
    """Write `jobs.csv`, `jobs.json`, `table.csv`, `table.json` and `table.md`, each replaced at once."""
    for name, frame in ((JOBS, jobs), (TABLE, table)):
        _write(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
        rows = [{str(k): _cell(v) for k, v in row.items()} for row in frame.to_dict("records")]
        content = {"schema_version": SCHEMA_VERSION, "rows": plain(rows)}
        _write(folder / f"{name}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    _write(folder / f"{TABLE}.md", as_markdown(table, jobs))


def as_markdown(table: pd.DataFrame, jobs: pd.DataFrame) -> str:
    """Return the tables as Markdown: for each split how it was made, one line a model, and its scores by fold."""
    parts = ["# Benchmark\n"]
    for title, rows in by_split(table).items():
        first = rows.iloc[0]
        panel = str(first["panel_sha256"])
        panel = panel if " " in panel else f"SHA-256 {panel[:12]}"
        genes = "numbers that differ" if _cell(first["n_genes"]) is None else f"{int(first['n_genes']):,}"
        words = {name: " / ".join(v for v in dict.fromkeys(map(str, rows[name])) if v) for name in PROTOCOL}
        parts.append(
            f"## {_escape(title)}\n\n"
            f"- Split: {_escape(words['split'])}\n- Genes: {genes}; {_escape(words['panel'])} ({panel})\n"
            f"- Normalization: {_escape(words['normalization'])}\n- Smoothing: {words['smoothing']}\n"
            f"- Noise ceiling: {words['noise_ceiling']}\n"
        )
        of_slides = bool(rows[WITHIN_SLIDES].notna().any())
        headings = [*_headings(), *(["Spearman within slides"] if of_slides else [])]
        lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
        lines += ["| " + " | ".join(_line(row, of_slides)) + " |" for row in rows.to_dict("records")]
        parts.append("\n".join(lines) + "\n")
        parts.append(_by_fold(jobs[(jobs["dataset"] == first["dataset"]) & (jobs["split"] == first["split"])]))
    return "\n".join([*parts, NOTES])


def _headings() -> list[str]:
    scores = [
        (score.heading or score.label)
        + (f" {'/'.join(score.levels)}" if score.levels else "")
        + (" [95 %]" if score.interval else "")
        for score in benchmark_scores()
    ]
    return [
        *("model", "folds x seeds", *scores, "of noise ceiling", "folds over depth baseline", "collapsed", "failed"),
        *("fit s", "predict s", "MiB", "parameters"),
    ]


def _write(path: Path, text: str) -> None:
    with replaced_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def _by_fold(jobs: pd.DataFrame) -> str:
    """Return the scores of genes that have an interval, of each model on each fold, mean over seeds."""
    folds, models = (list(dict.fromkeys(jobs[name])) for name in ("fold", "model"))
    shown = [score for score in benchmark_scores() if score.interval and score.of == "gene"]
    columns = [str(score.column) for score in shown]
    numbers = jobs.assign(**{name: pd.to_numeric(jobs[name], errors="coerce") for name in columns})
    means = numbers.groupby(["model", "fold"])[columns].mean()
    heading = " / ".join(score.heading or score.label for score in shown)
    lines = [
        f"| {heading} | " + " | ".join(map(_escape, folds)) + " |",
        "|---" + "|---:" * len(folds) + "|",
    ]
    for model in sorted(models, key=lambda name: models.index(name) + len(models) * (name in REFERENCES)):
        cells = []
        for fold in folds:
            known = (model, fold) in means.index and pd.notna(means.loc[(model, fold), columns[0]])
            values = means.loc[(model, fold)] if known else []
            cells.append(" / ".join(number(_cell(float(v))) for v in values) or "-")
        lines.append(f"| {_escape(model)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _line(row: dict[Any, Any], of_slides: bool) -> list[str]:
    row = {name: _cell(value) for name, value in row.items()}
    of_model = row["kind"] == "model"
    n_complete = row["n_jobs"] - row["n_failed"]
    memory = "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:,.0f}"
    if row["gpu_peak_memory_mib"] is not None:
        memory += f" (GPU {row['gpu_peak_memory_mib']:,.0f})"
    return [
        _escape(str(row["model"])),
        f"{row['n_folds']} x {row['n_seeds']}" if of_model else f"{row['n_folds']}",
        *(_score_cell(row, score) for score in benchmark_scores()),
        percent(row["score_over_ceiling"]),
        f"{row['folds_beating_depth_baseline']} of {row['n_folds']}" if of_model else "-",
        f"in {row['n_collapsed']} of {n_complete}" if of_model else "-",
        f"{row['n_failed']} of {row['n_jobs']}" if of_model else "-",
        *("-" if row[name] is None else f"{row[name]:,.1f}" for name in ("fit_seconds", "predict_seconds")),
        memory,
        "-" if row["n_parameters"] is None else f"{row['n_parameters']:,.0f}",
        *(["-" if row[WITHIN_SLIDES] is None else number(row[WITHIN_SLIDES])] if of_slides else []),
    ]


def _score_cell(row: dict[Any, Any], score: Score) -> str:
    write = percent if score.is_share else number
    if score.levels:
        values = [row[f"{score.column}_{level}"] for level in score.levels]
        return "-" if None in values else " / ".join(map(write, values))
    low, high = (row.get(f"{score.column}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" [{write(low)}, {write(high)}]"
    return write(row[score.column]) + interval


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _cell(value: Any) -> Any:
    """Return None for whatever stands for a missing value in a data frame."""
    return None if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) else value
