"""An evaluation from beginning to end: read AnnData once, score, and summarize."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

import hist2scrna
from hist2scrna.evaluation import passes, summary
from hist2scrna.evaluation.averages import average
from hist2scrna.evaluation.held_out import describe_split
from hist2scrna.evaluation.inputs import read_scored_data
from hist2scrna.evaluation.passes import CountScores
from hist2scrna.evaluation.plot_data import collect_plot_data
from hist2scrna.evaluation.predictors import HEADLINE, SCALES, BaselineExpression, Predictor
from hist2scrna.evaluation.result import SCHEMA_VERSION, Evaluation
from hist2scrna.evaluation.scores import scores_of
from hist2scrna.evaluation.structure import score_autocorrelation, score_leiden
from hist2scrna.messages import require_adata
from hist2scrna.metrics.labels import confusion
from hist2scrna.provenance import fingerprint, panel_hash
from hist2scrna.spots.library import images_shared
from hist2scrna.trained.model import as_trained

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from hist2scrna.evaluation.inputs import ScoredData
    from hist2scrna.evaluation.passes import GeneScores
    from hist2scrna.trained.model import TrainedModel

NORMALIZATION = (
    "log(1 + 1e4 x / total), the total over the scored genes; its expectation where a distribution of counts is "
    "predicted, with the predicted total; no smoothing"
)
# Constant genes that a note names; all are in the results.
MOST_NAMED = 10


def evaluate(
    adata: AnnData,
    model: TrainedModel | str | Path | None,
    *,
    key: str,
    layer: str | None,
    labels_key: str | None,
    library_key: str | None,
    nuclei: Any,
    seed: int,
    progress: bool,
) -> Evaluation:
    """Score a prediction against counts; see :func:`hist2scrna.tl.evaluate`."""
    require_adata(adata)
    # Predicting and the maps read the same images.
    with images_shared():
        data = read_scored_data(
            adata,
            None if model is None else as_trained(model),
            key=key,
            layer=layer,
            labels_key=labels_key,
            library_key=library_key,
            nuclei=nuclei,
            seed=seed,
            progress=progress,
        )
    return score(data, seed, progress)


def score(data: ScoredData, seed: int, progress: bool) -> Evaluation:
    """Score what was read."""
    split = describe_split(data.overlap, data.truth.sections, data.about_data["observation"])
    data = replace(
        data,
        model=passes.with_computed_logs(data.model, progress),
        true_means=None if data.true_means is None else passes.with_computed_logs(data.true_means, progress),
    )
    predictors = _predictors(data)
    results, genes = _score_expression(data, predictors, seed, progress)
    spatial, by_gene = score_autocorrelation(data, predictors, progress)
    genes = genes.assign(**by_gene)
    results["headline"]["held_out"] = split["held_out"]
    results.update(
        {
            "schema_version": SCHEMA_VERSION,
            "package_version": hist2scrna.__version__,
            "model": data.about_model,
            "panel": {"n_genes": len(data.genes), "sha256": panel_hash(data.genes)},
            "normalization": NORMALIZATION,
            "log_normalized_from": data.log_normalized_from,
            "split": split,
            "baselines": data.baselines_from,
            "data": {**data.about_data, "sha256": counts_hash(data)},
            "cell_types": _score_cell_types(data),
            "spatial": spatial,
            "clusters": score_leiden(data, predictors, genes["truth_sd"].to_numpy(), seed),
            "not_scored": data.notes.not_scored,
            "notes": data.notes.remarks,
        }
    )
    return Evaluation(results, genes, collect_plot_data(data, genes["pearson"], seed))


def counts_hash(data: ScoredData) -> str:
    """Return a SHA-256 of the scored counts: equal for equal counts in any order of genes and spots."""
    by_name = np.argsort(np.array(data.genes), kind="stable")
    counts = sparse.csr_array(data.truth.by_gene[:, by_name])
    return hashlib.sha256(np.sort(fingerprint(counts)).tobytes()).hexdigest()


def _predictors(data: ScoredData) -> dict[str, Predictor]:
    """Return all that are scored, by name."""
    library = data.truth.library
    predictors: dict[str, Predictor] = {
        "model": data.model,
        "mean_baseline": BaselineExpression(data.baselines, library, "mean"),
        "depth_baseline": BaselineExpression(data.baselines, library, "depth"),
    }
    if data.true_means is not None:
        predictors["true_means"] = data.true_means
    return predictors


def _score_expression(
    data: ScoredData, predictors: dict[str, Predictor], seed: int, progress: bool
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Score genes, spots and counts, and return the results and the table of genes."""
    truth, sections = data.truth, data.truth.sections
    scales = [scale for scale in SCALES if scale in data.model.scales]
    by_gene = passes.score_genes(truth, predictors, scales, progress)
    by_spot = passes.score_spots(truth, predictors, HEADLINE, seed, progress)
    overall = passes.score_overall(truth, predictors, by_gene, seed)
    ceiling = _noise_ceiling(data, by_gene, seed)
    n_counted, counted = 0, dict[str, CountScores]()
    if data.model.parameters(np.arange(1), slice(0, 1)) is not None:
        n_counted, counted = passes.score_counts(truth, predictors, seed, progress)
    level = data.baselines.level.tolist()
    genes = summary.gene_table(data.genes, by_gene, ceiling.limits, level)
    if "model" in counted:
        genes = genes.assign(**counted["model"].by_gene, predicted_zero_rate=counted["model"].p_zero)
    genes["zero_rate"] = 1 - np.bincount(truth.by_gene.tocoo().col, minlength=len(genes)) / truth.shape[0]
    constant = summary.constant_genes(data.genes, by_gene)
    _note_samples(data, next(iter(by_spot["model"].values())).size, n_counted)
    _note_constant_genes(data, constant)
    scores: dict[str, Any] = {
        scale: {
            name: {"overall": overall[scale][name], "by_gene": summary.summarize_genes(columns)}
            for name, columns in tables.items()
        }
        for scale, tables in by_gene.items()
    }
    for name, columns in by_spot.items():
        scores[HEADLINE][name]["by_spot"] = summary.summarize_spots(columns)
    results = {
        "headline": summary.headline(by_gene, ceiling.limits) | _within_slides(data, by_spot),
        "scores": scores,
        "noise_ceiling": ceiling.results(),
        "beats": summary.beaten(by_gene[HEADLINE]),
        "sections": summary.headline_by_section(sections.names, truth.n_spots.tolist(), by_gene, ceiling.limits),
        "levels": summary.scores_by_level(level, by_gene, ceiling.limits[HEADLINE]),
        "constant_genes": constant,
        **_count_results(counted, n_counted),
    }
    return results, genes


def _noise_ceiling(data: ScoredData, by_gene: GeneScores, seed: int) -> summary.NoiseCeiling:
    """Return the noise ceiling: the score of the true means if they are known, else estimated by thinning."""
    if not data.truth.is_whole:
        data.notes.not_scored["noise ceiling"] = "binomial thinning needs counts, and the values are not whole numbers"
        unknown = {scale: np.full_like(tables["model"]["pearson"], np.nan) for scale, tables in by_gene.items()}
        return summary.NoiseCeiling("not known", {**unknown, "depth_partial": unknown[HEADLINE]}, unknown)
    thinning = {str(scale): passes.score_noise_ceiling(data.truth, scale, seed) for scale in SCALES if scale in by_gene}
    if data.true_means is not None:
        limits = {scale: by_gene[scale]["true_means"]["pearson"] for scale in thinning}
        limits["depth_partial"] = by_gene[HEADLINE]["true_means"]["depth_partial"]
        return summary.NoiseCeiling("true means", limits, thinning)
    partial = passes.score_noise_ceiling(data.truth, HEADLINE, seed, without_depth=True)
    return summary.NoiseCeiling("binomial thinning", {**thinning, "depth_partial": partial}, thinning)


def _within_slides(data: ScoredData, by_spot: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the rank correlation over the genes within a slide, and that of the mean baseline; nothing for spots."""
    if data.about_data["observation"] != "slide":
        return {}
    names = {"within_slides_spearman": "model", "within_slides_spearman_mean_baseline": "mean_baseline"}
    return {key: float(average(by_spot[name]["spearman"], "median")) for key, name in names.items()}


def _count_results(counted: dict[str, CountScores], n_spots: int) -> dict[str, Any]:
    return {
        "zeros": {name: scores.zeros for name, scores in counted.items()},
        "counts": {name: {**scores.counts, "n_spots": n_spots} for name, scores in counted.items()},
    }


def _score_cell_types(data: ScoredData) -> dict[str, Any]:
    if data.cell_types is None:
        return {}
    numbers = {score.name: score.function(data.cell_types) for score in scores_of("cell types")}
    return {**numbers, **confusion(data.cell_types), "n_labeled": len(data.cell_types.truth)}


def _note_samples(data: ScoredData, n_compared: int, n_counted: int) -> None:
    n_spots = data.truth.shape[0]
    if n_compared < n_spots:
        data.notes.remarks.append(f"Scores by spot were computed on {n_compared:,} spots drawn at random.")
    if 0 < n_counted < n_spots:
        data.notes.remarks.append(f"Count likelihood and zeros were scored on {n_counted:,} spots drawn at random.")


def _note_constant_genes(data: ScoredData, constant: dict[str, dict[str, Any]]) -> None:
    for who, genes in constant.items():
        if genes["n"]:
            verb = "have no correlation and are left out of its mean" if who == "truth" else "count as correlation 0"
            names = ", ".join(genes["names"][:MOST_NAMED]) + (", ..." if genes["n"] > MOST_NAMED else "")
            subject = "gene is" if genes["n"] == 1 else "genes are"
            data.notes.remarks.append(f"{genes['n']} {subject} constant in the {who}; such genes {verb} ({names}).")
