"""Score predictions against counts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

import hist2scrna
from hist2scrna import keys
from hist2scrna.evaluation import passes, summary
from hist2scrna.evaluation.held_out import describe_split
from hist2scrna.evaluation.inputs import Remarks, Scored, choose_nulls, read_scored, with_predictions
from hist2scrna.evaluation.plot_data import collect_plot_data
from hist2scrna.evaluation.predictors import SCALES, BaselineExpression, ExpectedLog, Expression, Predictor
from hist2scrna.evaluation.result import SCHEMA_VERSION, Evaluation
from hist2scrna.evaluation.structure import check_labels, score_autocorrelation, score_cell_types, score_leiden
from hist2scrna.provenance import fingerprint, panel_hash
from hist2scrna.spots.source import resolve_library_key
from hist2scrna.trained.model import as_trained

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from hist2scrna.metrics.baselines import Baselines
    from hist2scrna.trained.model import TrainedModel

NORMALIZATION = (
    "log(1 + 1e4 x / total), the total over the scored genes; its expectation where a distribution of counts is "
    "predicted, with the predicted total; no smoothing"
)
# Constant genes of which the names are in a note; the rest is in `results`.
MOST_NAMED = 10


def evaluate(
    adata: AnnData,
    model: TrainedModel | str | Path | None = None,
    *,
    key: str = keys.KEY_ADDED,
    layer: str | None = None,
    labels_key: str | None = None,
    library_key: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Score a prediction against counts, next to the baselines and the noise ceiling. `adata` is not changed.

    Expression is compared on three scales: counts; log(1 + 1e4 x / total over the scored genes), the headline; and
    analytic Pearson residuals, which hold no depth. To the residuals a predicted mean goes through the same transform
    as the counts, with its own predicted total; for the headline see Notes. Gene-wise scores are taken over the spots
    of a section, then averaged over sections.

    Parameters
    ----------
    adata
        Annotated data with counts in `.X` or `layer`, and predictions as :func:`hist2scrna.tl.predict` writes them; or
        with what `model` needs to predict.
    model
        The model that predicted, or its folder. It supplies the baselines of its training data, tells whether it has
        seen these spots, and predicts, on a copy, if predictions or parts of their distribution are missing. None: the
        baselines are fitted on the scored spots themselves.
    key
        Prefix of the predictions, `key_added` of `predict`. Only genes marked in `.var["{key}_modeled"]` are scored.
    layer
        Layer with raw counts; None: `.X`.
    labels_key
        Column of `.obs` with true cell types; None: they are not scored. Spots without a label (NaN)
        are left out. Leiden clusters are compared with these labels too.
    library_key
        Column of `.obs` with the section of each spot; None: `"library_id"` if it is there, else one section.
    seed
        Of binomial thinning, the randomized probability integral transform, and the draw of spots for scores that do
        not take all of a large table.
    progress
        Show bars.

    Returns
    -------
    :class:`~hist2scrna.evaluation.Evaluation`.

    Raises
    ------
    KeyError
        If a slot is missing, or there is neither prediction nor model.
    ValueError
        If counts are not whole or are negative, predictions are not finite, no gene or spot is left to score, or a
        label is not among the classes of the model: rename it, or set it to NaN so that its spots are left out.

    Warns
    -----
    UserWarning
        If the model was fitted on these spots, or on other spots of these sections.

    Notes
    -----
    What is to be expected of log(1 + 1e4 x / total) is not the logarithm of the expected count: that lies higher
    (Jensen), and as counts of few molecules are mostly zero, deep and shallow spots then look alike where measured
    ones do not. So a prediction is read, on the log-normalized scale, from the first of these that is there, and
    `results["log_normalized_from"]` says from which:

    1. layer `"{key}_log_normalized"`, of models that estimate it, and on request of all (`layers=` of `predict`);
    2. the expectation under the predicted distribution (its layers are those that `model` would write), the total
       being that of the predicted means over the scored genes;
    3. the log-normalized mean; errors there compare with no other model's, correlations with those of such means only.

    For simulated data the true means are read in the same way, from the true distribution if its layers are there.

    Examples
    --------
    >>> evaluation = hist2scrna.tl.evaluate(test, model, labels_key="cell_type")
    >>> evaluation.headline["score_over_ceiling"]
    >>> evaluation.genes.sort_values("pearson", ascending=False).head()
    >>> evaluation.to_json("evaluation.json")
    """
    names, remarks = keys.OutputKeys(key), Remarks()
    trained = None if model is None else as_trained(model)
    library_key = resolve_library_key(adata, library_key)
    if labels_key is not None and labels_key not in adata.obs:
        raise KeyError(f"Key {labels_key!r} not found in adata.obs. Available keys: {list(adata.obs.columns)}.")
    predicted, made_now = with_predictions(adata, trained, names, library_key, progress)
    labels = check_labels(adata, labels_key, trained, predicted, names)
    scored = read_scored(adata, predicted, names, layer, library_key, remarks)
    split = describe_split(adata, scored, trained, names, layer, library_key)
    baselines, nulls_from = choose_nulls(trained, scored)
    predictors = _predictors(adata, scored, baselines, progress)
    results, genes = _score(scored, predictors, baselines, seed, progress, remarks)
    spatial, morans_i = score_autocorrelation(adata, scored, predictors, remarks, progress)
    genes = genes.assign(**morans_i)
    results["headline"]["held_out"] = split["held_out"]
    written = predicted.uns.get(names.parameters, {})
    results.update(
        {
            "schema_version": SCHEMA_VERSION,
            "package_version": hist2scrna.__version__,
            "model": {
                "name": str(written.get("model", key)),
                "likelihood": str(written.get("likelihood", "unknown")),
                "library_size": str(written.get("library_size", "unknown")),
                "key": key,
                "predicted_by_evaluate": made_now,
            },
            "panel": {"n_genes": len(scored.genes), "sha256": panel_hash(scored.genes)},
            "normalization": NORMALIZATION,
            "log_normalized_from": scored.log_normalized_from,
            "split": split,
            "baselines": nulls_from,
            "data": {
                "n_spots": len(scored.kept),
                "n_spots_left_out": adata.n_obs - len(scored.kept),
                "n_genes": len(scored.genes),
                "sha256": counts_hash(scored),
                "layer": "X" if layer is None else layer,
                "library_key": library_key,
                "seed": seed,
            },
            "cell_types": score_cell_types(adata, predicted, names, labels_key, remarks),
            "spatial": spatial,
            "clusters": score_leiden(scored, predictors, labels, genes["truth_sd"].to_numpy(), seed, remarks),
            "not_scored": remarks.not_scored,
            "notes": remarks.notes,
        }
    )
    drawn = collect_plot_data(adata, predicted, scored, genes["pearson"], names, labels_key, library_key, seed)
    return Evaluation(results, genes, drawn)


def counts_hash(scored: Scored) -> str:
    """Return a SHA-256 of the scored counts: equal for equal counts in any order of genes and spots."""
    by_name = np.argsort(np.array(scored.genes), kind="stable")
    counts = sparse.csr_array(scored.truth.by_gene[:, by_name])
    return hashlib.sha256(np.sort(fingerprint(counts)).tobytes()).hexdigest()


def _predictors(adata: AnnData, scored: Scored, baselines: Baselines, progress: bool) -> dict[str, Predictor]:
    library = scored.truth.library
    found: dict[str, Predictor] = {
        "model": scored.model,
        "mean_baseline": BaselineExpression(baselines, library, "mean"),
        "depth_baseline": BaselineExpression(baselines, library, "depth"),
    }
    if keys.TRUE_MEAN in adata.layers:
        columns = adata.var_names.get_indexer(scored.genes).astype(np.int64)
        values = np.asarray(adata.layers[keys.TRUE_MEAN])
        true = Expression(values, scored.sections, rows=scored.kept, columns=columns)
        others = (keys.TRUE_MU, keys.TRUE_DISPERSION, keys.TRUE_DROPOUT)
        if all(name in adata.layers for name in others):
            true.mu, true.dispersion, true.dropout = (np.asarray(adata.layers[name]) for name in others)
            true.log = ExpectedLog(true)
        found["true_means"] = true
    for predictor in found.values():
        if isinstance(predictor, Expression) and isinstance(predictor.log, ExpectedLog):
            predictor.log = passes.computed(predictor.log, progress)
    return found


def _score(
    scored: Scored,
    predictors: dict[str, Predictor],
    baselines: Baselines,
    seed: int,
    progress: bool,
    remarks: Remarks,
) -> tuple[dict[str, Any], Any]:
    """Run all passes, and return their summaries and the table of genes."""
    truth, sections = scored.truth, scored.sections
    scales = [scale for scale in SCALES if scale in scored.model.scales]
    n_spots = [part.stop - part.start for part in sections.slices]
    by_gene = passes.score_genes(truth, predictors, scales, progress)
    by_spot = passes.score_spots(truth, predictors, summary.HEADLINE, seed, progress)
    ranked = passes.score_overall_ranks(truth, predictors, scales, seed)
    thinned = {scale: passes.score_noise_ceiling(truth, scale, seed) for scale in scales}
    thinned_partial = passes.score_noise_ceiling(truth, summary.HEADLINE, seed, without_depth=True)
    known = "true_means" in predictors
    ceiling: dict[str, Any] = {
        scale: by_gene[scale]["true_means"]["pearson"] if known else thinned[scale] for scale in scales
    }
    partial_ceiling = by_gene[summary.HEADLINE]["true_means"]["depth_partial"] if known else thinned_partial
    scores: dict[str, Any] = {}
    for scale in scales:
        scores[scale] = summary.summarize_scale(by_gene[scale], n_spots)
        for name, value in ranked[scale].items():
            scores[scale][name]["overall"]["spearman"] = value
    for name, columns in by_spot.items():
        scores[summary.HEADLINE][name]["by_spot"] = {
            f"{column}_{word}": float(function(values))
            for column, values in columns.items()
            for word, function in (("mean", np.nanmean), ("median", np.nanmedian))
        }
    level = baselines.level.tolist()
    genes = summary.gene_table(scored.genes, by_gene, ceiling, level)
    genes["depth_partial_noise_ceiling"] = summary.quiet(np.nanmean, partial_ceiling, axis=0)
    n_counted, counted = 0, dict[str, dict[str, Any]]()
    if scored.model.parameters(np.arange(1), slice(0, 1)) is not None:
        n_counted, counted = passes.score_counts(truth, predictors, seed, progress)
        for column in ("log_likelihood", "deviance", "poisson_deviance"):
            genes[column] = counted["model"][column]
        genes["predicted_zero_rate"] = counted["model"]["p_zero"]
    genes["zero_rate"] = 1 - np.bincount(truth.by_gene.tocoo().col, minlength=len(genes)) / len(scored.kept)
    n_compared = len(by_spot["model"]["pearson"])
    if n_compared < len(scored.kept):
        remarks.notes.append(f"Scores by spot: over {n_compared:,} spots drawn at random.")
    if 0 < n_counted < len(scored.kept):
        remarks.notes.append(f"Count likelihood and zeros: scored on {n_counted:,} spots drawn at random.")
    constant = summary.constant_genes(scored.genes, by_gene)
    for who, found in constant.items():
        if found["n"]:
            verb = "have no correlation and are left out of its mean" if who == "truth" else "count as correlation 0"
            names = ", ".join(found["names"][:MOST_NAMED]) + (", ..." if found["n"] > MOST_NAMED else "")
            remarks.notes.append(f"{found['n']} genes are constant in the {who}: they {verb} ({names}).")
    results = {
        "headline": summary.headline(by_gene, ceiling[summary.HEADLINE], partial_ceiling),
        "scores": scores,
        "noise_ceiling": {
            "method": "true means" if known else "binomial thinning",
            **{str(scale): summary.middle(values) for scale, values in ceiling.items()},
            "depth_partial": summary.middle(partial_ceiling),
            "thinning": {str(scale): summary.middle(values) for scale, values in thinned.items()},
        },
        "beats": summary.beaten(by_gene[summary.HEADLINE]),
        "sections": summary.by_section(sections.names, n_spots, by_gene, ceiling[summary.HEADLINE]),
        "levels": summary.by_level(level, by_gene, ceiling[summary.HEADLINE]),
        "constant_genes": constant,
        "zeros": {name: found["zeros"] for name, found in counted.items()},
        "counts": {name: {**found["counts"], "n_spots": n_counted} for name, found in counted.items()},
    }
    return results, genes
