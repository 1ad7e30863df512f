"""The table of all metrics: what each is called, how it is computed, and where it is shown.

A metric is added by a function in `hist2scrna.metrics` and a row here. The evaluation, its tables, JSON, `compare`, the
columns of a benchmark, the plots and the report read these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from hist2scrna.evaluation.predictors import SCALES, Scale
from hist2scrna.evaluation.score import Scope, Score
from hist2scrna.metrics import calibration, correlation, labels, likelihood, spatial

NOWHERE: Mapping[Scale, tuple[str, ...]] = {}
BY_GENE = (
    Score(
        "truth_mean",
        "mean of the truth",
        "gene",
        attrgetter("moments.truth_mean"),
        summaries=(),
        shown=NOWHERE,
        heading="mean",
        description="Mean of the truth over spots",
    ),
    Score(
        "pearson",
        "Pearson by gene",
        "gene",
        correlation.pearson,
        better="higher",
        summaries=("mean", "median"),
        shown={"log_normalized": ("mean", "median"), "residual": ("mean",), "counts": ("mean",)},
        headline=True,
        interval=True,
        against_baselines=True,
        noise_ceilings={scale: scale for scale in SCALES},
        column="pearson",
        heading="Pearson",
        description="Correlation of prediction and truth over the spots of a section",
    ),
    Score(
        "spearman",
        "Spearman by gene",
        "gene",
        correlation.spearman,
        better="higher",
        summaries=("mean", "median"),
        # Residuals change no ranks that counts do not: not worth the time.
        scales=("counts", "log_normalized"),
        heading="Spearman",
        description="Rank correlation of prediction and truth",
    ),
    Score(
        "depth_partial",
        "depth-partial Pearson",
        "gene",
        correlation.depth_partial,
        better="higher",
        summaries=("mean", "median"),
        headline=True,
        interval=True,
        noise_ceilings={"log_normalized": "depth_partial"},
        column="depth_partial",
        heading="depth-partial",
        description="Pearson after the log total count is regressed out of both",
    ),
    Score(
        "spread_ratio",
        "spread (sd / sd of truth)",
        "gene",
        attrgetter("moments.spread_ratio"),
        summaries=("median",),
        headline=True,
        column="spread_ratio",
        heading="spread",
        description="Standard deviation of the prediction over that of the truth",
    ),
    Score(
        "mae",
        "MAE by gene",
        "gene",
        attrgetter("moments.mae"),
        better="lower",
        shown=NOWHERE,
        heading="MAE",
        description="Mean absolute error",
    ),
    Score(
        "mse",
        "MSE by gene",
        "gene",
        attrgetter("moments.mse"),
        better="lower",
        shown=NOWHERE,
        against_baselines=True,
        description="Mean squared error",
    ),
    Score("truth_sd", "sd of the truth", "gene", attrgetter("moments.truth_sd"), summaries=(), shown=NOWHERE),
    Score(
        "prediction_mean",
        "mean of the prediction",
        "gene",
        attrgetter("moments.prediction_mean"),
        summaries=(),
        shown=NOWHERE,
    ),
    Score(
        "prediction_sd",
        "sd of the prediction",
        "gene",
        attrgetter("moments.prediction_sd"),
        summaries=(),
        shown=NOWHERE,
    ),
)
BY_SPOT = (
    Score(
        "pearson",
        "Pearson by spot",
        "spot",
        correlation.pearson,
        within_slides="Pearson over genes",
        better="higher",
        summaries=("mean", "median"),
        shown={"log_normalized": ("mean",)},
    ),
    Score(
        "spearman",
        "Spearman by spot",
        "spot",
        correlation.spearman,
        within_slides="Spearman over genes",
        better="higher",
        summaries=("mean", "median"),
        shown=NOWHERE,
    ),
)
ON_COUNTS_TOO: Mapping[Scale, tuple[str, ...]] = {"log_normalized": ("",), "counts": ("",)}
OVERALL = (
    Score("mse", "MSE", "overall", lambda values: values.pooled["mse"], better="lower", shown=NOWHERE),
    Score("rmse", "RMSE", "overall", lambda values: values.pooled["rmse"], better="lower", shown=ON_COUNTS_TOO),
    Score("mae", "MAE", "overall", lambda values: values.pooled["mae"], better="lower", shown={"counts": ("",)}),
    Score("r2", "R2", "overall", lambda values: values.pooled["r2"], better="higher"),
    Score("pearson", "Pearson", "overall", lambda values: values.pooled["pearson"], better="higher", shown=NOWHERE),
    Score("spearman", "Spearman", "overall", attrgetter("spearman"), better="higher", shown=NOWHERE),
)
OF_COUNTS = (
    Score(
        "log_likelihood",
        "log-likelihood per count",
        "gene counts",
        likelihood.log_likelihood,
        better="higher",
        interval=True,
        column="log_likelihood",
        heading="log-likelihood",
        description="Mean log-likelihood of a count, in nats",
    ),
    Score(
        "deviance",
        "deviance per count",
        "gene counts",
        likelihood.deviance,
        better="lower",
        shown=NOWHERE,
    ),
    Score(
        "poisson_deviance",
        "Poisson deviance per count",
        "gene counts",
        likelihood.poisson_deviance,
        better="lower",
    ),
    Score(
        "coverage",
        "coverage of {level} % intervals",
        "counts",
        attrgetter("coverage"),
        levels=calibration.LEVEL_NAMES,
        column="coverage",
        is_share=True,
        heading="coverage",
    ),
    Score(
        "interval_coverage",
        "coverage of closed {level} % intervals",
        "counts",
        attrgetter("interval_coverage"),
        levels=calibration.LEVEL_NAMES,
        shown=NOWHERE,
    ),
    Score(
        "width",
        "width of {level} % intervals, median",
        "counts",
        attrgetter("width"),
        better="lower",
        levels=calibration.LEVEL_NAMES,
        column="width",
        heading="width",
    ),
    Score("pit", "probability integral transform", "counts", attrgetter("pit"), shown=NOWHERE),
    Score(
        "pit_distance",
        "distance of the probability integral transform",
        "counts",
        attrgetter("pit_distance"),
        better="lower",
        shown=NOWHERE,
    ),
)
OF_ZEROS = (
    Score("predicted_zero_rate", "zero rate predicted", "zeros", attrgetter("predicted_zero_rate")),
    Score("auroc", "AUROC of non-zero", "zeros", attrgetter("auroc"), better="higher"),
    Score("f1", "F1 of non-zero", "zeros", attrgetter("f1"), better="higher"),
    Score("observed_zero_rate", "zero rate observed", "zeros", attrgetter("observed_zero_rate"), shown=NOWHERE),
    Score("accuracy", "accuracy of zeros", "zeros", attrgetter("accuracy"), better="higher", shown=NOWHERE),
    Score("sensitivity", "non-zeros found", "zeros", attrgetter("sensitivity"), better="higher", shown=NOWHERE),
    Score("specificity", "zeros found", "zeros", attrgetter("specificity"), better="higher", shown=NOWHERE),
    Score("mae_nonzero", "MAE of non-zeros", "zeros", attrgetter("mae_nonzero"), better="lower", shown=NOWHERE),
)
OF_CELL_TYPES = (
    Score("accuracy", "accuracy", "cell types", labels.accuracy, better="higher"),
    Score("majority_accuracy", "accuracy of the commonest type", "cell types", labels.majority_accuracy),
    Score("f1_macro", "F1, macro", "cell types", labels.f1_macro, better="higher"),
    Score("f1_weighted", "F1, weighted", "cell types", labels.f1_weighted, better="higher"),
    Score(
        "expected_calibration_error",
        "expected calibration error",
        "cell types",
        labels.calibration_error,
        better="lower",
    ),
)
OF_CLUSTERS = (
    Score("ari", "ARI", "clusters", labels.adjusted_rand, better="higher"),
    Score("nmi", "NMI", "clusters", labels.normalized_mutual_information, better="higher"),
)
OF_SPACE = (Score("morans_i", "Moran's I", "spatial", spatial.morans_i_by_gene),)

SCORES: tuple[Score, ...] = (
    *BY_GENE,
    *BY_SPOT,
    *OVERALL,
    *OF_COUNTS,
    *OF_ZEROS,
    *OF_CELL_TYPES,
    *OF_CLUSTERS,
    *OF_SPACE,
)


def scores_of(*scopes: Scope) -> list[Score]:
    """Return the rows of the table for these scopes, in its order."""
    return [score for score in SCORES if score.of in scopes]


def with_average() -> dict[str, Score]:
    """Return the scores of genes that are averaged over genes, by name: what is known of each level of expression."""
    return {score.name: score for score in scores_of("gene") if score.summaries}


def by_section() -> list[Score]:
    """Return the scores of genes that are kept for each section."""
    return [score for score in scores_of("gene") if score.headline or score.interval]


def benchmark_scores() -> list[Score]:
    """Return the scores that have a column in a benchmark."""
    return [score for score in SCORES if score.column is not None]


def benchmark_columns() -> dict[str, tuple[Score, str]]:
    """Return the columns of a benchmark by name: the score of each, and its level (`""` where it has one number)."""
    return {
        f"{score.column}_{level}" if level else str(score.column): (score, level)
        for score in benchmark_scores()
        for level in score.levels or ("",)
    }
