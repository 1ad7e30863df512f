"""What the caller has switched on in PyTorch does not reach in here: numbers are the same whoever calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

DEVICES = ("cpu", "cuda", "mps")


@contextlib.contextmanager
def own_torch() -> Iterator[None]:
    """Compute in float32 with gradients, whatever autocast, default dtype, `no_grad` or `inference_mode` hold outside.

    Also a decorator of functions. All is as it was afterwards.
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
