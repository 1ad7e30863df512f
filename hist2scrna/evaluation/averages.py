"""Averages over genes, spots and sections, in which undefined values do not count."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from hist2scrna.metrics.blocks import Floats

FUNCTIONS: dict[str, Any] = {"mean": np.nanmean, "median": np.nanmedian}


def average(values: Floats, kind: str, axis: int | None = None) -> Any:
    """Return the `"mean"` or `"median"` of the defined values; NaN, without a warning, where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return FUNCTIONS[kind](values, axis=axis)


def nan_mean(values: Floats, axis: int | None = None) -> Any:
    """Return the mean of the defined values."""
    return average(values, "mean", axis)


def over_sections(values: Floats, kind: str = "mean") -> float:
    """Average `(sections, genes)` over the genes, then over the sections: the protocol of the field."""
    return float(nan_mean(average(values, kind, axis=1)))


def share(flags: Any) -> float:
    """Return the mean of flags, NaN if there is none."""
    return float(np.mean(flags)) if len(flags) else float("nan")
