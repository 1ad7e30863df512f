"""The process of a job: its peak memory, and its end."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Return the most memory that this process held at once, resident, in bytes."""
    # On Linux `ru_maxrss` begins at what the parent process held, whatever was executed since; VmHWM does not.
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def end_with_parent(parent: int, interval: float = 2.0) -> None:
    """End this process soon after `parent`, the one that started it and would read its results."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
