"""In which precision an encoder computes, and where."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, get_args

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
LOWER: dict[str, torch.dtype | None] = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device is a GPU that computes in bfloat16.

    On a CPU float32 is computed everywhere, compiled: the same features on each processor, and faster than bfloat16 is
    in torch, also on those that have it.
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def check_precision(precision: str) -> None:
    """Refuse what is no precision.

    Raises
    ------
    ValueError
        If it is none; all are named.
    """
    if precision not in LOWER:
        raise ValueError(f"Expected `precision` to be one of {list(get_args(Precision))}, found {precision!r}.")


@contextlib.contextmanager
def in_use(module: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Put a module in eval mode on the device, and afterwards back as it was."""
    if module is None:
        yield
        return
    modes = [(part, part.training) for part in module.modules()]
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    try:
        module.eval()
        if len(devices) == 1:
            module.to(device)
        yield
    finally:
        for part, training in modes:
            part.training = training
        if len(devices) == 1:
            module.to(devices.pop())
