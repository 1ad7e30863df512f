"""Two evaluations of the same counts, compared gene by gene and section by section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hist2scrna.evaluation.score import Score
from hist2scrna.evaluation.scores import scores_of
from hist2scrna.metrics.blocks import Floats

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


def check_comparable(this: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Check that two evaluations scored the same counts of the same genes.

    Parameters
    ----------
    this, other
        Their `results`.

    Raises
    ------
    ValueError
        If they did not; the message names what differs.
    """
    panels, data = (this["panel"], other["panel"]), (this["data"], other["data"])
    sections = [{name: s["n_spots"] for name, s in results["sections"].items()} for results in (this, other)]
    differences = []
    if panels[0] != panels[1]:
        sizes = [panel["n_genes"] for panel in panels]
        names = ", with other names" if sizes[0] == sizes[1] else ""
        differences.append(f"the gene panels ({sizes[0]} and {sizes[1]} genes{names})")
    if sections[0] != sections[1]:
        differences.append(f"the sections and their numbers of scored spots ({sections[0]} and {sections[1]})")
    if not differences and data[0].get("sha256") != data[1].get("sha256"):
        differences.append(f"the counts (layers {data[0]['layer']!r} and {data[1]['layer']!r})")
    if this["normalization"] != other["normalization"]:
        differences.append("the normalization")
    if differences:
        raise ValueError(
            f"These evaluations cannot be compared, as they differ in {' and in '.join(differences)}. Evaluate both "
            "models on the same spots and genes: adata[:, genes].copy(), the same layer= and library_key=."
        )


def compare(
    genes: tuple[pd.DataFrame, pd.DataFrame], sections: tuple[Mapping[str, Any], Mapping[str, Any]], seed: int
) -> pd.DataFrame:
    """Return one row per measure and level; see :meth:`hist2scrna.evaluation.Evaluation.compare`."""
    rows = []
    for score in scores_of("gene", "gene counts"):
        if score.interval and all(score.name in table for table in genes):
            this, other = genes[0][score.name], genes[1][score.name].reindex(genes[0].index)
            rows.append(_over_genes(score, *_both(this, other), seed))
    if len(sections[0]) > 1:
        for score in scores_of("gene"):
            if score.interval and all(score.name in values for part in sections for values in part.values()):
                values = [[part[name][score.name] for name in sections[0]] for part in sections]
                rows.append(_over_sections(score, *_both(*values)))
    return pd.DataFrame([row for row in rows if row], columns=COLUMNS)


def _both(this: Any, other: Any) -> tuple[Floats, Floats]:
    """Return the pairs in which both numbers are defined."""
    a, b = np.asarray(this, dtype=np.float64), np.asarray(other, dtype=np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    return a[known], b[known]


def _row(score: Score, level: str, this: Floats, other: Floats) -> dict[str, Any]:
    difference = this - other
    gain = -difference if score.better == "lower" else difference
    return {
        "measure": score.name,
        "level": level,
        "n": len(difference),
        "value": float(this.mean()),
        "other": float(other.mean()),
        "difference": float(difference.mean()),
        "better": float((gain > 0).mean()),
        "worse": float((gain < 0).mean()),
    }


def _over_genes(score: Score, this: Floats, other: Floats, seed: int) -> dict[str, Any]:
    if len(this) < 2:
        return {}
    difference = this - other
    low = high = float(difference[0])
    if np.ptp(difference) > 0:
        resampled = stats.bootstrap(
            (difference,),
            np.mean,
            n_resamples=N_RESAMPLES,
            batch=500,
            method="percentile",
            random_state=np.random.default_rng(seed),
        )
        low, high = (float(v) for v in resampled.confidence_interval)
    return {
        **_row(score, "gene", this, other),
        "low": low,
        "high": high,
        "interval": "95 %, bootstrap over genes",
        # The test leaves out ties; where all are ties, nothing speaks for a difference.
        "p_value": float(stats.wilcoxon(this, other).pvalue) if (difference != 0).any() else 1.0,
        "test": "Wilcoxon signed-rank",
    }


def _over_sections(score: Score, this: Floats, other: Floats) -> dict[str, Any]:
    if len(this) < 2:
        return {}
    difference = this - other
    low = high = float(difference.mean())
    p_value = 1.0 if low == 0 else 0.0
    if np.ptp(difference) > 0:
        test = stats.ttest_rel(this, other)
        low, high = (float(v) for v in test.confidence_interval(0.95))
        p_value = float(test.pvalue)
    return {
        **_row(score, "section", this, other),
        "low": low,
        "high": high,
        "interval": "95 %, Student's t over sections",
        "p_value": p_value,
        "test": "paired t",
    }
