"""What the caller has switched on in PyTorch does not reach in here: numbers are the same whoever calls."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
R = TypeVar("R")

DEVICES = ("cpu", "cuda", "mps")


@contextlib.contextmanager
def own_torch() -> Iterator[None]:
    """Compute in float32 with gradients, whatever autocast, default dtype, `no_grad` or `inference_mode` hold outside.

    All is as it was afterwards.
    """
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def in_own_torch(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function compute as :func:`own_torch` says; its frames are ours, so that warnings point at the caller."""

    @functools.wraps(function)
    def run(*values: P.args, **named: P.kwargs) -> R:
        with own_torch():
            return function(*values, **named)

    return run
