"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:100]}.", dir=above):
            pass
    except OSError as error:
        raise OSError(
            f"Nothing can be written to '{path}': {error.strerror} ('{above}'). Choose another place."
        ) from None


@contextlib.contextmanager
def replaced_whole(path: str | Path, *, folder: bool = False) -> Iterator[Path]:
    """Give a scratch path next to `path`, which takes its place once the block has ended without an error.

    What was there is set aside first, then the new one gets its name, then the old one is removed: at every moment one
    of the two is whole under its own name or next to it. If the block raises, the old one stays as it was.

    Parameters
    ----------
    path
        Where the file or folder is to appear. Folders above it are created.
    folder
        Give an empty folder instead of a path that does not exist yet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    new = scratch / path.name
    try:
        if folder:
            new.mkdir()
        yield new
        if path.is_dir() and not path.is_symlink():
            old = scratch / f"{path.name}.old"
            path.rename(old)
            try:
                new.rename(path)
            except OSError:
                old.rename(path)
                raise
        else:
            os.replace(new, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
