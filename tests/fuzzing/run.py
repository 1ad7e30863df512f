"""Cases, each told by its kind and its number, and the run that goes through them until its time is over."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from fuzzing.children import MEMORY, SECONDS, Outcome, in_child
from fuzzing.corpora import CORPORA
from fuzzing.mutations import damaged_bytes, damaged_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Of damaged files, those that are damaged as JSON where they are JSON, and those whose checksums are made right again.
AS_JSON, SIGNED = 0.6, 0.8
TOLD_APART = 160
ROUNDS_TOLD = 20
# So that they are imported once, not by every process again.
IMPORTED = (
    *("hist2scrna.trained.fit", "hist2scrna.tl._evaluate", "hist2scrna.reporting.page", "hist2scrna.io._space_ranger"),
    *(
        "kornia.augmentation",
        "lightning.pytorch",
        "openvino",
        "pyarrow.parquet",
        "sklearn.linear_model",
        "skimage.color",
    ),
    *("squidpy", "tifffile", "torch_geometric.nn", "tqdm.auto", "zarr"),
)


@contextmanager
def good_files(kinds: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Write the good files of each kind to a folder, for as long as the block lasts.

    They are written by other processes: this one is to be without the threads of zarr and the like, which none of the
    processes that are forked from it would have.
    """
    for name in IMPORTED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as base:
        places = {kind: Path(base) / f"{number}" for number, kind in enumerate(kinds)}
        for kind, place in places.items():
            place.mkdir()
            outcome = in_child(partial(CORPORA[kind].write, place), memory=8 * MEMORY, seconds=10 * SECONDS)
            assert outcome.kind == "taken", f"{kind}: {outcome}"
            outcome = _used_copy(kind, place, lambda folder: None)
            assert outcome.kind == "taken", f"{kind}, as it was written: {outcome}"
        yield places


def damage(rng: np.random.Generator, folder: Path) -> None:
    """Damage one file of a folder, now and then two, or take one away."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    n = 1 if rng.random() < 0.8 else min(2, len(files))
    for path in rng.choice(np.array(files, dtype=object), n, replace=False):
        if rng.random() < 0.02 and len(files) > 1:
            path.unlink()
            continue
        content = path.read_bytes()
        try:
            changed = damaged_json(rng, content.decode()).encode() if rng.random() < AS_JSON else None
        except (ValueError, RecursionError):
            changed = None
        path.write_bytes(damaged_bytes(rng, content) if changed is None else changed)


def run_case(kind: str, number: int, good: Path) -> Outcome:
    """Damage a copy of the good files as the number says, and use it in a process of its own."""
    rng = np.random.default_rng([number, *kind.encode()])

    def change(folder: Path) -> None:
        damage(rng, folder)
        if (sign := CORPORA[kind].sign) is not None and rng.random() < SIGNED:
            sign(folder)

    return _used_copy(kind, good, change)


def _used_copy(kind: str, good: Path, change: Callable[[Path], None]) -> Outcome:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "case"
        shutil.copytree(good, folder)
        change(folder)
        return in_child(partial(CORPORA[kind].use, folder))


def run(kinds: Sequence[str], *, minutes: float, first: int = 0, per_kind: int | None = None) -> Counter[str]:
    """Run cases, of every kind in turn, until the time is over; prints each new way to fail once.

    Returns
    -------
    How many cases there were of each kind and outcome, as `"kind: outcome"`.
    """
    found: Counter[str] = Counter()
    seen: set[str] = set()
    end = time.monotonic() + 60 * minutes
    with good_files(kinds) as places:
        number = first
        while time.monotonic() < end and (per_kind is None or number < first + per_kind):
            for kind in (kind for kind in kinds if number % CORPORA[kind].every == 0):
                outcome = run_case(kind, number, places[kind])
                found[f"{kind}: {outcome.kind}"] += 1
                told = f"{kind} {outcome.kind} {_last_line(outcome)}"[:TOLD_APART]
                if not outcome.good and told not in seen:
                    seen.add(told)
                    print(f"--- {kind}, case {number}: {outcome.kind}: {outcome.said}\n{outcome.where}", flush=True)
            number += 1
            if (number - first) % ROUNDS_TOLD == 0:
                print(f"{found.total():,} damaged files so far", flush=True)
    return found


def _last_line(outcome: Outcome) -> str:
    """Return where an error was raised, which tells ways to fail apart."""
    places = [line for line in outcome.where.splitlines() if line.startswith("  File")]
    return places[-1] if places else outcome.said
