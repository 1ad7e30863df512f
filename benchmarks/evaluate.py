"""Time and peak memory of evaluation: `python benchmarks/evaluate.py [--spots 50000] [--genes 2000] [--density 0.1]`.

The aim is 60 s and 4 GiB on two cores for 50,000 spots x 2,000 genes, sparse counts never made dense at once. Each part
is timed; memory is the peak of the whole process so far, data included.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from hist2scrna import keys, metrics
from hist2scrna.evaluation.passes import score_genes
from hist2scrna.evaluation.predictors import SCALES, BaselineExpression, Expression, Sections
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.tl import evaluate

ROWS = 1000


def simulate(n_spots: int, n_genes: int, density: float) -> tuple[sparse.csr_array, np.ndarray]:
    """Poisson counts with a share of about `density` above zero, and a noisy prediction of their means, float32."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.3, density * 5, n_genes)
    counts, predicted = [], np.empty((n_spots, n_genes), dtype=np.float32)
    for start in range(0, n_spots, ROWS):
        rows = slice(start, min(start + ROWS, n_spots))
        mean = rng.gamma(2, 0.5, (rows.stop - start, 1)) * rate
        counts.append(sparse.csr_array(rng.poisson(mean).astype(np.float32)))
        predicted[rows] = mean * rng.gamma(5, 0.2, mean.shape)
    table = sparse.csr_array(sparse.vstack(counts))
    found = np.asarray(table.sum(axis=1)).ravel() > 0
    return table[found], predicted[found]


def peak_gib() -> float:
    """Peak memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def timed(label: str, work: Callable[[], Any]) -> None:
    """Run, and print a line: where others share the machine, CPU seconds tell more than those of the clock."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{label:<44}{wall:8.1f} s{cpu:8.1f} s{peak_gib():8.2f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spots", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--density", type=float, default=0.1)
    options = parser.parse_args()
    counts, predicted = simulate(options.spots, options.genes, options.density)
    n_spots, n_genes = predicted.shape
    print(f"{n_spots:,} spots x {n_genes:,} genes, {counts.nnz / predicted.size:.1%} above zero")
    print(f"{'':<44}{'wall':>8}  {'CPU':>8}  {'peak':>8}\n{'before':<64}{peak_gib():8.2f} GiB")

    timed("metrics.pearson_by_gene", lambda: metrics.pearson_by_gene(counts, predicted))
    timed("metrics.spearman_by_gene", lambda: metrics.spearman_by_gene(counts, predicted))
    timed("metrics.errors_by_gene", lambda: metrics.errors_by_gene(counts, predicted))
    library = np.asarray(counts.sum(axis=1)).ravel()
    timed("metrics.depth_partial_pearson", lambda: metrics.depth_partial_pearson(counts, predicted, library))
    timed("metrics.noise_ceiling, one draw", lambda: metrics.noise_ceiling(counts, n_repeats=1))

    def gene_wise() -> None:
        sections = Sections(("one",), np.zeros(n_spots, dtype=np.int64))
        truth, baselines = Expression(counts, sections), Baselines.fit(counts)
        predictors = {
            "model": Expression(predicted, sections),
            "mean_baseline": BaselineExpression(baselines, truth.library, "mean"),
            "depth_baseline": BaselineExpression(baselines, truth.library, "depth"),
        }
        score_genes(truth, predictors, SCALES, progress=False)

    timed("all gene-wise scores, 3 predictors, 3 scales", gene_wise)
    names = keys.OutputKeys()
    adata = ad.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(n_spots)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]),
        layers={names.layer("mean"): predicted},
        obsm={keys.SPATIAL: np.stack(np.divmod(np.arange(n_spots), 250), axis=1) * 100.0},
        uns={names.parameters: {"likelihood": "poisson"}},
    )
    timed("tl.evaluate, everything", lambda: evaluate(adata, progress=False))


if __name__ == "__main__":
    main()
