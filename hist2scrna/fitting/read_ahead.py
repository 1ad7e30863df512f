"""Read the next batches while one is computed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Barrier
from typing import TYPE_CHECKING, TypeVar

import torch

from hist2scrna.processors import usable_processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Read = TypeVar("Read")


# More threads that read find no more to do.
MOST_READERS = 8


def readers(n: int) -> int:
    """Return how many threads are to read `n` items."""
    return max(1, min(MOST_READERS, usable_processors(), n))


def read_ahead(items: Iterable[Item], read: Callable[[Item], Read], *, workers: int = 1) -> Iterator[tuple[Item, Read]]:
    """Yield each item with what `read` makes of it, in order, while threads read those that follow.

    An error of `read` is raised where its item would have come. At most `workers` + 1 results wait, so that memory does
    not grow with the number of items.

    Parameters
    ----------
    items
        What to read, such as blocks of spots.
    read
        Reads one; it is called in other threads, and in each of these torch computes with one thread.
    workers
        Number of threads.
    """
    waiting = iter(items)
    pool = _pool(workers)
    try:
        ahead = deque((item, pool.submit(read, item)) for item in islice(waiting, workers + 1))
        while ahead:
            item, future = ahead.popleft()
            result = future.result()
            ahead.extend((following, pool.submit(read, following)) for following in islice(waiting, 1))
            yield item, result
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ThreadPoolExecutor:
    """Return a pool in whose threads torch computes with one thread, while it keeps its number in this one."""
    threads = torch.get_num_threads()
    ready = Barrier(workers + 1)

    def start() -> None:
        torch.set_num_threads(1)
        # A thread takes the number over when it first asks for it.
        torch.get_num_threads()
        ready.wait()

    pool = ThreadPoolExecutor(workers, initializer=start)
    for _ in range(workers):
        pool.submit(int)
    ready.wait()
    # What one thread sets is what the next ones begin with, and what torch says of all.
    torch.set_num_threads(threads)
    return pool
