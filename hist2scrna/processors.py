"""How many processors this process may use, and the number of threads that follows from it."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
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


def chosen_by_user() -> bool:
    """Whether an environment variable says how many threads there are to be."""
    return any(os.environ.get(name) for name in CHOSEN_BY)


@contextlib.contextmanager
def threads(most: int | None = None) -> Iterator[int]:
    """Within it, torch and the linear algebra of NumPy run no more threads than there are usable processors.

    Afterwards they have as many as before. A number that the user has chosen, by `torch.set_num_threads` or an
    environment variable such as `OMP_NUM_THREADS`, is never raised.

    Parameters
    ----------
    most
        Most threads, where the work gains nothing by more.

    Yields
    ------
    The number of threads of torch.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    here = max(1, min(before, usable_processors(), most or before))
    try:
        with threadpool_limits(here, user_api="blas"):
            torch.set_num_threads(here)
            yield here
    finally:
        torch.set_num_threads(before)
