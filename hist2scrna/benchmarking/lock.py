"""One benchmark at a time in a folder: two would read each other's sections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder; the system lets go of it when this process ends, however it ends.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(
            f"Another benchmark is at work in '{folder}'. Wait until it has finished, or give this one a folder of its "
            "own: both would read the sections that the other has set aside."
        ) from None
    try:
        yield
    finally:
        lock.release()
