"""The table of genes as the page holds it: every column, and which of them are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from hist2scrna.evaluation.predictors import HEADLINE, NOISE_CEILING, SCALE_LABELS
from hist2scrna.evaluation.scores import scores_of

if TYPE_CHECKING:
    import pandas as pd

# Columns that are no score: name, heading, what it means, and whether there is one for each scale.
Column = tuple[str, str, str, bool]
FIRST: tuple[Column, ...] = (
    ("gene", "gene", "Name of the gene", False),
    ("level", "level", "Level of expression in the training data: a third of the genes each", False),
    ("zero_rate", "zeros", "Share of spots without a count", False),
)
LIMITS: tuple[Column, ...] = (
    ("depth_baseline_pearson", "depth baseline", "Pearson that the total count of the spot alone reaches", True),
    ("noise_ceiling", NOISE_CEILING, "Pearson that counts of this depth allow", True),
)
LEVELS = ("low", "medium", "high")
DIGITS = 6


def gene_data(genes: pd.DataFrame) -> dict[str, Any]:
    """Return what the page's script needs.

    Parameters
    ----------
    genes
        `Evaluation.genes`.

    Returns
    -------
    `"columns"`: all columns by name, as lists, `"gene"` first; numbers to six digits, None where undefined. `"shown"`:
    the columns to show. `"scales"`: suffixes of columns, with the name of the scale. `"levels"`: their order.
    """
    columns = {"gene": [str(gene) for gene in genes.index]}
    columns |= {str(name): _plain(genes[name]) for name in genes.columns}
    suffixes = {"" if scale == HEADLINE else f"_{scale}": label for scale, label in SCALE_LABELS.items()}
    scales = [{"suffix": s, "label": label} for s, label in suffixes.items() if f"pearson{s}" in columns]
    shown = [
        {"key": key, "label": label, "title": title, "scaled": scaled, "text": key in ("gene", "level")}
        for key, label, title, scaled in _shown()
        if key in columns
    ]
    return {"columns": columns, "shown": shown, "scales": scales, "levels": list(LEVELS)}


def _shown() -> list[Column]:
    """Return the columns to show, in their order."""
    scores = [
        (score.name, score.heading, score.description or score.label, score.of == "gene")
        for score in scores_of("gene", "gene counts")
        if score.heading is not None
    ]
    return [*FIRST, *scores, *LIMITS]


def _plain(column: pd.Series) -> list[Any]:
    if is_bool_dtype(column):
        return [int(value) for value in column]
    if is_numeric_dtype(column):
        values = column.to_numpy(dtype=np.float64)
        return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values]
    return [None if value is None or value != value else str(value) for value in column]
