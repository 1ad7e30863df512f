"""Any models on any data sets, by section or donor, with baselines and ceiling beside them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hist2scrna.benchmarking.files import write_tables
from hist2scrna.benchmarking.job import LOG, Done, Job, read_done, write_card, written_whole
from hist2scrna.benchmarking.lock import alone_in
from hist2scrna.benchmarking.plan import (
    FOLDS,
    FoldPlan,
    Question,
    Source,
    name_datasets,
    plan_dataset,
    read_models,
    read_source,
)
from hist2scrna.benchmarking.run import ERROR, MEASURED, REQUEST
from hist2scrna.benchmarking.sections import restrict
from hist2scrna.benchmarking.table import jobs_table, summary_table

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SCRATCH = ".sections"


class JobFailed(RuntimeError):
    """A job ended with an error, said in one line."""


def benchmark(
    datasets: Mapping[str, Source] | Source,
    models: Sequence[str] | Mapping[str, Mapping[str, Any] | str],
    *,
    folder: str | Path,
    group_key: str | None = None,
    folds: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    genes: Sequence[str] | str | None = None,
    n_genes: int | None = None,
    min_detected: float = 0.1,
    layer: str | None = None,
    labels_key: str | None = None,
    library_key: str | None = None,
    keep_models: bool = False,
    accelerator: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Compare models on held-out sections or donors; started again, it goes on where it was interrupted.

    Each job is one model with one seed on one fold: fitted on the training sections, it predicts the held-out ones from
    an AnnData without their expression, and is evaluated by :func:`hist2scrna.tl.evaluate`. Jobs run one after the
    other, each in a process of its own, so that its peak memory is its own and a job that is killed takes no other with
    it. The mean baseline and the depth baseline are fitted on all training sections of the fold, the same for all
    models.

    Parameters
    ----------
    datasets
        AnnData, or paths of .h5ad or .zarr, by name; or only one. They are not changed.
    models
        Names of models with their own recipes, or by label the arguments of :func:`hist2scrna.tl.fit`:
        `{"ours": {"model": "hist2scrna", "preset": "tiny"}, "ridge": {"model": "ridge", "features_key": "X_uni"}}`.
        Plain values only. `"labels_key": ""` leaves the cell types out for one model; `"folds": [...]` runs it on these
        folds alone, where it would take too long on all: the table says on which it was run.
    folder
        Where results are written and complete jobs are found again; one benchmark at a time.
    group_key
        Column of `.obs` of which each value is held out in turn, for instance the donor; None: the section. A section
        is never split. Each fit is given it too, to validate on other donors than it trains on.
    folds
        Which of these values to hold out: a list, or lists by data set; None: each. All others are trained on.
    seeds
        Of the training; every model runs with each.
    genes
        Genes to predict: names, or a boolean column of `.var`; None: all, or see `n_genes`.
    n_genes
        Instead: choose that many in each fold, on its training sections alone: those with the highest variance of
        log(1 + 1e4 x / total) among the genes that are detected often enough.
    min_detected
        Share of the training spots in which a gene must have a count to be chosen by `n_genes`.
    layer
        Layer with raw counts; None: `.X`.
    labels_key
        Categorical column of `.obs` with cell types; None: no such head.
    library_key
        Column of `.obs` with the section of each spot; None: `"library_id"`.
    keep_models
        Keep the trained models too, in `model/` of each job that is run.
    accelerator
        `"auto"`, `"cpu"`, `"gpu"`, `"cuda"` or `"mps"`.
    progress
        Show a bar, and for each job a line that says what runs and where it is written.

    Returns
    -------
    One row a data set and model, and after its models the `"mean baseline"`, the `"depth baseline"` and the `"noise
    ceiling"` (`kind` `"model"`, `"baseline"` or `"noise ceiling"`). Scores are averaged over the seeds of a fold, then
    over folds:

    - `folds` (their names), `n_folds`, `n_core`, `n_jobs`, `n_failed`.
    - `pearson`, `depth_partial`, `log_likelihood` (a count, natural logarithm), each with the 95 % interval `_low` to
      `_high`: Student's t over the folds. Folds share training sections, so that the true interval is wider.
    - `score_over_ceiling`, `spread_ratio`, `coverage_50`, `coverage_80`, `coverage_95`, `width_50`, `width_80`,
      `width_95` (counts within the interval, median gene), `beats_mean_baseline`, `beats_depth_baseline` (shares of
      genes), `n_collapsed` (jobs), `folds_beating_depth_baseline` (by Pearson).
    - `fit_seconds`, `predict_seconds`, `peak_memory_mib` (of the process, evaluation included), `gpu_peak_memory_mib`,
      `n_parameters`, `epochs_run`.
    - `n_genes`, `panel`, `panel_sha256`, `normalization`, `smoothing`, `split`, `noise_ceiling` (its method): what the
      numbers must be read with.

    `.attrs["folder"]` names the folder. OutputKeys there:

    `table.csv`, `table.json`, `table.md`
        This table.
    `jobs.csv`, `jobs.json`
        One row a job, with its `status` (`"complete"` or `"failed: ..."`), and the baselines and the ceiling of each
        fold.
    `<data set>/<fold>/<label>/<seed>/`
        `evaluation.json`, `history.csv`, `job.json` (settings, times, memory, versions), `log.txt`, `model/`. It
        appears only once it is complete. Of a failed job, `<seed>.failed.txt` holds what it printed; it runs again at
        the next start.

    Raises
    ------
    BlockingIOError
        If another benchmark is at work in `folder`.
    FileExistsError
        If a job in `folder` had other settings (options, genes, data, split); the message names which.
    FileNotFoundError
        If a data set is missing.
    KeyError, TypeError, ValueError
        If an argument, model, option, slot or group is wrong, for any data set, before anything runs.

    Examples
    --------
    >>> table = hist2scrna.tl.benchmark(
    ...     {"her2st": "her2st.h5ad"}, ["hist2scrna", "stnet"], folder="benchmark/", group_key="donor", n_genes=250
    ... )
    >>> jobs = pd.read_csv("benchmark/jobs.csv")
    >>> hist2scrna.pl.benchmark("benchmark/")
    """
    folder = Path(folder)
    recipes, numbers = read_models(models), _checked_seeds(seeds)
    sources = name_datasets(datasets)
    if isinstance(folds, Mapping) and (unknown := sorted(set(folds) - set(sources))):
        raise KeyError(f"Data sets {unknown} in `folds` not found. Given: {list(sources)}.")
    question = Question(group_key, library_key, labels_key, layer, genes, n_genes, min_detected)
    plans = [
        plan
        for name, source in sources.items()
        for plan in plan_dataset(
            name, source, recipes, question, numbers, folds.get(name) if isinstance(folds, Mapping) else folds
        )
    ]
    held_out = {plan.fold.name for plan in plans}
    for label, options in recipes.items():
        if absent := sorted(set(options.get(FOLDS, [])) - held_out):
            raise KeyError(f"Folds {absent} of model {label!r} not found. Held out are {sorted(held_out)}.")
    jobs = [job for plan in plans for job in plan.jobs]
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        done = {i: found for i, job in enumerate(jobs) if (found := read_done(job, folder)) is not None}
        failed = _run_all(plans, done, folder, keep_models, accelerator, progress)
        table = _write(jobs, done, failed, folder)
    table.attrs["folder"] = str(folder)
    return table


def _checked_seeds(seeds: Sequence[int]) -> list[int]:
    found = [int(seed) for seed in seeds]
    if not found or len(set(found)) < len(found) or min(found) < 0:
        raise ValueError(f"Expected `seeds` to be one or more different numbers from 0 on, found {list(seeds)}.")
    return found


def _write(jobs: list[Job], done: Mapping[int, Done], failed: Mapping[int, str], folder: Path) -> pd.DataFrame:
    rows = jobs_table(jobs, done, failed)
    table = summary_table(rows)
    write_tables(folder, rows, table)
    return table


def _run_all(
    plans: list[FoldPlan], done: dict[int, Done], folder: Path, keep_models: bool, accelerator: str, progress: bool
) -> dict[int, str]:
    """Run what is not done, adding to `done`; returns the errors of jobs that failed."""
    from tqdm.auto import tqdm

    jobs = [job for plan in plans for job in plan.jobs]
    failed: dict[int, str] = {}
    scratch = folder / SCRATCH
    number = 0
    with tqdm(total=len(jobs), initial=len(done), desc="benchmark", unit="job", disable=not progress) as bar:
        for plan in plans:
            own = range(number, number + len(plan.jobs))
            number += len(plan.jobs)
            pending = [i for i in own if i not in done]
            if not pending:
                continue
            shutil.rmtree(scratch, ignore_errors=True)
            try:
                _write_sections(plan, scratch)
                for i in pending:
                    line = f"[{i + 1}/{len(jobs)}] {jobs[i]} -> {jobs[i].folder(folder)}"
                    if progress:
                        bar.write(line, file=sys.stderr)
                    else:
                        log.info(line)
                    try:
                        done[i] = _run_job(jobs[i], plan, folder, keep_models, accelerator)
                    except JobFailed as error:
                        failed[i] = str(error)
                        log.warning("%s failed: %s", jobs[i], error)
                    bar.update()
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            _write(jobs, done, failed, folder)
    return failed


def _write_sections(plan: FoldPlan, scratch: Path) -> None:
    """Write the training and the held-out sections of a fold, its genes and the slots that are read."""
    scratch.mkdir(parents=True)
    adata = read_source(plan.source)
    for name, rows in (("train", ~plan.fold.test), ("test", plan.fold.test)):
        restrict(adata, rows, plan.panel.genes, plan.reads).write_h5ad(scratch / f"{name}.h5ad")


def _run_job(job: Job, plan: FoldPlan, folder: Path, keep_model: bool, accelerator: str) -> Done:
    final, failure = job.folder(folder), job.failure(folder)
    with written_whole(final) as scratch:
        request = {
            "train": str((folder / SCRATCH / "train.h5ad").resolve()),
            "test": str((folder / SCRATCH / "test.h5ad").resolve()),
            "options": job.options,
            "seed": job.seed,
            "reads": job.settings["reads"],
            "accelerator": accelerator,
            "keep_model": keep_model,
        }
        (scratch / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        status = launch(scratch)
        if status != 0:
            shutil.copyfile(scratch / LOG, failure)
            raise JobFailed(_reason(scratch, status))
        write_card(scratch, job, json.loads((scratch / MEASURED).read_text(encoding="utf-8")))
        for name in (REQUEST, MEASURED):
            (scratch / name).unlink()
    failure.unlink(missing_ok=True)
    found = read_done(job, folder)
    assert found is not None
    return found


def launch(scratch: Path) -> int:
    """Run the job of a folder in a fresh Python, all it prints to `log.txt`; returns its exit status."""
    paths = [path or os.getcwd() for path in sys.path]
    with (scratch / LOG).open("w", encoding="utf-8") as out:
        return subprocess.run(
            [sys.executable, "-m", "hist2scrna.benchmarking.run", str(scratch), str(os.getpid())],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=False,
        ).returncode


def _reason(scratch: Path, status: int) -> str:
    if (scratch / ERROR).is_file():
        return str(json.loads((scratch / ERROR).read_text(encoding="utf-8"))["error"])
    if status == -signal.SIGKILL:
        return "killed, as a process is that needs more memory than there is"
    return f"its process ended with status {status}"
