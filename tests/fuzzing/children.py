"""A case in a process of its own, with little memory and little time, and what became of it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hist2scrna
from hist2scrna.cli.errors import EXPECTED

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = str(Path(hist2scrna.__file__).parent)
# Beyond what the process holds already. The largest seed needs some 60 MiB.
MEMORY = 1 << 30
SECONDS = 30.0
LARGEST_FILE = 1 << 28


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes
    ----------
    kind
        `"taken"`, `"refused"` (by an error of ours), or what must not be: `"foreign error"`, `"memory"`, `"hang"`,
        `"crash"`.
    said
        The error.
    where
        Its traceback, where it must not be.
    """

    kind: str
    said: str = ""
    where: str = ""

    @property
    def good(self) -> bool:
        return self.kind in ("taken", "refused")


def judged(error: BaseException) -> Outcome:
    """Tell an error that a line of ours raises from one of somewhere below that slipped through."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, MemoryError) or "can't allocate memory" in said:
        kind = "memory"
    else:
        innermost = traceback.extract_tb(error.__traceback__)[-1].filename
        kind = "refused" if isinstance(error, EXPECTED) and innermost.startswith(PACKAGE) else "foreign error"
    shown = "" if kind == "refused" else "".join(traceback.format_exception(error))[-4000:]
    return Outcome(kind, said, shown)


def attempt(case: Callable[[], None]) -> Outcome:
    """Run a case here, and judge what it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case()
    except BaseException as error:  # noqa: BLE001 - whatever comes is what is asked for
        return judged(error)
    return Outcome("taken")


def in_child(case: Callable[[], None], *, memory: int = MEMORY, seconds: float = SECONDS) -> Outcome:
    """Run a case in a forked process: it can take neither this process nor the machine with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _limit(memory, seconds)
        outcome = attempt(case)
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps([outcome.kind, outcome.said, outcome.where]).encode()[: 1 << 15])
        os._exit(0)
    os.close(writer)
    told = b""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        if not (part := os.read(reader, 1 << 16)):
            break
        told += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    if told:
        return Outcome(*json.loads(told))
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return Outcome("hang", f"not done after {seconds:g} s")
    return Outcome("crash", f"its process ended with status {status}")


def _limit(memory: int, seconds: float) -> None:
    # The streams of the parent, which the child would write to.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.dup2(null, sys.stderr.fileno())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CPU, (int(2 * seconds), int(2 * seconds)))
    if Path("/proc/self/statm").is_file():
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
