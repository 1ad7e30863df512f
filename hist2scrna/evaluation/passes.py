"""Passes over truth and predictors, a block of genes or spots at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from hist2scrna.evaluation.predictors import ExpectedLog, Expression, LogExpression, Predictor, Scale
from hist2scrna.metrics.blocks import BLOCK_VALUES, Floats, blocks
from hist2scrna.metrics.calibration import CountTally
from hist2scrna.metrics.correlation import moments, partial_correlation, rank_correlation, rank_rows
from hist2scrna.metrics.errors import MOST_RANKED, overall_spearman, spots_to_rank
from hist2scrna.metrics.spatial import morans_i_by_gene
from hist2scrna.metrics.thinning import N_REPEATS, noise_ceiling
from hist2scrna.metrics.zeros import auroc

ALL = slice(None)
MOST_THREADS = 4
# Residuals bend no ranks that counts do not; their Spearman is not worth the time.
UNRANKED = ("residual",)
MOST_COUNTED = 4_000_000
MOST_COMPARED = 20_000_000
MOST_REPEATED = 5_000_000
# Of expected logarithms: small enough for the cache of a core, which makes them twice as fast.
EXPECTED_VALUES = 50_000

GENE_COLUMNS = (
    "mse",
    "mae",
    "pearson",
    "spearman",
    "depth_partial",
    "truth_mean",
    "truth_sd",
    "prediction_mean",
    "prediction_sd",
    "spread_ratio",
    "covariance",
    "truth_constant",
    "prediction_constant",
)
FROM_MOMENTS = tuple(c for c in GENE_COLUMNS if c not in ("spearman", "depth_partial"))
# by scale, predictor and column: (sections, genes)
GeneScores = dict[str, dict[str, dict[str, Floats]]]


def run_blocks(work: Callable[[slice], None], parts: Iterable[slice], label: str, progress: bool) -> None:
    """Call `work` on all parts, a few at a time, with a bar."""
    from tqdm.auto import tqdm

    todo = list(parts)
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for _ in tqdm(pool.map(work, todo), total=len(todo), desc=label, unit="block", disable=not progress):
            pass


def computed(expected: ExpectedLog, progress: bool) -> LogExpression:
    """Compute expected logarithms of all spots and genes once, to be held as float32."""
    n_spots, n_genes = expected.predicted.shape
    values = np.empty((n_spots, n_genes), dtype=np.float32)

    def work(spots: slice) -> None:
        values[spots] = expected.region(spots, ALL, "log_normalized")

    run_blocks(work, blocks(n_spots, n_genes, EXPECTED_VALUES), "expected logarithms", progress)
    return LogExpression(values, np.arange(n_spots), np.arange(n_genes))


def score_genes(
    truth: Expression, predictors: Mapping[str, Predictor], scales: Sequence[Scale], progress: bool
) -> GeneScores:
    """Compare every gene over the spots of each section."""
    n_spots, n_genes = truth.shape
    sections, depth = truth.sections.slices, np.log(truth.library)
    scores: GeneScores = {
        scale: {
            name: {column: np.full((len(sections), n_genes), np.nan) for column in GENE_COLUMNS}
            for name, predictor in predictors.items()
            if scale in predictor.scales
        }
        for scale in scales
    }

    def work(genes: slice) -> None:
        for scale in scales:
            rows = np.ascontiguousarray(truth.region(ALL, genes, scale).T)
            ranks = [] if scale in UNRANKED else [rank_rows(rows[:, section]) for section in sections]
            for name, columns in scores[scale].items():
                predicted = np.ascontiguousarray(predictors[name].region(ALL, genes, scale).T)
                for i, section in enumerate(sections):
                    t, p = rows[:, section], predicted[:, section]
                    found = moments(t, p)
                    for column in FROM_MOMENTS:
                        columns[column][i, genes] = getattr(found, column)
                    columns["depth_partial"][i, genes] = partial_correlation(t, p, depth[section], found)
                    if ranks:
                        flat = found.prediction_constant.all()
                        columns["spearman"][i, genes] = found.pearson if flat else rank_correlation(ranks[i], p, found)

    run_blocks(work, blocks(n_genes, n_spots, BLOCK_VALUES // 2), "genes", progress)
    return scores


def score_spots(
    truth: Expression, predictors: Mapping[str, Predictor], scale: Scale, seed: int, progress: bool
) -> dict[str, dict[str, Floats]]:
    """Correlate spots over the genes, of large tables some at random: by predictor `pearson` and `spearman`."""
    chosen, n_genes = spots_to_rank(*truth.shape, MOST_COMPARED, seed), truth.shape[1]
    n_spots = len(chosen)
    names = [name for name, predictor in predictors.items() if scale in predictor.scales]
    scores = {name: {c: np.full(n_spots, np.nan) for c in ("pearson", "spearman")} for name in names}

    def work(spots: slice) -> None:
        t = truth.region(chosen[spots], ALL, scale)
        ranks = rank_rows(t)
        for name, columns in scores.items():
            p = np.ascontiguousarray(predictors[name].region(chosen[spots], ALL, scale))
            found = moments(t, p)
            columns["pearson"][spots] = found.pearson
            columns["spearman"][spots] = rank_correlation(ranks, p, found)

    run_blocks(work, blocks(n_spots, n_genes, BLOCK_VALUES // 2), "spots", progress)
    return scores


def score_overall_ranks(
    truth: Expression, predictors: Mapping[str, Predictor], scales: Sequence[Scale], seed: int
) -> dict[str, dict[str, float]]:
    """Spearman's correlation over all values, by scale and predictor; of large tables, over spots at random."""
    spots = spots_to_rank(*truth.shape, MOST_RANKED, seed)
    return {
        scale: {
            name: overall_spearman(truth.region(spots, ALL, scale), np.array(p.region(spots, ALL, scale)))
            for name, p in predictors.items()
            if scale in p.scales
        }
        for scale in scales
    }


def score_counts(
    truth: Expression, predictors: Mapping[str, Predictor], seed: int, progress: bool
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Score the distributions of counts; returns the number of spots used, and by predictor what was found.

    Each has `counts` and `zeros`, plain numbers; by gene `log_likelihood`, `deviance`, `poisson_deviance`, `p_zero`.
    """
    from tqdm.auto import tqdm

    n_genes = truth.shape[1]
    spots = spots_to_rank(*truth.shape, MOST_COUNTED, seed)
    results: dict[str, dict[str, Any]] = {}
    whole = ALL if len(spots) == truth.shape[0] else spots
    for name, predictor in predictors.items():
        if predictor.parameters(spots[:1], slice(0, 1)) is None:
            continue
        tally = CountTally(n_genes, seed)
        p_zero = np.empty((n_genes, len(spots)), dtype=np.float32)
        present = np.empty(p_zero.shape, dtype=bool)
        todo = list(blocks(n_genes, len(spots), BLOCK_VALUES // 2))
        for genes in tqdm(todo, desc=f"counts of the {name.replace('_', ' ')}", unit="block", disable=not progress):
            x = np.ascontiguousarray(truth.region(whole, genes, "counts").T)
            parameters = predictor.parameters(whole, genes)
            if parameters is not None:
                mu, theta, pi = (None if p is None else np.ascontiguousarray(p.T) for p in parameters)
                p_zero[genes] = tally.add(genes, x, mu, theta, pi)
            present[genes] = x > 0
        results[name] = {
            "counts": tally.scores(),
            "zeros": {**tally.zeros.scores(), "auroc": auroc(present, -p_zero)},
            "log_likelihood": tally.log_likelihood,
            "deviance": tally.deviance,
            "poisson_deviance": tally.poisson_deviance,
            "p_zero": tally.p_zero,
        }
    return len(spots), results


def score_noise_ceiling(truth: Expression, scale: Scale, seed: int, *, without_depth: bool = False) -> Floats:
    """Thinning ceiling, `(sections, genes)`, of all or of what the log total leaves; one draw does for large tables."""
    repeats = 1 if truth.values.nnz > MOST_REPEATED else N_REPEATS
    return np.stack(
        [
            noise_ceiling(
                truth.values[section],
                scale=scale,
                n_repeats=repeats,
                seed=seed,
                library=truth.library[section] if without_depth else None,
            )
            for section in truth.sections.slices
        ]
    )


def score_spatial(
    truth: Expression, predictors: Mapping[str, Predictor], weights: Any, scale: Scale, progress: bool
) -> dict[str, Floats]:
    """Moran's I of truth, model, true means and log total count, `(sections, genes)`.

    `weights` are neighbor weights over the scored spots. The depth baseline, a line in the log total, has for every
    gene the Moran's I of that total.
    """
    n_genes, sections = truth.shape[1], truth.sections
    who: dict[str, Predictor] = {"truth": truth}
    who |= {name: predictors[name] for name in ("model", "true_means") if name in predictors}
    found = {name: np.full((len(sections.names), n_genes), np.nan) for name in (*who, "depth_baseline")}
    local = [weights[section][:, section] for section in sections.slices]
    for i, section in enumerate(sections.slices):
        found["depth_baseline"][i] = morans_i_by_gene(np.log(truth.library[section])[:, None], local[i])

    def work(genes: slice) -> None:
        for name, predictor in who.items():
            values = predictor.region(ALL, genes, scale)
            for i, section in enumerate(sections.slices):
                found[name][i, genes] = morans_i_by_gene(values[section], local[i])

    run_blocks(work, blocks(n_genes, truth.shape[0], BLOCK_VALUES // 2), "Moran's I", progress)
    return found
