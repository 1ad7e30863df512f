"""Writes that fail half-way: a full disk and a folder that takes nothing are said, and what was there stays."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from builders import fast
from forks import in_fork
from fuzzing.run import IMPORTED
from sections import section

from hist2scrna import pl, pp
from hist2scrna.cli.errors import EXPECTED
from hist2scrna.cli.writing import write_one, write_spatialdata
from hist2scrna.fitting.checkpoint import TrainingCheckpoint
from hist2scrna.io import to_spatialdata, write_patch_folder
from hist2scrna.tl import evaluate, fit, predict

if TYPE_CHECKING:
    from collections.abc import Callable

# Bytes that a file may have: headers go through, contents do not.
LIMIT = 200


@pytest.fixture(scope="module")
def good() -> dict[str, object]:
    """A model, its prediction and its evaluation."""
    for name in IMPORTED:
        importlib.import_module(name)
    model = fit(section(), **fast(labels_key="cell_type"))
    predicted = predict(section(), model, progress=False)
    with pytest.warns(UserWarning, match="NOT HELD OUT"):
        scores = evaluate(predicted, model, progress=False)
    return {"model": model, "predicted": predicted, "scores": scores}


@pytest.fixture(autouse=True)
def _without_threads_of_zarr(request) -> None:
    """No fork has the threads that zarr has once started: it would wait for them for ever."""
    if "zarr" in str(request.node.name) or "spatialdata" in str(request.node.name):
        from zarr.core.sync import loop

        if loop[0] is not None:
            pytest.skip("zarr was used in this process before; run this file alone")


def _streamed(g: dict, path: Path) -> None:
    predict(section(), g["model"], store=path, progress=False)


# Each writes to a folder in which an older version lies.
WRITERS: dict[str, Callable[[dict, Path], object]] = {
    "model": lambda g, folder: g["model"].save(folder / "model", overwrite=True),
    "h5ad": lambda g, folder: write_one(g["predicted"], folder / "x.h5ad", overwrite=True),
    "zarr": lambda g, folder: write_one(g["predicted"], folder / "x.zarr", overwrite=True),
    "spatialdata": lambda g, folder: write_spatialdata(
        to_spatialdata(section()), folder / "sdata.zarr", overwrite=True
    ),
    "evaluation": lambda g, folder: g["scores"].to_json(folder / "scores.json"),
    "figure": lambda g, folder: pl.calibration(g["scores"], show=False, save=folder / "figure.png"),
    "patches": lambda g, folder: write_patch_folder(section(), folder / "patches", patch_px=16, overwrite=True),
    "checkpoint": lambda g, folder: TrainingCheckpoint(folder, {}).save({"model": g["model"].module.state_dict()}),
    "features": lambda g, folder: pp.extract_features(section(), "morphology", store=folder / "store", progress=False),
}
STREAMED = {
    f"streamed {end}": lambda g, folder, end=end: _streamed(g, folder / f"new.{end}") for end in ("h5ad", "zarr")
}
# The others compute: a fork of a process in which Numba ran in parallel is ended there. They run as slow.
QUICK = ("model", "checkpoint")
KINDS = [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in (*WRITERS, *STREAMED)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fails_well(act: Callable[[], object]) -> None:
    """Call a function; it must fail by an error that the shell says in a line, or by one of the disk."""
    try:
        act()
    except (*EXPECTED, RuntimeError):
        return
    raise AssertionError("it did not fail")


def limited(act: Callable[[], object]) -> Callable[[], object]:
    def inner() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
        fails_well(act)

    return inner


@pytest.mark.parametrize("kind", KINDS)
def test_where_files_cannot_grow_the_old_version_stays(good, tmp_path, kind) -> None:
    write = (WRITERS | STREAMED)[kind]
    if kind in WRITERS and kind != "features":
        assert in_fork(lambda: write(good, tmp_path)) == 0
    before = contents(tmp_path)
    assert in_fork(limited(lambda: write(good, tmp_path))) == 0
    after = {name: held for name, held in contents(tmp_path).items() if "store/" not in name and ".partial" not in name}
    assert after == before
    # And once there is room, the same call writes it.
    assert in_fork(lambda: write(good, tmp_path)) == 0
    assert contents(tmp_path).keys() > before.keys() or contents(tmp_path).keys() == before.keys()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own that holds one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*WRITERS, *STREAMED])
def test_a_disk_that_is_full_is_said_and_the_old_version_stays(good, small_disk, kind) -> None:
    with (small_disk / "precious").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    os.truncate(small_disk / "precious", (small_disk / "precious").stat().st_size - 2 * 4096)
    before = contents(small_disk)
    assert in_fork(lambda: fails_well(lambda: (WRITERS | STREAMED)[kind](good, small_disk))) == 0
    after = contents(small_disk)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
@pytest.mark.parametrize("kind", [*WRITERS, *STREAMED])
def test_a_folder_that_takes_nothing_is_said(good, tmp_path, kind) -> None:
    (tmp_path / "here").mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)

    def act() -> None:
        os.setegid(65534)
        os.seteuid(65534)
        fails_well(lambda: (WRITERS | STREAMED)[kind](good, tmp_path / "here"))

    assert in_fork(act) == 0
    assert contents(tmp_path) == {}
