"""One job of a benchmark: its place on disk, its settings, and whether it was run before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hist2scrna.evaluation.plain import plain
from hist2scrna.evaluation.result import Evaluation

FORMAT_VERSION = 1
CARD, EVALUATION, HISTORY, MODEL, LOG = "job.json", "evaluation.json", "history.csv", "model", "log.txt"
# Where each test section is scored by itself: a file named after it.
EVALUATIONS = "evaluations"
# Settings of which the full content would tell a reader nothing.
SHOWN = 80


@dataclass(frozen=True)
class Job:
    """One model, with one seed, on one fold or given split of a data set.

    Attributes
    ----------
    dataset, fold, label, seed
        Which.
    options
        Arguments of :func:`hist2scrna.tl.fit`.
    settings
        Everything that its numbers depend on, as JSON has it; kept in its folder and compared before it is reused.
    """

    dataset: str
    fold: str
    label: str
    seed: int
    options: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the test sections that are scored each by itself; empty: all of them are scored together."""
        return tuple(self.settings.get("scored", ()))

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of what is scored, each a row of the table of jobs."""
        return self.scored or (self.fold,)

    def evaluations(self, folder: Path) -> dict[str, Path]:
        """Return the file of each evaluation in the folder of the job, by the name of what is scored."""
        if not self.scored:
            return {self.fold: folder / EVALUATION}
        return {name: evaluation_of(folder, name) for name in self.scored}

    def folder(self, root: Path) -> Path:
        """Return its place: data set, fold, model, seed."""
        return root / _as_path(self.dataset) / _as_path(self.fold) / _as_path(self.label) / str(self.seed)

    def failure(self, root: Path) -> Path:
        """Return the file that holds what it printed, if it failed."""
        return root / _as_path(self.dataset) / _as_path(self.fold) / _as_path(self.label) / f"{self.seed}.failed.txt"

    def __str__(self) -> str:
        what = self.fold if self.scored else f"{self.fold} held out"
        return f"{self.dataset}, {what}: {self.label}, seed {self.seed}"


@dataclass(frozen=True)
class JobResult:
    """A complete job.

    Attributes
    ----------
    job
        What it was.
    card
        What it took: its `job.json`.
    results
        What it reached: those of its evaluations, by the name of what is scored.
    """

    job: Job
    card: dict[str, Any]
    results: dict[str, dict[str, Any]]


def _as_path(name: str) -> str:
    """Return a name of one folder, whatever is in `name`; `urllib.parse.unquote` gives it back."""
    quoted = quote(name, safe=" +=,()")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def evaluation_of(folder: Path, section: str) -> Path:
    """Return the file of the evaluation of one section, where each is scored by itself."""
    return folder / EVALUATIONS / f"{_as_path(section)}.json"


def read_result(job: Job, root: Path) -> JobResult | None:
    """Return the job if it is complete; None if it has to be run.

    Raises
    ------
    FileExistsError
        If its folder holds a job of other settings, or something else.
    """
    folder = job.folder(root)
    if not folder.exists():
        return None
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        settings = card["settings"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise FileExistsError(
            f"'{folder}' is there but holds no complete job ({error}). Jobs appear whole or not at all, so something "
            "else wrote this: move it away, or pass another folder=."
        ) from error
    differences = list(_differences(settings, plain(job.settings)))
    if differences:
        raise FileExistsError(
            f"'{folder}' holds a job of other settings: {'; '.join(differences)}. Pass another folder=, give the model "
            "another label, or remove that job to run it again."
        )
    found = {name: Evaluation.from_json(path).results for name, path in job.evaluations(folder).items()}
    return JobResult(job, card, found)


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            yield from _differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} is {_short(there)} there and {_short(here)} here"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def write_card(scratch: Path, job: Job, measured: Mapping[str, Any]) -> None:
    """Write what the job was and what it took."""
    card = {"format_version": FORMAT_VERSION, "settings": job.settings, **measured}
    text = json.dumps(plain(card), indent=2, allow_nan=False)
    (scratch / CARD).write_text(text + "\n", encoding="utf-8")
