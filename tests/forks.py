"""A copy of this process, to be killed, or to run out of what it needs, in place of the tests."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import torch
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable


def start_fork(act: Callable[[], object]) -> int:
    """Call a function in a fork, in one thread, and return the number of its process."""
    child = os.fork()
    if child:
        return child
    status = 1
    # The other threads of OpenMP stay behind in the parent, and whoever hands them work waits forever.
    torch.set_num_threads(1)
    threadpool_limits(1)
    try:
        act()
        status = 0
    except SystemExit as left:
        status = int(left.code or 0)
    except BaseException:  # noqa: BLE001 - the fork must not go on as a second run of the tests
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def status_of(child: int) -> int:
    """Wait for a fork and return its exit status: 0, 1 after an error, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_fork(act: Callable[[], object]) -> int:
    """Call a function in a fork, and return its exit status as :func:`status_of` does."""
    return status_of(start_fork(act))


def killed(*_: object, **__: object) -> NoReturn:
    """End this process as the kernel or a user would: nothing is cleared up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
