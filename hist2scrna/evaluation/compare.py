"""Two evaluations of the same counts, compared gene by gene and section by section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hist2scrna.metrics.blocks import Floats

# Of the table of genes and of the sections; all are better when higher.
BY_GENE = ("pearson", "depth_partial", "log_likelihood")
BY_SECTION = ("pearson", "depth_partial")
N_RESAMPLES = 9999
COLUMNS = [
    "measure",
    "level",
    "n",
    "value",
    "other",
    "difference",
    "low",
    "high",
    "interval",
    "p_value",
    "test",
    "better",
    "worse",
]


def check_comparable(mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Check that two evaluations scored the same counts of the same genes.

    Parameters
    ----------
    mine, other
        Their `results`.

    Raises
    ------
    ValueError
        If they did not; the message names what differs.
    """
    panels, data = (mine["panel"], other["panel"]), (mine["data"], other["data"])
    sections = [{name: s["n_spots"] for name, s in found["sections"].items()} for found in (mine, other)]
    wrong = []
    if panels[0] != panels[1]:
        sizes = [panel["n_genes"] for panel in panels]
        names = ", with other names" if sizes[0] == sizes[1] else ""
        wrong.append(f"the gene panels ({sizes[0]} and {sizes[1]} genes{names})")
    if sections[0] != sections[1]:
        wrong.append(f"the sections and their numbers of scored spots ({sections[0]} and {sections[1]})")
    if not wrong and data[0].get("sha256") != data[1].get("sha256"):
        wrong.append(f"the counts (layers {data[0]['layer']!r} and {data[1]['layer']!r})")
    if mine["normalization"] != other["normalization"]:
        wrong.append("the normalization")
    if wrong:
        raise ValueError(
            f"These evaluations cannot be compared, as they differ in {' and in '.join(wrong)}. Evaluate both models "
            "on the same spots and genes: adata[:, genes].copy(), the same layer= and library_key=."
        )


def compare(
    genes: tuple[pd.DataFrame, pd.DataFrame], sections: tuple[Mapping[str, Any], Mapping[str, Any]], seed: int
) -> pd.DataFrame:
    """Return one row a measure and level; see :meth:`hist2scrna.evaluation.Evaluation.compare`."""
    rows = []
    for measure in BY_GENE:
        if all(measure in table for table in genes):
            mine, other = genes[0][measure], genes[1][measure].reindex(genes[0].index)
            rows.append(_over_genes(measure, *_both(mine, other), seed))
    if len(sections[0]) > 1:
        for measure in BY_SECTION:
            values = [[part[name][measure] for name in sections[0]] for part in sections]
            rows.append(_over_sections(measure, *_both(*values)))
    return pd.DataFrame([row for row in rows if row], columns=COLUMNS)


def _both(mine: Any, other: Any) -> tuple[Floats, Floats]:
    """Return the pairs in which both numbers are defined."""
    a, b = np.asarray(mine, dtype=np.float64), np.asarray(other, dtype=np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    return a[known], b[known]


def _row(measure: str, level: str, mine: Floats, other: Floats) -> dict[str, Any]:
    difference = mine - other
    return {
        "measure": measure,
        "level": level,
        "n": len(difference),
        "value": float(mine.mean()),
        "other": float(other.mean()),
        "difference": float(difference.mean()),
        "better": float((difference > 0).mean()),
        "worse": float((difference < 0).mean()),
    }


def _over_genes(measure: str, mine: Floats, other: Floats, seed: int) -> dict[str, Any]:
    if len(mine) < 2:
        return {}
    difference = mine - other
    equal = np.ptp(difference) == 0
    low = high = float(difference[0])
    if not equal:
        drawn = stats.bootstrap(
            (difference,),
            np.mean,
            n_resamples=N_RESAMPLES,
            batch=500,
            method="percentile",
            random_state=np.random.default_rng(seed),
        )
        low, high = (float(v) for v in drawn.confidence_interval)
    return {
        **_row(measure, "gene", mine, other),
        "low": low,
        "high": high,
        "interval": "95 %, bootstrap over genes",
        # The test leaves out ties; of nothing but ties it can say nothing against.
        "p_value": float(stats.wilcoxon(mine, other).pvalue) if (difference != 0).any() else 1.0,
        "test": "Wilcoxon signed-rank",
    }


def _over_sections(measure: str, mine: Floats, other: Floats) -> dict[str, Any]:
    if len(mine) < 2:
        return {}
    difference = mine - other
    low = high = float(difference.mean())
    p_value = 1.0 if low == 0 else 0.0
    if np.ptp(difference) > 0:
        found = stats.ttest_rel(mine, other)
        low, high = (float(v) for v in found.confidence_interval(0.95))
        p_value = float(found.pvalue)
    return {
        **_row(measure, "section", mine, other),
        "low": low,
        "high": high,
        "interval": "95 %, Student's t over sections",
        "p_value": p_value,
        "test": "paired t",
    }
