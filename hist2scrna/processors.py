"""How many processors this process may use, and the number of threads that follows from it."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
STATISTICS = Path("/proc/stat")
# Seconds over which others are watched at first, and after which they are looked at again.
FIRST_LOOK, NEXT_LOOK = 0.1, 3.0
SLACK = 0.3
# By any of these the user has said how many threads there are to be.
CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def usable_processors() -> int:
    """Return how many processors this process may use, at least 1.

    The machine's own count is too high in a container, in a job of a cluster or under `taskset`: what counts is the
    affinity of the process, and the quota of its control group (versions 1 and 2) and of the groups above it, rounded
    up.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    here = (os.cpu_count() or 1) if affinity is None else len(affinity(0))
    return max(1, math.ceil(min(here, _quota())))


def _quota() -> float:
    """Return the least quota of the control groups of this process, in processors; infinite where there is none."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        group = root / path.strip("/")
        # Within a container the path may be that of the host: the root of what is mounted is then the group.
        for folder in (group, *(above for above in group.parents if above.is_relative_to(root))):
            quotas.append(_quota_of(folder))
    return min(quotas)


def _quota_of(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):
        # No such file, or `max`: no quota.
        return math.inf


class Neighbors:
    """How many processors other programs leave, measured from one call to the next.

    Work that is split evenly waits for its slowest part: with one of two processors taken, two threads are several
    times as slow as one.
    """

    def __init__(self) -> None:
        self.last = _busy(), time.process_time(), time.perf_counter()

    def left(self) -> int:
        """Return how many processors others left to this process since the last call, at least 1.

        Where the system does not tell how busy its processors are, all that may be used.
        """
        now = _busy(), time.process_time(), time.perf_counter()
        before, self.last = self.last, now
        usable, seconds = usable_processors(), now[2] - before[2]
        if now[0] is None or before[0] is None or seconds <= 0:
            return usable
        others = (now[0] - before[0] - (now[1] - before[1])) / seconds
        # Between two ticks of the clock, and by what the system does, some hundredths are always taken.
        return max(1, min(usable, math.floor(usable - others + SLACK)))


def _busy() -> float | None:
    """Return the seconds for which the processors that this process may use were busy; None if that is not told."""
    try:
        lines = STATISTICS.read_text(encoding="utf-8").splitlines()
        own = os.sched_getaffinity(0)
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
    total = 0.0
    for line in lines:
        name, *times = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in own:
            user, nice, system, _, _, *interrupts = (int(value) for value in times[:8])
            total += (user + nice + system + sum(interrupts)) / ticks
    return total


def chosen_by_user() -> bool:
    """Whether an environment variable says how many threads there are to be."""
    return any(os.environ.get(name) for name in CHOSEN_BY)


@contextlib.contextmanager
def threads() -> Iterator[Callable[[], None]]:
    """Within it, torch and the linear algebra of NumPy run as many threads as other programs leave processors.

    Afterwards they have as many as before. The number is never higher than the one that torch has; where an environment
    variable such as `OMP_NUM_THREADS` chooses one, that is kept.

    Yields
    ------
    A function that looks again, for work that takes long: it does so every few seconds at most, and may be called as
    often as one likes.
    """
    import torch
    from threadpoolctl import ThreadpoolController

    before = torch.get_num_threads()
    if before == 1 or chosen_by_user():
        yield lambda: None
        return
    neighbors, looked = Neighbors(), time.perf_counter()
    time.sleep(FIRST_LOOK)

    def again() -> None:
        nonlocal looked
        if time.perf_counter() - looked >= NEXT_LOOK:
            looked = time.perf_counter()
            torch.set_num_threads(min(before, neighbors.left()))

    here = min(before, neighbors.left())
    try:
        with ThreadpoolController().limit(limits=here, user_api="blas"):
            torch.set_num_threads(here)
            yield again
    finally:
        torch.set_num_threads(before)
