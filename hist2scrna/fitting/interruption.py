"""Ctrl-C and SIGTERM during training: it ends at once, wherever it is."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator


class Interrupted(BaseException):
    """The signal that asked this process to end.

    It is no KeyboardInterrupt, of which Lightning makes an exit of the whole process.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number

    def leave(self, message: str) -> NoReturn:
        """Go on as Python would have: Ctrl-C is a KeyboardInterrupt, after SIGTERM the process ends with status 143."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt(message) from None
        raise SystemExit(128 + self.number) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` at either signal, where this is the main thread and nobody else has asked for it."""
    ours = {}
    if threading.current_thread() is threading.main_thread():
        ours = {
            number: before
            for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
            if (before := signal.getsignal(number)) == usual
        }
    for number in ours:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, before in ours.items():
            signal.signal(number, before)


def _raise(number: int, _: Any) -> NoReturn:
    raise Interrupted(number)
