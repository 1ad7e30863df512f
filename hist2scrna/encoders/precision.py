"""In which precision an encoder computes, and where."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Literal, get_args

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
LOWER: dict[str, torch.dtype | None] = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16, so that it is not slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    # oneDNN, which computes in it, may be held to older instructions, and then emulates it.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if limit not in ("ALL", "DEFAULT") and not any(name in limit for name in ("BF16", "AMX")):
        return False
    # Older versions of torch cannot tell.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


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
