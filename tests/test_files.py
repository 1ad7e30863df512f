"""Files and folders appear whole or not at all, whatever ends the write; what killed writes leave is removed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from forks import in_fork, killed

from hist2scrna import files
from hist2scrna.files import replaced_whole, require_own

STEPS = {"writing": "old", "removing": "new", "renames, set aside": "old", "renames, removing": "new"}


def test_a_file_is_replaced_only_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced_whole(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replaced_whole(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("folder", [False, True])
def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch, folder) -> None:
    """After a power cut the name stands for the old content or for the new one, never for an empty file."""
    done: list[str] = []
    fsync, replace, exchanged = os.fsync, os.replace, files._exchanged

    def flushed(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("renamed"), replace(*paths)))
    monkeypatch.setattr(files, "_exchanged", lambda *paths: (done.append("renamed"), exchanged(*paths))[1])
    path = tmp_path / "out"
    if folder:
        path.mkdir()
    with replaced_whole(path, folder=folder) as scratch:
        (scratch / "part" if folder else scratch).write_text("new")
    names = ["part", "out"] if folder else ["out"]
    assert done == [*names, "renamed", tmp_path.name]


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model"
    for text in ("first", "second"):
        with replaced_whole(path, folder=True) as scratch:
            (scratch / text).write_text(text)
    assert [p.name for p in path.iterdir()] == ["second"]
    with pytest.raises(RuntimeError), replaced_whole(path, folder=True) as scratch:
        (scratch / "third").write_text("third")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["second"]
    assert [p.name for p in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("exchanged", [True, False])
def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_name(tmp_path: Path, monkeypatch, exchanged) -> None:
    path = tmp_path / "model"
    with replaced_whole(path, folder=True) as scratch:
        (scratch / "weights").write_text("good")
    if not exchanged:
        monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if self.name == "model" and self.parent != tmp_path and self.parent.name != files.OLD:
            raise OSError("disk full")
        return rename(self, target)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk full|No such file"):
        patched.setattr(Path, "rename", refuse_new)
        with replaced_whole(path, folder=True) as scratch:
            if exchanged:
                scratch.rmdir()
    assert (path / "weights").read_text() == "good"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_write_loses_nothing_and_the_next_clears_up(tmp_path: Path, monkeypatch, kind: str, step: str) -> None:
    path = tmp_path / "model"
    path.mkdir() if kind == "folder" else None
    kept = path / "weights" if kind == "folder" else path
    kept.write_text("old")

    def write() -> None:
        rename = Path.rename
        if step.startswith("renames"):
            monkeypatch.setattr(files, "_exchanged", lambda *_: False)
        if step == "renames, set aside":
            monkeypatch.setattr(Path, "rename", lambda self, to: rename(self, to) if self == path else killed())
        if step.endswith("removing"):
            monkeypatch.setattr("shutil.rmtree", killed)
        with replaced_whole(path, folder=kind == "folder") as new:
            (new / "weights" if kind == "folder" else new).write_text("new")
            if step == "writing":
                killed()

    status = in_fork(write)
    if step == "renames, set aside" and kind == "file":
        # Files are never set aside.
        assert status == 0 and kept.read_text() == "new"
        return
    assert status == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 - (step == "renames, set aside")
    # A write that comes to nothing is enough.
    with pytest.raises(RuntimeError), replaced_whole(path, folder=kind == "folder"):
        assert kept.read_text() == STEPS[step]
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["model"] and kept.read_text() == STEPS[step]


def test_a_write_under_way_and_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".model.json.partial").write_text("theirs")
    (tmp_path / ".other.abc.partial").mkdir()
    with replaced_whole(tmp_path / "model") as first:
        first.write_text("first")
        with replaced_whole(tmp_path / "model") as second:
            second.write_text("second")
        assert first.read_text() == "first" and (tmp_path / "model").read_text() == "second"
    assert (tmp_path / "model").read_text() == "first"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".model.json.partial", ".other.abc.partial", "model"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for kind in ("file", "folder"):
        (tmp_path / kind).symlink_to(tmp_path / "disk" / kind)
        for text in ("first", "second"):
            with replaced_whole(tmp_path / kind, folder=kind == "folder") as new:
                (new / "w" if kind == "folder" else new).write_text(text)
        assert (tmp_path / kind).is_symlink()
        assert next((tmp_path / "disk").rglob("w" if kind == "folder" else "file")).read_text() == "second"


def test_permissions_are_those_that_the_user_has_set(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replaced_whole(tmp_path / "file") as new:
            new.write_text("")
        with replaced_whole(tmp_path / "folder", folder=True) as new:
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder")] == [0o640, 0o750]


def test_a_folder_with_anything_else_in_it_is_refused(tmp_path: Path) -> None:
    for name in ("model.json", "thesis.txt", ".git"):
        (tmp_path / name).write_text("")
    require_own(tmp_path, {"model.json", "thesis.txt", ".git", "more"}, "a model")
    with pytest.raises(FileExistsError, match=rf"'{tmp_path}' also holds \.git, thesis\.txt, no part of a model"):
        require_own(tmp_path, {"model.json"}, "a model")
