"""How long work will take, told once, as soon as its first steps tell."""

from __future__ import annotations

import logging
from time import perf_counter

log = logging.getLogger(__name__)

# Seconds of steps that a duration is told from. The first, which also loads and compiles, is not among them: it counts
# only where it alone took so long that nobody should wait for the second.
MEASURED, FIRST_ALONE = 5.0, 60.0
# Seconds of work to come below which nothing is said.
LONG = 10.0


class Duration:
    """Measures steps of work, and tells once how long the others will take.

    Parameters
    ----------
    work
        What is done, as the line of the log begins: `"encoding 786 spots"`.
    total
        Number of steps.
    """

    def __init__(self, work: str, total: int) -> None:
        self.work, self.total = work, total
        self.told = False
        self.start = perf_counter()
        self.first: tuple[int, float] | None = None

    def step(self, done: int) -> None:
        """Say that so many steps are done."""
        now = perf_counter()
        if self.first is None:
            self.first = (done, now)
        since, then = self.first if now - self.start < FIRST_ALONE or done > self.first[0] else (0, self.start)
        if self.told or done == since or now - then < MEASURED:
            return
        self.told = True
        left = (now - then) / (done - since) * (self.total - done)
        if left >= LONG:
            log.info("%s: about %s", self.work, spoken(now - self.start + left))


def spoken(seconds: float) -> str:
    """Return a duration in words, to two digits: `"40 s"`, `"13 min"`, `"2.5 h"`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
    return f"{float(f'{seconds:.2g}'):g} s"
