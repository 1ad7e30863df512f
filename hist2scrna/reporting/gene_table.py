"""The table of genes as the page holds it: every column, and which of them are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pandas.api.types import is_bool_dtype, is_numeric_dtype

if TYPE_CHECKING:
    import pandas as pd

SCALES = {"": "log-normalized", "_counts": "counts", "_residual": "Pearson residuals"}
# Shown in this order where they are: column, heading, what it means, whether there is one a scale.
SHOWN = (
    ("gene", "gene", "Name of the gene", False),
    ("level", "level", "Level of expression in the training: a third of the genes each", False),
    ("zero_rate", "zeros", "Share of spots without a count", False),
    ("truth_mean", "mean", "Mean of the truth over spots", True),
    ("pearson", "Pearson", "Correlation of prediction and truth over the spots of a section", True),
    ("depth_partial", "depth-partial", "Pearson after the log total count is regressed out of both", True),
    ("spearman", "Spearman", "Rank correlation of prediction and truth", True),
    ("depth_baseline_pearson", "depth baseline", "Pearson that the total count of the spot alone reaches", True),
    ("noise_ceiling", "noise ceiling", "Pearson that counts of this depth allow", True),
    ("spread_ratio", "spread", "Standard deviation of the prediction over that of the truth", True),
    ("mae", "MAE", "Mean absolute error", True),
    ("log_likelihood", "log-lik.", "Mean log-likelihood of a count, nats", False),
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
    scales = [{"suffix": s, "label": label} for s, label in SCALES.items() if f"pearson{s}" in columns]
    shown = [
        {"key": key, "label": label, "title": title, "scaled": scaled, "text": key in ("gene", "level")}
        for key, label, title, scaled in SHOWN
        if key in columns
    ]
    return {"columns": columns, "shown": shown, "scales": scales, "levels": list(LEVELS)}


def _plain(column: pd.Series) -> list[Any]:
    if is_bool_dtype(column):
        return [int(value) for value in column]
    if is_numeric_dtype(column):
        values = column.to_numpy(dtype=np.float64)
        return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values]
    return [None if value is None or value != value else str(value) for value in column]
