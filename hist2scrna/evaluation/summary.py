"""From scores by section and gene to what an evaluation holds: plain numbers, and a table of genes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hist2scrna.evaluation.passes import GENE_COLUMNS, GeneScores
from hist2scrna.evaluation.predictors import Scale
from hist2scrna.metrics.blocks import Floats
from hist2scrna.metrics.correlation import Moments
from hist2scrna.metrics.errors import pooled

HEADLINE: Scale = "log_normalized"
NULLS = ("mean_baseline", "depth_baseline")
# The median gene's prediction varies by less than this share of what the truth does.
COLLAPSED = 0.05
MOMENT_COLUMNS = tuple(Moments.__dataclass_fields__)


def quiet(function: Any, values: Floats, axis: int | None = None) -> Any:
    """Apply `nanmean` or `nanmedian`; nothing but NaN gives NaN, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(values, axis=axis)


def over_sections(values: Floats, function: Any = np.nanmean) -> float:
    """Average `(sections, genes)` over the genes, then over the sections: the protocol of the field."""
    return float(quiet(np.nanmean, quiet(function, values, axis=1)))


def middle(values: Floats) -> dict[str, float]:
    """Return mean and median over the genes, averaged over the sections."""
    return {"mean": over_sections(values), "median": over_sections(values, np.nanmedian)}


def summarize_scale(scores: Mapping[str, Mapping[str, Floats]], n_spots: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return `overall` and `by_gene` scores of each predictor on one scale."""
    found: dict[str, dict[str, Any]] = {}
    for name, columns in scores.items():
        parts = [
            Moments(
                **{c: columns[c][i].astype(bool) if c.endswith("constant") else columns[c][i] for c in MOMENT_COLUMNS}
            )
            for i in range(len(n_spots))
        ]
        by_gene: dict[str, Any] = {}
        for column in ("pearson", "spearman", "depth_partial"):
            by_gene[f"{column}_mean"] = over_sections(columns[column])
            by_gene[f"{column}_median"] = over_sections(columns[column], np.nanmedian)
        by_gene["mse_mean"] = over_sections(columns["mse"])
        by_gene["mae_mean"] = over_sections(columns["mae"])
        by_gene["spread_ratio_median"] = over_sections(columns["spread_ratio"], np.nanmedian)
        by_gene["n_constant"] = int(columns["prediction_constant"].all(axis=0).sum())
        found[name] = {"overall": pooled(parts, n_spots), "by_gene": by_gene}
    return found


def beaten(scores: Mapping[str, Mapping[str, Floats]]) -> dict[str, dict[str, float]]:
    """Return, for each null, the share of genes and sections on which the model does better.

    By Pearson over genes that vary in the truth, and by MSE over all genes.
    """
    model, found = scores["model"], {}
    for null in (name for name in NULLS if name in scores):
        mine, theirs = (quiet(np.nanmean, s["pearson"], axis=0) for s in (model, scores[null]))
        varies = ~np.isnan(mine)
        sections = [quiet(np.nanmean, s["pearson"], axis=1) for s in (model, scores[null])]
        found[null] = {
            "genes_pearson": share((mine > theirs)[varies]),
            "genes_mse": share(model["mse"].mean(axis=0) < scores[null]["mse"].mean(axis=0)),
            "sections_pearson": share(sections[0] > sections[1]),
        }
    return found


def share(flags: Any) -> float:
    """Return the mean of flags, NaN if there is none."""
    return float(np.mean(flags)) if len(flags) else float("nan")


def gene_table(
    genes: Sequence[str], scores: GeneScores, ceiling: Mapping[str, Floats], level: Sequence[str]
) -> pd.DataFrame:
    """Return one row a gene, averaged over the sections.

    On log-normalized expression without a suffix, on the other scales with `_counts` and `_residual`.
    """
    columns: dict[str, Any] = {"level": np.asarray(level)}
    for scale, predictors in sorted(scores.items(), key=lambda item: item[0] != HEADLINE):
        suffix = "" if scale == HEADLINE else f"_{scale}"
        for column in GENE_COLUMNS:
            if column != "covariance" and not column.endswith("constant"):
                columns[f"{column}{suffix}"] = quiet(np.nanmean, predictors["model"][column], axis=0)
        columns[f"noise_ceiling{suffix}"] = quiet(np.nanmean, ceiling[scale], axis=0)
        for null in NULLS:
            for column in ("pearson", "mse"):
                columns[f"{null}_{column}{suffix}"] = quiet(np.nanmean, predictors[null][column], axis=0)
            columns[f"beats_{null}{suffix}"] = columns[f"pearson{suffix}"] > columns[f"{null}_pearson{suffix}"]
        columns[f"constant_truth{suffix}"] = predictors["model"]["truth_constant"].all(axis=0)
        columns[f"constant_prediction{suffix}"] = predictors["model"]["prediction_constant"].all(axis=0)
    return pd.DataFrame(columns, index=pd.Index(list(genes), name="gene"))


def headline(scores: GeneScores, ceiling: Floats, depth_partial_noise_ceiling: Floats) -> dict[str, Any]:
    """Return what is said first, on log-normalized expression."""
    model = scores[HEADLINE]["model"]
    limit, pearson = over_sections(ceiling), over_sections(model["pearson"])
    partial_limit, partial = over_sections(depth_partial_noise_ceiling), over_sections(model["depth_partial"])
    spread = over_sections(model["spread_ratio"], np.nanmedian)
    wins = beaten(scores[HEADLINE])
    return {
        "scale": HEADLINE,
        "pearson": pearson,
        "depth_partial": partial,
        "depth_partial_noise_ceiling": partial_limit,
        "depth_partial_over_ceiling": partial / partial_limit if partial_limit > 0 else float("nan"),
        "mean_baseline": over_sections(scores[HEADLINE]["mean_baseline"]["pearson"]),
        "depth_baseline": over_sections(scores[HEADLINE]["depth_baseline"]["pearson"]),
        "noise_ceiling": limit,
        "score_over_ceiling": pearson / limit if limit > 0 else float("nan"),
        "beats_mean_baseline": wins["mean_baseline"]["genes_pearson"],
        "beats_depth_baseline": wins["depth_baseline"]["genes_pearson"],
        "spread_ratio": spread,
        "collapsed": bool(spread < COLLAPSED),
    }


def by_section(
    names: Sequence[str], n_spots: Sequence[int], scores: GeneScores, ceiling: Floats
) -> dict[str, dict[str, Any]]:
    """Return the headline of each section."""
    table = scores[HEADLINE]
    return {
        name: {
            "n_spots": int(n_spots[i]),
            "n_constant_genes": int(table["model"]["truth_constant"][i].sum()),
            "pearson": float(quiet(np.nanmean, table["model"]["pearson"][i])),
            "pearson_median": float(quiet(np.nanmedian, table["model"]["pearson"][i])),
            "depth_partial": float(quiet(np.nanmean, table["model"]["depth_partial"][i])),
            "mean_baseline": float(quiet(np.nanmean, table["mean_baseline"]["pearson"][i])),
            "depth_baseline": float(quiet(np.nanmean, table["depth_baseline"]["pearson"][i])),
            "noise_ceiling": float(quiet(np.nanmean, ceiling[i])),
            "spread_ratio": float(quiet(np.nanmedian, table["model"]["spread_ratio"][i])),
        }
        for i, name in enumerate(names)
    }


def by_level(level: Sequence[str], scores: GeneScores, ceiling: Floats) -> dict[str, dict[str, Any]]:
    """Return scores of genes with low, medium and high mean counts."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("low", "medium", "high"):
        genes = np.asarray(level) == name
        found[name] = {"n_genes": int(genes.sum())}
        if genes.any():
            found[name]["noise_ceiling"] = over_sections(ceiling[:, genes])
            for predictor, columns in scores[HEADLINE].items():
                found[name][predictor] = {
                    f"{column}_mean": over_sections(columns[column][:, genes])
                    for column in ("pearson", "spearman", "depth_partial", "mse", "mae")
                }
    return found


def constant_genes(genes: Sequence[str], scores: GeneScores) -> dict[str, dict[str, Any]]:
    """Return number and names of the genes that are constant in every section, in truth and in prediction."""
    model, found = scores[HEADLINE]["model"], {}
    for who in ("truth", "prediction"):
        flat = model[f"{who}_constant"].astype(bool).all(axis=0)
        found[who] = {"n": int(flat.sum()), "names": [str(g) for g in np.asarray(genes)[flat]]}
    return found


def spatial_agreement(morans: Mapping[str, Floats]) -> dict[str, float]:
    """Return mean Moran's I over the genes, and how that of truth and prediction agrees over the genes."""
    found = {
        "morans_i_truth": over_sections(morans["truth"]),
        "morans_i_prediction": over_sections(morans["model"]),
        "morans_i_depth_baseline": over_sections(morans["depth_baseline"]),
        "morans_i_pearson": _correlation_by_section(morans["truth"], morans["model"]),
        "morans_i_mae": over_sections(np.abs(morans["truth"] - morans["model"])),
    }
    if "true_means" in morans:
        found["morans_i_true_means"] = over_sections(morans["true_means"])
        found["morans_i_pearson_true_means"] = _correlation_by_section(morans["truth"], morans["true_means"])
    return found


def _correlation_by_section(truth: Floats, prediction: Floats) -> float:
    """Correlate rows over the genes that are known in both, and average."""
    found = []
    for t, p in zip(truth, prediction, strict=True):
        both = np.isfinite(t) & np.isfinite(p)
        varied = both.sum() > 2 and np.ptp(t[both]) > 0 and np.ptp(p[both]) > 0
        found.append(float(np.corrcoef(t[both], p[both])[0, 1]) if varied else float("nan"))
    return float(quiet(np.nanmean, np.array(found)))
