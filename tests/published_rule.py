"""Weights that follow from their published names alone, as the reference outputs of full-size networks have them."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch


def unit(name: str, n: int) -> np.ndarray:
    """`n` numbers in [0, 1) that follow from a name, by splitmix64."""
    z = (np.uint64(zlib.crc32(name.encode())) << np.uint64(32)) + np.arange(n, dtype=np.uint64)
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53


def weight_by_rule(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    values = unit(name, math.prod(shape))
    if name.endswith("running_var"):
        values = 0.5 + values
    elif name.endswith(("bias", "running_mean")):
        values = 0.2 * (values - 0.5)
    elif len(shape) == 1:
        values = 0.5 + values
    else:
        values = (2 * values - 1) * (6 / math.prod(shape[1:])) ** 0.5
    return torch.from_numpy(values.astype(np.float32)).view(shape)
