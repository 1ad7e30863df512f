"""From scores by section and gene to what an evaluation holds: plain numbers, and a table of genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hist2scrna.evaluation.averages import average, nan_mean, over_sections, share
from hist2scrna.evaluation.passes import GeneScores
from hist2scrna.evaluation.predictors import BASELINES, HEADLINE
from hist2scrna.evaluation.scores import by_section, scores_of, with_average
from hist2scrna.metrics.blocks import Floats

# A prediction is called collapsed if that of the median gene varies by less than this share of what the truth does.
COLLAPSED = 0.05
LEVELS = ("low", "medium", "high")


@dataclass(frozen=True)
class NoiseCeiling:
    """What counts of this depth allow at most.

    Attributes
    ----------
    method
        `"true means"` or `"binomial thinning"`.
    limits
        By entry of the results, a scale or `"depth_partial"`: `(sections, genes)`.
    thinning
        By scale, what thinning gives.
    """

    method: str
    limits: dict[str, Floats]
    thinning: dict[str, Floats]

    def results(self) -> dict[str, Any]:
        """Return means and medians over the genes."""
        return {
            "method": self.method,
            **{name: middle(values) for name, values in self.limits.items()},
            "thinning": {scale: middle(values) for scale, values in self.thinning.items()},
        }


def middle(values: Floats) -> dict[str, float]:
    """Return mean and median over the genes, averaged over the sections."""
    return {kind: over_sections(values, kind) for kind in ("mean", "median")}


def summarize_genes(columns: Mapping[str, Floats]) -> dict[str, Any]:
    """Return the averages over the genes of a predictor on one scale."""
    averages: dict[str, Any] = {
        f"{score.name}_{kind}": over_sections(columns[score.name], kind)
        for score in scores_of("gene")
        for kind in score.summaries
    }
    return averages | {"n_constant": int(columns["prediction_constant"].all(axis=0).sum())}


def summarize_spots(columns: Mapping[str, Floats]) -> dict[str, float]:
    """Return the averages over the spots of a predictor."""
    return {
        f"{score.name}_{kind}": float(average(columns[score.name], kind))
        for score in scores_of("spot")
        for kind in score.summaries
    }


def beaten(scores: Mapping[str, Mapping[str, Floats]]) -> dict[str, dict[str, float]]:
    """Return, for each baseline, the share of genes, and by Pearson of sections, on which the model does better.

    Genes whose score is not defined, as the Pearson of constant ones, do not count.
    """
    model, results = scores["model"], {}
    for name in (name for name in BASELINES if name in scores):
        baseline = scores[name]
        shares = {}
        for score in scores_of("gene"):
            if score.against_baselines:
                ours, theirs = (nan_mean(table[score.name], axis=0) for table in (model, baseline))
                better = ours < theirs if score.better == "lower" else ours > theirs
                shares[f"genes_{score.name}"] = share(better[~np.isnan(ours)])
        sections = [nan_mean(table["pearson"], axis=1) for table in (model, baseline)]
        results[name] = {**shares, "sections_pearson": share(sections[0] > sections[1])}
    return results


def gene_table(
    genes: Sequence[str], scores: GeneScores, limits: Mapping[str, Floats], level: Sequence[str]
) -> pd.DataFrame:
    """Return one row per gene, averaged over the sections.

    On log-normalized expression without a suffix, on the other scales with `_counts` and `_residual`.
    """
    columns: dict[str, Any] = {"level": np.asarray(level)}
    rows = scores_of("gene")
    for scale, predictors in sorted(scores.items(), key=lambda item: item[0] != HEADLINE):
        suffix = "" if scale == HEADLINE else f"_{scale}"
        for score in rows:
            columns[f"{score.name}{suffix}"] = nan_mean(predictors["model"][score.name], axis=0)
        columns[f"noise_ceiling{suffix}"] = nan_mean(limits[scale], axis=0)
        for baseline in BASELINES:
            for score in rows:
                if score.against_baselines:
                    values = nan_mean(predictors[baseline][score.name], axis=0)
                    columns[f"{baseline}_{score.name}{suffix}"] = values
            columns[f"beats_{baseline}{suffix}"] = columns[f"pearson{suffix}"] > columns[f"{baseline}_pearson{suffix}"]
        columns[f"constant_truth{suffix}"] = predictors["model"]["truth_constant"].all(axis=0)
        columns[f"constant_prediction{suffix}"] = predictors["model"]["prediction_constant"].all(axis=0)
    columns["depth_partial_noise_ceiling"] = nan_mean(limits["depth_partial"], axis=0)
    return pd.DataFrame(columns, index=pd.Index(list(genes), name="gene"))


def headline(scores: GeneScores, limits: Mapping[str, Floats]) -> dict[str, Any]:
    """Return the numbers to quote, on log-normalized expression."""
    tables = scores[HEADLINE]
    quoted: dict[str, Any] = {
        score.name: over_sections(tables["model"][score.name], score.quoted)
        for score in scores_of("gene")
        if score.headline
    }
    ceiling, partial_ceiling = over_sections(limits[HEADLINE]), over_sections(limits["depth_partial"])
    wins = beaten(tables)
    return {
        "scale": HEADLINE,
        **quoted,
        "depth_partial_noise_ceiling": partial_ceiling,
        "depth_partial_over_ceiling": _ratio(quoted["depth_partial"], partial_ceiling),
        **{name: over_sections(tables[name]["pearson"]) for name in BASELINES},
        "noise_ceiling": ceiling,
        "score_over_ceiling": _ratio(quoted["pearson"], ceiling),
        **{f"beats_{name}": wins[name]["genes_pearson"] for name in BASELINES},
        "collapsed": bool(quoted["spread_ratio"] < COLLAPSED),
    }


def _ratio(value: float, limit: float) -> float:
    return value / limit if limit > 0 else float("nan")


def headline_by_section(
    names: Sequence[str], n_spots: Sequence[int], scores: GeneScores, limits: Mapping[str, Floats]
) -> dict[str, dict[str, Any]]:
    """Return the headline of each section."""
    tables = scores[HEADLINE]
    model = tables["model"]
    return {
        name: {
            "n_spots": int(n_spots[i]),
            "n_constant_genes": int(model["truth_constant"][i].sum()),
            **{score.name: float(average(model[score.name][i], score.quoted)) for score in by_section()},
            "pearson_median": float(average(model["pearson"][i], "median")),
            **{baseline: float(nan_mean(tables[baseline]["pearson"][i])) for baseline in BASELINES},
            "noise_ceiling": float(nan_mean(limits[HEADLINE][i])),
        }
        for i, name in enumerate(names)
    }


def scores_by_level(level: Sequence[str], scores: GeneScores, ceiling: Floats) -> dict[str, dict[str, Any]]:
    """Return the scores of genes with low, medium and high mean counts."""
    results: dict[str, dict[str, Any]] = {}
    for name in LEVELS:
        genes = np.asarray(level) == name
        results[name] = {"n_genes": int(genes.sum())}
        if genes.any():
            results[name]["noise_ceiling"] = over_sections(ceiling[:, genes])
            for predictor, columns in scores[HEADLINE].items():
                results[name][predictor] = {
                    f"{score.name}_{score.quoted}": over_sections(columns[score.name][:, genes], score.quoted)
                    for score in with_average().values()
                }
    return results


def constant_genes(genes: Sequence[str], scores: GeneScores) -> dict[str, dict[str, Any]]:
    """Return number and names of the genes that are constant in every section, in truth and in prediction."""
    model = scores[HEADLINE]["model"]
    constant = {who: model[f"{who}_constant"].astype(bool).all(axis=0) for who in ("truth", "prediction")}
    return {
        who: {"n": int(flags.sum()), "names": [str(gene) for gene in np.asarray(genes)[flags]]}
        for who, flags in constant.items()
    }
