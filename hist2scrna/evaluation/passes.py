"""Passes over truth and predictions, in blocks of genes or spots: each computes the scores of one scope."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from hist2scrna.evaluation.predictors import (
    ExpectedLog,
    Expression,
    LogExpression,
    Predictor,
    Scale,
    WithLogNormalized,
)
from hist2scrna.evaluation.scores import scores_of
from hist2scrna.metrics.blocks import BLOCK_VALUES, Floats, blocks
from hist2scrna.metrics.calibration import CountTally
from hist2scrna.metrics.correlation import Moments, Rows, TruthRows
from hist2scrna.metrics.errors import MOST_RANKED, Overall, pooled, spots_to_rank
from hist2scrna.metrics.likelihood import CountBlock, zero_probability
from hist2scrna.metrics.thinning import N_REPEATS, noise_ceiling

ALL = slice(None)
MOST_THREADS = 4
# Values that are scored at most, of larger tables those of spots drawn at random: a likelihood takes far longer than a
# correlation.
MOST_COUNTED = 4_000_000
MOST_COMPARED = 20_000_000
MOST_REPEATED = 5_000_000
# Values of expected logarithms in a block: these fit into the cache of a core, which makes them twice as fast.
EXPECTED_VALUES = 50_000
MOMENTS = tuple(Moments.__dataclass_fields__)
# By scale, predictor and column: (sections, genes).
GeneScores = dict[str, dict[str, dict[str, Floats]]]


def run_blocks(work: Callable[[slice], None], parts: Iterable[slice], label: str, progress: bool) -> None:
    """Call `work` on all parts, a few at a time, with a bar."""
    from tqdm.auto import tqdm

    todo = list(parts)
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for _ in tqdm(pool.map(work, todo), total=len(todo), desc=label, unit="block", disable=not progress):
            pass


def with_computed_logs(predictor: Predictor, progress: bool) -> Predictor:
    """Return a predictor whose expected logarithms are computed once, for all spots and genes, as float32."""
    if not (isinstance(predictor, WithLogNormalized) and isinstance(predictor.log_normalized, ExpectedLog)):
        return predictor
    expected = predictor.log_normalized
    n_spots, n_genes = expected.counts.shape
    values = np.empty((n_spots, n_genes), dtype=np.float32)

    def work(spots: slice) -> None:
        values[spots] = expected.region(spots, ALL, "log_normalized")

    run_blocks(work, blocks(n_spots, n_genes, EXPECTED_VALUES), "expected logarithms", progress)
    return WithLogNormalized(predictor.counts, LogExpression(values, np.arange(n_spots), np.arange(n_genes)))


def score_genes(
    truth: Expression, predictors: Mapping[str, Predictor], scales: Sequence[Scale], progress: bool
) -> GeneScores:
    """Compare every gene over the spots of each section: its moments, and every score of genes."""
    n_spots, n_genes = truth.shape
    sections, depth, scores = truth.sections.slices, np.log(truth.library), scores_of("gene")
    columns_of = dict.fromkeys((*MOMENTS, *(score.name for score in scores)))
    tables: GeneScores = {
        scale: {
            name: {column: np.full((len(sections), n_genes), np.nan) for column in columns_of}
            for name, predictor in predictors.items()
            if scale in predictor.scales
        }
        for scale in scales
    }

    def work(genes: slice) -> None:
        for scale in scales:
            values = np.ascontiguousarray(truth.region(ALL, genes, scale).T)
            parts = [TruthRows(values[:, section], depth[section]) for section in sections]
            for name, columns in tables[scale].items():
                predicted = np.ascontiguousarray(predictors[name].region(ALL, genes, scale).T)
                for i, section in enumerate(sections):
                    rows = Rows(parts[i], predicted[:, section])
                    for column in MOMENTS:
                        columns[column][i, genes] = getattr(rows.moments, column)
                    for score in scores:
                        if scale in score.scales:
                            columns[score.name][i, genes] = score.function(rows)

    run_blocks(work, blocks(n_genes, n_spots, BLOCK_VALUES // 2), "genes", progress)
    return tables


def score_spots(
    truth: Expression, predictors: Mapping[str, Predictor], scale: Scale, seed: int, progress: bool
) -> dict[str, dict[str, Floats]]:
    """Compare spots over the genes, of large tables some at random: by predictor and score, one number per spot."""
    chosen, n_genes = spots_to_rank(*truth.shape, MOST_COMPARED, seed), truth.shape[1]
    n_spots, scores = len(chosen), scores_of("spot")
    names = [name for name, predictor in predictors.items() if scale in predictor.scales]
    tables = {name: {score.name: np.full(n_spots, np.nan) for score in scores} for name in names}

    def work(spots: slice) -> None:
        of_truth = TruthRows(truth.region(chosen[spots], ALL, scale))
        for name, columns in tables.items():
            predicted = np.ascontiguousarray(predictors[name].region(chosen[spots], ALL, scale))
            rows = Rows(of_truth, predicted)
            for score in scores:
                columns[score.name][spots] = score.function(rows)

    run_blocks(work, blocks(n_spots, n_genes, BLOCK_VALUES // 2), "spots", progress)
    return tables


def score_overall(
    truth: Expression, predictors: Mapping[str, Predictor], by_gene: GeneScores, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Score all values together, by scale and predictor; ranks of large tables are those of spots at random."""
    spots, n_spots = spots_to_rank(*truth.shape, MOST_RANKED, seed), truth.n_spots.tolist()
    return {
        scale: {
            name: _overall(truth, predictors[name], spots, scale, columns, n_spots)  # type: ignore[arg-type]
            for name, columns in tables.items()
        }
        for scale, tables in by_gene.items()
    }


def _overall(
    truth: Expression,
    predictor: Predictor,
    spots: Any,
    scale: Scale,
    columns: Mapping[str, Floats],
    n_spots: Sequence[int],
) -> dict[str, float]:
    parts = [
        Moments(**{c: columns[c][i].astype(bool) if c.endswith("constant") else columns[c][i] for c in MOMENTS})
        for i in range(len(n_spots))
    ]
    predicted = np.array(predictor.region(spots, ALL, scale))
    values = Overall(pooled(parts, n_spots), truth.region(spots, ALL, scale), predicted)
    return {score.name: score.function(values) for score in scores_of("overall") if scale in score.scales}


@dataclass(frozen=True)
class CountScores:
    """Scores of the distributions that a predictor gives: `counts` and `zeros` by name, and of each gene."""

    counts: dict[str, Any]
    zeros: dict[str, float]
    by_gene: dict[str, Floats]
    p_zero: Floats


def score_counts(
    truth: Expression, predictors: Mapping[str, Predictor], seed: int, progress: bool
) -> tuple[int, dict[str, CountScores]]:
    """Score the distributions of counts; return the number of spots used, and the scores by predictor."""
    from tqdm.auto import tqdm

    n_genes = truth.shape[1]
    spots = spots_to_rank(*truth.shape, MOST_COUNTED, seed)
    results: dict[str, CountScores] = {}
    chosen = ALL if len(spots) == truth.shape[0] else spots
    for name, predictor in predictors.items():
        if predictor.parameters(spots[:1], slice(0, 1)) is None:
            continue
        functions = {score.name: score.function for score in scores_of("gene counts")}
        tally = CountTally(n_genes, seed, functions | {"p_zero": zero_probability})
        todo = list(blocks(n_genes, len(spots), BLOCK_VALUES // 2))
        for genes in tqdm(todo, desc=f"counts of the {name.replace('_', ' ')}", unit="block", disable=not progress):
            counts = np.ascontiguousarray(truth.region(chosen, genes, "counts").T)
            parameters = predictor.parameters(chosen, genes)
            if parameters is not None:
                block = (None if p is None else np.ascontiguousarray(p.T) for p in parameters)
                tally.add(genes, CountBlock(counts, *block))
        p_zero = tally.by_gene.pop("p_zero")
        means = {score: float(np.mean(values)) for score, values in tally.by_gene.items()}
        others = {score.name: score.function(tally) for score in scores_of("counts")}
        zeros = {score.name: score.function(tally.zeros) for score in scores_of("zeros")}
        results[name] = CountScores(means | others, zeros, tally.by_gene, p_zero)
    return len(spots), results


def score_noise_ceiling(truth: Expression, scale: Scale, seed: int, *, without_depth: bool = False) -> Floats:
    """Noise ceiling by thinning, `(sections, genes)`; of large tables by one draw.

    `without_depth`: of what the log total count leaves.
    """
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


def score_space(
    truth: Expression, predictors: Mapping[str, Predictor], weights: Any, scale: Scale, progress: bool
) -> dict[str, dict[str, Floats]]:
    """Return spatial scores of truth, model, true means and log total count, by score: `(sections, genes)`.

    The depth baseline is a line in the log total count: its score is, for every gene, that of the log total.
    """
    n_genes, sections, scores = truth.shape[1], truth.sections, scores_of("spatial")
    sources: dict[str, Predictor] = {"truth": truth}
    sources |= {name: predictors[name] for name in ("model", "true_means") if name in predictors}
    local = [weights[section][:, section] for section in sections.slices]
    shape = len(sections.names), n_genes
    tables = {s.name: {name: np.full(shape, np.nan) for name in (*sources, "depth_baseline")} for s in scores}
    for score in scores:
        for i, section in enumerate(sections.slices):
            depth = np.log(truth.library[section])[:, None]
            tables[score.name]["depth_baseline"][i] = score.function(depth, local[i])

    def work(genes: slice) -> None:
        for name, source in sources.items():
            values = source.region(ALL, genes, scale)
            for score in scores:
                for i, section in enumerate(sections.slices):
                    tables[score.name][name][i, genes] = score.function(values[section], local[i])

    run_blocks(work, blocks(n_genes, truth.shape[0], BLOCK_VALUES // 2), "spatial scores", progress)
    return tables
