"""Run the jobs of a benchmark one after the other, each in a process of its own, and write the tables."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hist2scrna.benchmarking.arguments import read_dataset
from hist2scrna.benchmarking.files import write_tables
from hist2scrna.benchmarking.fit import defining_module
from hist2scrna.benchmarking.job import LOG, Job, JobResult, read_result, write_card
from hist2scrna.benchmarking.lock import alone_in
from hist2scrna.benchmarking.plan import BenchmarkSpec, FoldPlan, plan_benchmark
from hist2scrna.benchmarking.run import ERROR, MEASURED, REQUEST
from hist2scrna.benchmarking.sections import restrict
from hist2scrna.benchmarking.table import jobs_table, summary_table
from hist2scrna.files import replaced_whole

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

# Where the training and the held-out sections of the fold at hand lie while its jobs run.
SECTIONS = ".sections"


class JobFailed(RuntimeError):
    """A job ended with an error, said in one line."""


def run_benchmark(
    spec: BenchmarkSpec, *, folder: str | Path, keep_models: bool, accelerator: str, progress: bool
) -> pd.DataFrame:
    """Run what has not been run yet and return the table; see :func:`hist2scrna.tl.benchmark`."""
    plans = plan_benchmark(spec)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        run = BenchmarkRun(plans, folder, keep_models, accelerator, progress)
        run.find_complete()
        run.run_pending()
        table = run.write()
    table.attrs["folder"] = str(folder)
    return table


@dataclass
class BenchmarkRun:
    """The jobs of a benchmark, and what has become of them.

    Attributes
    ----------
    plans
        All folds of all data sets.
    folder
        Where results are written.
    keep_models, accelerator, progress
        Arguments of :func:`hist2scrna.tl.benchmark`.
    complete, failed
        Results of complete jobs, and errors of failed ones, by the place of the job in `jobs`.
    """

    plans: list[FoldPlan]
    folder: Path
    keep_models: bool
    accelerator: str
    progress: bool
    complete: dict[int, JobResult] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def jobs(self) -> list[Job]:
        """All jobs in order."""
        return [job for plan in self.plans for job in plan.jobs]

    def find_complete(self) -> None:
        """Take up the results of jobs that ran earlier."""
        results = {number: read_result(job, self.folder) for number, job in enumerate(self.jobs)}
        self.complete = {number: result for number, result in results.items() if result is not None}

    def run_pending(self) -> None:
        """Run all jobs that are not complete; the tables are written after each fold."""
        from tqdm.auto import tqdm

        n_jobs, first = len(self.jobs), 0
        n_complete, silent = len(self.complete), not self.progress
        with tqdm(total=n_jobs, initial=n_complete, desc="benchmark", unit="job", disable=silent) as bar:
            for plan in self.plans:
                numbers = range(first, first + len(plan.jobs))
                first += len(plan.jobs)
                if all(number in self.complete for number in numbers):
                    continue
                with _sections_of(plan, self.folder / SECTIONS):
                    for number, job in zip(numbers, plan.jobs, strict=True):
                        if number in self.complete:
                            continue
                        line = f"[{number + 1}/{n_jobs}] {job} -> {job.folder(self.folder)}"
                        if self.progress:
                            bar.write(line, file=sys.stderr)
                        else:
                            log.info(line)
                        self._run(number, job)
                        bar.update()
                self.write()

    def _run(self, number: int, job: Job) -> None:
        try:
            self.complete[number] = run_job(job, self.folder, self.keep_models, self.accelerator)
        except JobFailed as error:
            self.failed[number] = str(error)
            log.warning("%s failed: %s", job, error)

    def write(self) -> pd.DataFrame:
        """Write the tables and return the summary."""
        rows = jobs_table(self.jobs, self.complete, self.failed)
        table = summary_table(rows)
        write_tables(self.folder, rows, table)
        return table


@contextlib.contextmanager
def _sections_of(plan: FoldPlan, scratch: Path) -> Iterator[None]:
    """Set aside the training and the held-out sections of a fold, its genes and the slots that are read."""
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        adata = read_dataset(plan.dataset)
        for name, rows in (("train", plan.fold.train), ("test", plan.fold.test)):
            restrict(adata, rows, plan.panel.genes, plan.slots).write_h5ad(scratch / f"{name}.h5ad")
        yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run_job(job: Job, folder: Path, keep_model: bool, accelerator: str) -> JobResult:
    """Run one job in a process of its own; its folder appears only once it is complete.

    Raises
    ------
    JobFailed
        If it ended with an error; what it printed is kept.
    """
    place, failure = job.folder(folder), job.failure(folder)
    with replaced_whole(place, folder=True) as scratch:
        request = {
            "train": str((folder / SECTIONS / "train.h5ad").resolve()),
            "test": str((folder / SECTIONS / "test.h5ad").resolve()),
            "options": job.options,
            "module": defining_module(job.options["model"]),
            "seed": job.seed,
            "slots": job.settings["slots"],
            "scored": list(job.scored),
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
    result = read_result(job, folder)
    assert result is not None
    return result


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
