"""Training that is killed goes on from its last whole epoch, to the weights that it would have had without."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import fast
from forks import in_fork, killed, start_fork, status_of
from safetensors.torch import save_file
from sections import section

from hist2scrna import TrainedModel
from hist2scrna.fitting.checkpoint import BEST, LAST, TrainingCheckpoint
from hist2scrna.tl import fit

TRAINING = {"max_epochs": 4, "batch_size": 12, "lr": 3e-3, "labels_key": "cell_type"}


def train(folder: Path | None, **changed: object) -> TrainedModel:
    # As in a fork: with other threads, sums are in another order.
    torch.set_num_threads(1)
    return fit(section(n_spots=24), **fast(**TRAINING | {"checkpoint_dir": folder} | changed))


def train_until_kept(folder: Path, times: int, **changed: object) -> None:
    """Train in a fork that is killed once so many epochs were kept, in the middle of keeping one more."""
    save, kept = TrainingCheckpoint.save, []

    def count(self: TrainingCheckpoint, state: object) -> None:
        if len(kept) == times:
            killed()
        save(self, state)
        kept.append(state)

    def act() -> None:
        TrainingCheckpoint.save = count
        train(folder, **changed)

    assert in_fork(act) == -signal.SIGKILL


def assert_same(one: TrainedModel, other: TrainedModel) -> None:
    for name, value in one.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[name]), name
    assert one.history.drop(columns="seconds").equals(other.history.drop(columns="seconds"))
    assert one.training["best_epoch"] == other.training["best_epoch"]


@pytest.fixture(scope="module")
def undisturbed() -> TrainedModel:
    return train(None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(folder, max_epochs=1)
    return folder


def test_training_that_was_killed_twice_ends_with_the_same_weights(undisturbed, tmp_path) -> None:
    for times in (1, 2):
        train_until_kept(tmp_path, times)
    model = train(tmp_path)
    assert_same(model, undisturbed)
    assert_same(TrainedModel.load(tmp_path / BEST), model)
    assert (np.diff(model.history["seconds"]) > 0).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, LAST]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "none"])
@pytest.mark.parametrize(
    "changed", [{}, {"validation": 0}, {"accumulate": 2, "optimizer": "adam", "patience": 1, "max_epochs": 8}], ids=str
)
def test_whatever_changes_from_epoch_to_epoch_is_kept(tmp_path, schedule, changed) -> None:
    changed = {"schedule": schedule, **changed}
    for _ in range(2):
        train_until_kept(tmp_path, 1, **changed)
    assert_same(train(tmp_path, **changed), train(None, **changed))


def test_finished_training_is_not_repeated(finished, monkeypatch) -> None:
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda *_, **__: pytest.fail("trained again"))
    assert_same(train(finished, max_epochs=1), TrainedModel.load(finished / BEST))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr": 1e-3}, r"parameters\.training\.lr 0.003 there, 0.001 here"),
        ({"seed": 1}, r"parameters\.seed 0 there, 1 here"),
        ({"width": 48}, r"options\.width 96 there, 48 here"),
        ({"labels_key": None}, "classes .*stroma.* there"),
    ],
)
def test_another_training_is_refused_and_harms_nothing(finished, changed, named) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=rf"'{finished / LAST}' was kept by a training that differs.*{named}"):
        train(finished, **{"max_epochs": 1} | changed)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_other_counts_and_another_image_are_refused(finished) -> None:
    for named, change in (("counts", "X"), ("patches", "image")):
        adata = section(n_spots=24)
        if change == "X":
            adata.X[0, 0] += 1
        else:
            adata.uns["spatial"]["s0"]["images"]["hires"][40:60] //= 2
        with pytest.raises(ValueError, match=f"differs from this one:.*{named}"):
            fit(adata, **fast(**TRAINING | {"checkpoint_dir": finished, "max_epochs": 1}))


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", ["pickle", "torch", "empty", "no header", "flipped"])
def test_what_is_no_checkpoint_is_refused_and_not_run(finished, tmp_path, monkeypatch, content) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / LAST
    good = bytearray((finished / LAST).read_bytes())
    good[-100] ^= 1
    match content:
        case "pickle":
            path.write_bytes(pickle.dumps(_Evil()))
        case "torch":
            torch.save(_Evil(), path)
        case "no header":
            save_file({"0": torch.zeros(3)}, path)
        case _:
            path.write_bytes(b"" if content == "empty" else good)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"'{path}' is damaged.*Delete it to train from the beginning"):
        train(tmp_path, max_epochs=1)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [LAST]


def test_what_is_kept_comes_back_as_it_was(tmp_path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    state = {
        "weights": {"a": tied, "b": tied.T, "empty": torch.empty(0), "half": tied.bfloat16(), "step": torch.tensor(3)},
        "by number": {0: {"rate": 1e-30, "betas": [0.9, 0.999]}, 7: {}},
        "plain": [None, True, float("inf"), 10**30, "text", [], {}],
    }
    kept = TrainingCheckpoint(tmp_path / "deep", {"seed": 0})
    assert kept.load() is None
    kept.save(state)
    back = kept.load()
    for name, value in state["weights"].items():
        assert torch.equal(back["weights"][name], value) and back["weights"][name].dtype == value.dtype
    assert back["by number"] == state["by number"] and back["plain"] == state["plain"]


def test_a_folder_that_holds_more_is_refused_before_training(tmp_path, monkeypatch) -> None:
    train(tmp_path, max_epochs=1)
    (tmp_path / BEST / "thesis.txt").write_text("precious")
    monkeypatch.setattr("hist2scrna.trained.fit.read_data", lambda *_: pytest.fail("read"))
    with pytest.raises(FileExistsError, match=r"also holds thesis\.txt"):
        train(tmp_path, max_epochs=1)
    assert (tmp_path / BEST / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(("number", "status", "kept"), [(signal.SIGTERM, 143, True), (signal.SIGINT, 1, False)])
def test_a_signal_ends_training_and_what_was_saved_is_named(tmp_path, capfd, number, status, kept) -> None:
    """The parent waits for the first epochs, sends the signal, and waits for the end; training alone would be long."""
    begun = tmp_path / "begun"

    def act() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logging.getLogger().handlers.clear()
        train(tmp_path / "kept" if kept else None, max_epochs=100_000, patience=0, losses={"watch": (watch, 1.0)})

    def watch(prediction: object, batch: object) -> torch.Tensor:
        watch.calls += 1
        if watch.calls == 12:
            begun.write_text("")
        return prediction.log_mu.sum() * 0

    watch.calls = 0
    child = start_fork(act)
    while not begun.exists():
        time.sleep(0.01)
    os.kill(child, number)
    assert status_of(child) == status
    said = "".join(capfd.readouterr())
    assert f"Training was interrupted by {signal.Signals(number).name} after" in said
    expected = f"goes on from the last whole epoch, in '{tmp_path / 'kept' / LAST}'" if kept else "Nothing was saved"
    assert expected in said
    if kept:
        assert TrainedModel.load(tmp_path / "kept" / BEST).training["best_epoch"] >= 0


def test_a_signal_in_a_finalizer_ends_training_too(tmp_path, capfd) -> None:
    """What is raised within a finalizer, Python ignores."""

    class Last:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def watch(prediction: object, batch: object) -> torch.Tensor:
        if not Path("sent").exists():
            Path("sent").write_text("")
            Last()
        return prediction.log_mu.sum() * 0

    def act() -> None:
        os.chdir(tmp_path)
        logging.getLogger().handlers.clear()
        train(None, max_epochs=100_000, patience=0, losses={"watch": (watch, 1.0)})

    assert in_fork(act) == 143
    assert "Training was interrupted by SIGTERM after" in "".join(capfd.readouterr())
