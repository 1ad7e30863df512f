"""Leiden clusters of expression, and how those of a prediction agree with those of the truth and with labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hist2scrna.evaluation.predictors import Expression, Predictor, Scale
from hist2scrna.metrics.blocks import Floats
from hist2scrna.metrics.labels import cluster_agreement
from hist2scrna.metrics.scales import ROUNDING

# Leiden takes time: of larger data, spots drawn at random, and the genes that vary most in the truth.
MOST_SPOTS, MOST_GENES = 5_000, 1_000
# Fewer make no clusters worth comparing.
FEWEST_SPOTS, FEWEST_GENES = 30, 3
RESOLUTION, N_NEIGHBORS, N_COMPONENTS = 1.0, 15, 50


def leiden(values: Floats, seed: int) -> NDArray[np.int64]:
    """Cluster spots by Leiden's algorithm on the nearest neighbors in principal components, all by Scanpy.

    Parameters
    ----------
    values
        `(spots, genes)` log-normalized expression, at least 3 genes.
    seed
        Of all three steps.

    Returns
    -------
    `(spots,)` int64, number of the cluster; a single one if all spots are alike.

    References
    ----------
    Traag, Waltman and van Eck, From Louvain to Leiden, Scientific Reports 9:5233 (2019).
    """
    import anndata
    import scanpy as sc

    n_spots, n_genes = values.shape
    highest, lowest = values.max(axis=0), values.min(axis=0)
    if (highest - lowest <= ROUNDING * np.maximum(np.abs(highest), np.abs(lowest))).all():
        return np.zeros(n_spots, dtype=np.int64)
    spots = anndata.AnnData(values.astype(np.float32))
    n_comps = min(N_COMPONENTS, n_spots - 1, n_genes - 1)
    sc.pp.pca(spots, n_comps=n_comps, svd_solver="covariance_eigh", random_state=seed)
    # Exact neighbors: approximate ones depend on the number of threads.
    sc.pp.neighbors(spots, min(N_NEIGHBORS, n_spots - 1), transformer="sklearn", random_state=seed)
    sc.tl.leiden(spots, RESOLUTION, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    return spots.obs["leiden"].cat.codes.to_numpy(dtype=np.int64)


def score_clusters(
    truth: Expression,
    predictors: Mapping[str, Predictor],
    scale: Scale,
    labels: NDArray[np.int64] | None,
    truth_sd: Floats,
    seed: int,
) -> dict[str, Any]:
    """Compare clusters section by section, and average over the sections.

    Parameters
    ----------
    truth, predictors, scale
        What is clustered.
    labels
        `(spots,)` number of the true cell type, -1 where there is none; None: no labels.
    truth_sd
        `(genes,)` standard deviation of the truth, by which genes are chosen.
    seed
        Of the clusters, and of the draw of spots.

    Returns
    -------
    `n_spots`, `n_genes`, `n_sections`, `resolution`, `n_neighbors`, `n_components`, and for `"truth"` and each
    predictor `n_clusters`, `ari_truth`, `nmi_truth` (of a predictor), `ari_labels`, `nmi_labels` (with labels). Empty
    if there are too few genes, or no section has spots enough.
    """
    n_spots, n_genes = truth.shape
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(n_spots, min(n_spots, MOST_SPOTS), replace=False))
    genes = np.sort(np.argsort(-np.nan_to_num(truth_sd), kind="stable")[:MOST_GENES])
    parts = [chosen[(chosen >= s.start) & (chosen < s.stop)] for s in truth.sections.slices]
    parts = [part for part in parts if len(part) >= FEWEST_SPOTS]
    if n_genes < FEWEST_GENES or not parts:
        return {}
    predictors = {name: p for name, p in predictors.items() if scale in p.scales}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ("truth", *predictors)}
    for part in parts:
        true = leiden(truth.region(part, genes, scale), seed)
        for name, scores in found.items():
            own = true if name == "truth" else leiden(np.array(predictors[name].region(part, genes, scale)), seed)
            pairs = {} if name == "truth" else {"truth": (true, own)}
            if labels is not None and (labeled := labels[part] >= 0).any():
                pairs["labels"] = (labels[part][labeled], own[labeled])
            scores.setdefault("n_clusters", []).append(len(np.unique(own)))
            for other, (a, b) in pairs.items():
                for index, value in cluster_agreement(a, b).items():
                    scores.setdefault(f"{index}_{other}", []).append(value)
    return {
        "n_spots": sum(map(len, parts)),
        "n_genes": len(genes),
        "n_sections": len(parts),
        "resolution": RESOLUTION,
        "n_neighbors": N_NEIGHBORS,
        "n_components": min(N_COMPONENTS, len(genes) - 1),
        **{name: {key: float(np.mean(v)) for key, v in scores.items()} for name, scores in found.items()},
    }
