"""How much of composition can be known: what perfect knowledge of neighbors, or of a few programs, would score.

python benchmarks/composition_limit.py [--data her2st mob]

No picture is read. Depth-partial Pearson by gene, log(1 + 1e4 x / total), mean over genes, for each section held out:

neighbors      the mean of the truth itself over the four nearest spots of the same section
programs k    the true scores of the k leading programs of the training sections, from the very counts that are
                scored: a picture that told them perfectly would score no more, for the noise of each gene leaks in
half, k         the same scores known from one half of the counts (binomial thinning), scored on the other half
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import peers
from sklearn.neighbors import NearestNeighbors

from hist2scrna.benchmarking.panel import choose_panel
from hist2scrna.metrics import depth_partial_pearson
from hist2scrna.metrics.scales import log_normalize

PROGRAMS = (1, 2, 3, 5, 10)
NEIGHBORS = 4


def without_depth(counts: np.ndarray, lines: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return log-normalized expression less its line in the log total, and the lines, of these spots or given."""
    logs, depth = log_normalize(counts), np.log(counts.sum(axis=1))
    design = np.stack([np.ones_like(depth), depth], axis=1)
    lines = np.linalg.lstsq(design, logs, rcond=None)[0] if lines is None else lines
    return logs - design @ lines, lines


def score(counts: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.nanmean(depth_partial_pearson(log_normalize(counts), prediction, counts.sum(axis=1))))


def limits(train: np.ndarray, test: np.ndarray, xy: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Score one section."""
    nearest = NearestNeighbors(n_neighbors=NEIGHBORS + 1).fit(xy).kneighbors(xy, return_distance=False)[:, 1:]
    found = {"neighbors": score(test, log_normalize(test)[nearest].mean(axis=1))}
    residual, lines = without_depth(train)
    axes = np.linalg.svd(residual, full_matrices=False)[2]
    half = rng.binomial(test.astype(np.int64), 0.5).astype(float)
    other = test - half
    both = (half.sum(axis=1) > 0) & (other.sum(axis=1) > 0)
    for k in PROGRAMS:
        found[f"programs {k}"] = score(test, without_depth(test, lines)[0] @ axes[:k].T @ axes[:k])
        found[f"half, {k}"] = score(other[both], without_depth(half[both], lines)[0] @ axes[:k].T @ axes[:k])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["her2st", "mob"], choices=["her2st", "mob"])
    options = parser.parse_args()
    for name in options.data:
        adata, panel = {"her2st": peers.her2st, "mob": peers.mob}[name]()
        rows = {}
        for fold in adata.obs["library_id"].cat.categories:
            own = (adata.obs["library_id"] == fold).to_numpy()
            genes = list(choose_panel(adata, ~own, **panel).genes)
            train, test = (adata[which, genes].X.toarray().astype(float) for which in (~own, own))
            seen = test.sum(axis=1) > 0
            xy = adata.obsm["spatial"][own][seen]
            rows[fold] = limits(train[train.sum(axis=1) > 0], test[seen], xy, np.random.default_rng(0))
        table = pd.DataFrame(rows)
        table["mean"] = table.mean(axis=1)
        print(f"{name}\n{table.round(3).to_string()}\n")


if __name__ == "__main__":
    main()
