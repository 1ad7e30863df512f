"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hist2scrna.messages import listed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# How the names of scratch folders begin and end: a dot and the name of what is written, and this.
PARTIAL = ".partial"
LONGEST_PART = 100
# Bytes of what a file holds beside its arrays.
HEADERS = 2**20
OLD = "old"
# Chunks of a large store are left to the system: each would wait for the disk by itself.
MOST_FLUSHED = 1000
# renameat2 of Linux and renamex_np of macOS: paths relative to the current folder, and the flag to exchange two names.
CURRENT_FOLDER, EXCHANGE = -100, 2


def require_writable(path: str | Path) -> None:
    """Refuse a place where no file or folder can appear, before the work whose result goes there.

    Raises
    ------
    OSError
        If one of the folders above it is a file, or nothing can be written there.
    """
    path = Path(path)
    above = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:LONGEST_PART]}.", dir=above):
            pass
    except OSError as error:
        raise OSError(
            f"Nothing can be written to '{path}': {error.strerror} ('{above}'). Choose another place."
        ) from None


def require_room(path: Path, n_bytes: int) -> None:
    """Refuse to begin a file for which the disk has no room: HDF5 ends the process where a disk is full.

    Raises
    ------
    OSError
        If less is free than `n_bytes` and a little for headers.
    """
    n_bytes += HEADERS
    above = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(above).free
    if free < n_bytes:
        raise OSError(
            f"'{path}' needs some {n_bytes / 2**20:.3g} MiB, and {free / 2**20:.3g} MiB are free in '{above}'. Make "
            "room, or choose another place."
        )


def require_own(folder: Path, names: Collection[str], what: str) -> None:
    """Refuse to replace a folder in which lies what its writer did not put there.

    Parameters
    ----------
    folder
        The folder that would be replaced.
    names
        Names of all that the writer puts there.
    what
        What the folder is, for the message: `"a model"`.

    Raises
    ------
    FileExistsError
        If there is anything else; it is named.
    """
    others = sorted(path.name for path in folder.iterdir() if path.name not in names)
    if others:
        raise FileExistsError(
            f"'{folder}' also holds {listed(others)}, no part of {what}, and to replace the folder would delete that. "
            "Move it away, or choose another folder."
        )


@contextlib.contextmanager
def replaced_whole(path: str | Path, *, folder: bool = False) -> Iterator[Path]:
    """Give a scratch path next to `path`, which takes its place once the block has ended without an error.

    If the block raises, or the process is killed, what was there stays as it was; see :class:`Scratch`.

    Parameters
    ----------
    path
        Where the file or folder is to appear. Folders above it are created; a link is followed.
    folder
        Give an empty folder instead of a path that does not exist yet.
    """
    scratch = Scratch(path, folder=folder)
    try:
        yield scratch.new
        scratch.take_place()
    finally:
        scratch.discard()


class Scratch:
    """A file or folder in the making, next to the place that it is to take.

    It lies in a hidden folder, which is locked as long as this process lives: the next write to the same place removes
    what writes left that were killed.

    Parameters
    ----------
    path
        Where it is to appear. Folders above it are created; a link is followed.
    folder
        Begin with an empty folder.

    Attributes
    ----------
    new
        Where to write. It has the name of `path`.
    """

    def __init__(self, path: str | Path, *, folder: bool = False) -> None:
        self.path = Path(path).resolve() if Path(path).is_symlink() else Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        clear_scratch(self.path)
        prefix, suffix = _around(self.path)
        self._folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=self.path.parent))
        self._lock = _locked(self._folder)
        self.new = self._folder / self.path.name
        if folder:
            self.new.mkdir()

    def take_place(self) -> None:
        """Take the place of what is there, which is removed afterwards; both are on the disk before and after."""
        _flush(self.new)
        if not self.path.is_dir():
            os.replace(self.new, self.path)
        elif not _exchanged(self.new, self.path):
            # For a moment nothing has the name. Whoever is killed then leaves the old one to the next write.
            old = self._folder / OLD / self.path.name
            old.parent.mkdir()
            self.path.rename(old)
            try:
                self.new.rename(self.path)
            except OSError:
                old.rename(self.path)
                raise
        _flush_names(self.path.parent)

    def discard(self) -> None:
        """Remove what has not taken its place."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _flush(path: Path) -> None:
    """Write a file, or all files of a folder, through to the disk: a power cut leaves no empty file under its name."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if len(files) > MOST_FLUSHED:
        return
    for file in files:
        with file.open("rb") as content:
            os.fsync(content.fileno())
    for folder in {file.parent for file in files if file != path}:
        _flush_names(folder)


def _flush_names(folder: Path) -> None:
    """Write the names of a folder through to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def clear_scratch(path: Path) -> None:
    """Remove what killed writes to `path` left, and bring back what they had set aside of it."""
    prefix, suffix = _around(path)
    for left in path.parent.iterdir() if path.parent.is_dir() else ():
        if not (left.name.startswith(prefix) and left.name.endswith(suffix) and left.is_dir()):
            continue
        lock = _locked(left)
        if lock is None:
            continue
        try:
            if not path.exists() and (left / OLD / path.name).exists():
                (left / OLD / path.name).rename(path)
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)


def _around(path: Path) -> tuple[str, str]:
    return f".{path.name[:LONGEST_PART]}.", PARTIAL


def _locked(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None where another holds it, or the file system has no locks."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def _exchanged(one: Path, other: Path) -> bool:
    """Give two paths each other's name at once; False where system or file system cannot do that."""
    system = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            status = system.renamex_np(*names, EXCHANGE)
        else:
            status = system.renameat2(CURRENT_FOLDER, names[0], CURRENT_FOLDER, names[1], EXCHANGE)
    except AttributeError:
        return False
    return bool(status == 0)
