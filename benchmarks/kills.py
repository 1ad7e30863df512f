"""Kill a short training, writes of models and writes of results at random moments, and count what is lost or corrupt.

python benchmarks/kills.py [--kills 100] [--seed 0]

Every run is a fork of this process, which has imported everything already, and is killed (SIGKILL) after a time drawn
at random. A witness outside the folder counts the epochs that were kept. Nothing may be lost, and nothing corrupt.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from safetensors import safe_open

import hist2scrna as h2s
from hist2scrna.cli.writing import write_one
from hist2scrna.datasets import simulate
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.fitting.checkpoint import BEST, LAST, TrainingCheckpoint
from hist2scrna.io import read_patch_folder, write_patch_folder

TRAINING = {"max_epochs": 6, "batch_size": 16, "lr": 3e-3, "patience": 0, "accelerator": "cpu"}
SPOTS = 32


def killed_after(seconds: float, act: Callable[[], object]) -> bool:
    """Call a function in a fork, and kill it after so long; returns whether it had not ended by itself."""
    child = _start(act)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), "the run ended with an error"
    return status != 0


def ends_well(act: Callable[[], object]) -> bool:
    """Call a function in a fork, so that this process has none of the threads that no fork would have."""
    return os.waitpid(_start(act), 0)[1] == 0


def _start(act: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the fork must not go on as a second run
            traceback.print_exc()
            os._exit(1)
    return child


def kill_trainings(n: int, rng: np.random.Generator, base: Path) -> Counter[str]:
    """Kill trainings that go on in the same folder; each that ends is compared with an undisturbed one."""
    adata = simulate(n_spots=SPOTS, n_genes=6, seed=0)[0]
    found: Counter[str] = Counter()

    def train(folder: Path | None) -> h2s.TrainedModel:
        training = {**TRAINING, "checkpoint_dir": folder}
        return h2s.tl.fit(adata, model="hist2scrna", preset="tiny", training=training, seed=1, progress=False)

    undisturbed = train(None)
    # Once all is imported.
    start = time.perf_counter()
    train(None)
    whole = time.perf_counter() - start
    save = TrainingCheckpoint.save

    def witnessed(self: TrainingCheckpoint, state: dict[str, object]) -> None:
        save(self, state)
        with (base / "witness").open("a") as file:
            file.write(f"{state['epoch']}\n")

    TrainingCheckpoint.save = witnessed  # type: ignore[method-assign]
    while found["kills"] < n:
        folder = Path(tempfile.mkdtemp(dir=base))
        (base / "witness").write_text("")
        for _ in range(12):
            found["kills"] += killed_after(rng.uniform(0, whole), partial(train, folder))
            told = [int(line) for line in (base / "witness").read_text().split()]
            # The last may have been kept without the witness; never the other way round.
            state = _loaded(folder, found)
            found["epochs lost"] += max(0, max(told, default=0) - (0 if state is None else int(state["epoch"])))
            repeated = len(told) - len(set(told))
            if (folder / BEST).exists():
                found["corrupt"] += not ends_well(partial(h2s.TrainedModel.load, folder / BEST))
            if found["kills"] >= n or (state is not None and state["finished"]):
                break
        model = train(folder)
        found["trainings that ended"] += 1
        found["epochs trained twice though kept"] += repeated
        found["other weights"] += any(
            not torch.equal(value, undisturbed.module.state_dict()[name])
            for name, value in model.module.state_dict().items()
        )
        found["scratch left"] += sorted(p.name for p in folder.iterdir()) != [BEST, LAST]
        print(dict(found), file=sys.stderr, flush=True)
    TrainingCheckpoint.save = save  # type: ignore[method-assign]
    return found


def _loaded(folder: Path, found: Counter[str]) -> dict[str, object] | None:
    """Return the checkpoint as any training reads it, whatever its settings."""
    if not (folder / LAST).exists():
        return None
    kept = TrainingCheckpoint(folder, {})
    try:
        with safe_open(kept.path, "pt") as file:
            kept.identity = json.loads(file.metadata()["training"])
        return kept.load()
    except Exception as error:  # noqa: BLE001 - whatever it is, the file is corrupt
        found[f"corrupt: {error}"] += 1
        return None


def prepare(base: Path) -> None:
    """Fit, predict and evaluate, and leave the results in files."""
    adata = simulate(n_spots=SPOTS, n_genes=6, seed=0)[0]
    for number in (0, 1):
        model = h2s.tl.fit(adata, model="kernel", encoder="morphology", seed=number, progress=False)
        model.save(base / f"model{number}")
        predicted = h2s.tl.predict(adata.copy(), model, progress=False)
        predicted[: SPOTS - 8 * number].copy().write_h5ad(base / f"{number}.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        h2s.tl.evaluate(predicted, model, progress=False).to_json(base / "scores.json")


def kill_writes(n: int, rng: np.random.Generator, base: Path) -> Counter[str]:
    """Kill writes over a good file of every kind: one of the two versions must be there, whole."""
    with tempfile.TemporaryDirectory() as other:
        good = Path(other)
        assert ends_well(partial(prepare, good))
        models = [h2s.TrainedModel.load(good / f"model{i}") for i in (0, 1)]
        results = [ad.read_h5ad(good / f"{i}.h5ad") for i in (0, 1)]
        scores = Evaluation.from_json(good / "scores.json")
    names = ("model", "r.h5ad", "r.zarr", "scores.json", "report.html", "patches")
    where = [base / name for name in names]
    writes: list[Callable[[int], object]] = [
        lambda i: models[i].save(where[0], overwrite=True),
        lambda i: write_one(results[i], where[1], overwrite=True),
        lambda i: write_one(results[i], where[2], overwrite=True),
        lambda i: scores.to_json(where[3]),
        lambda i: h2s.report(scores, where[4], title=f"version {i}"),
        lambda i: write_patch_folder(results[i], where[5], patch_px=16, overwrite=True),
    ]
    reads: list[Callable[[Path], object]] = [
        h2s.TrainedModel.load,
        ad.read_h5ad,
        ad.read_zarr,
        Evaluation.from_json,
        lambda path: path.read_text().rindex("</html>"),
        read_patch_folder,
    ]
    found: Counter[str] = Counter()
    took = []
    for write in writes:
        assert ends_well(partial(write, 0))
        start = time.perf_counter()
        assert ends_well(partial(write, 1))
        took.append(time.perf_counter() - start)
    number = 0
    while found["kills"] < n:
        kind = number % len(writes)
        number += 1
        was_killed = killed_after(rng.uniform(0, 1.1 * took[kind]), partial(writes[kind], number % 2))
        found["kills"] += was_killed
        found["corrupt"] += not ends_well(partial(reads[kind], where[kind]))
        if number % 20 == 0:
            print(dict(found), file=sys.stderr, flush=True)
    for write in writes:
        assert ends_well(partial(write, 0))
    found["scratch left"] = len(list(base.iterdir())) - len(writes)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", choices=["training", "writes"], action="append", help="these alone")
    given = parser.parse_args()
    h2s.settings.verbosity = "error"
    acts = {"training": kill_trainings, "writes": kill_writes}
    for name in given.of or acts:
        with tempfile.TemporaryDirectory() as base:
            found = acts[name](given.kills, np.random.default_rng(given.seed), Path(base))
        expected = ("kills", "epochs lost", "corrupt", "other weights", "scratch left")
        print(f"{name}:", ", ".join(f"{key} {found[key]}" for key in dict.fromkeys((*expected, *found))), flush=True)


if __name__ == "__main__":
    main()
