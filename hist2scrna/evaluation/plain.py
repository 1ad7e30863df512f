"""Nested results as JSON has them, and numbers as they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def at(values: Any, path: tuple[str, ...]) -> Any:
    """Follow keys into nested dictionaries; None where one is missing."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def number(value: Any) -> str:
    """Return a number with three decimals, in powers of ten where these would hide it."""
    if value is None:
        return "-"
    return f"{value:.3f}" if 0.0005 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested dictionaries and lists, with dotted names; None becomes NaN."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from numbers({str(i): v for i, v in enumerate(value)}, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float):
            yield f"{prefix}{name}", float("nan") if value is None else float(value)


def plain(value: Any) -> Any:
    """Return nested values as JSON has them: Python's own types, None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
