"""How expression is arranged: in space, and in clusters of spots."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hist2scrna.evaluation import passes
from hist2scrna.evaluation.averages import nan_mean, over_sections
from hist2scrna.evaluation.predictors import HEADLINE, Expression, Predictor, Scale
from hist2scrna.evaluation.scores import scores_of
from hist2scrna.metrics.blocks import Floats
from hist2scrna.metrics.scales import ROUNDING

if TYPE_CHECKING:
    from hist2scrna.evaluation.inputs import ScoredData

# Leiden takes time: larger data are reduced to spots drawn at random, and to the genes that vary most in the truth.
MOST_SPOTS, MOST_GENES = 5_000, 1_000
# Fewer make no clusters worth comparing.
FEWEST_SPOTS, FEWEST_GENES = 30, 3
RESOLUTION, N_NEIGHBORS, N_COMPONENTS = 1.0, 15, 50


# -- in space ---------------------------------------------------------------------------------------------------------
def score_autocorrelation(
    data: ScoredData, predictors: Mapping[str, Predictor], progress: bool
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Return spatial scores over all genes, and of each gene: `morans_i` of the truth and `morans_i_prediction`."""
    if data.neighbors is None:
        return {}, {}
    tables = passes.score_space(data.truth, predictors, data.neighbors.weights, HEADLINE, progress)
    results: dict[str, Any] = {"neighbors": data.neighbors.origin}
    by_gene = {}
    for name, values in tables.items():
        results |= _spatial_agreement(name, values)
        by_gene[name] = nan_mean(values["truth"], axis=0)
        by_gene[f"{name}_prediction"] = nan_mean(values["model"], axis=0)
    return results, by_gene


def _spatial_agreement(name: str, values: Mapping[str, Floats]) -> dict[str, float]:
    """Return means over the genes, and how the scores of truth and prediction agree over the genes."""
    agreement = {
        f"{name}_truth": over_sections(values["truth"]),
        f"{name}_prediction": over_sections(values["model"]),
        f"{name}_depth_baseline": over_sections(values["depth_baseline"]),
        f"{name}_pearson": _correlation_by_section(values["truth"], values["model"]),
        f"{name}_mae": over_sections(np.abs(values["truth"] - values["model"])),
    }
    if "true_means" in values:
        agreement[f"{name}_true_means"] = over_sections(values["true_means"])
        agreement[f"{name}_pearson_true_means"] = _correlation_by_section(values["truth"], values["true_means"])
    return agreement


def _correlation_by_section(truth: Floats, prediction: Floats) -> float:
    """Correlate rows over the genes that are known in both, and average."""
    correlations = []
    for t, p in zip(truth, prediction, strict=True):
        both = np.isfinite(t) & np.isfinite(p)
        varied = both.sum() > 2 and np.ptp(t[both]) > 0 and np.ptp(p[both]) > 0
        correlations.append(float(np.corrcoef(t[both], p[both])[0, 1]) if varied else float("nan"))
    return float(nan_mean(np.array(correlations)))


# -- in clusters ------------------------------------------------------------------------------------------------------
def score_leiden(
    data: ScoredData, predictors: Mapping[str, Predictor], truth_sd: NDArray[np.float64], seed: int
) -> dict[str, Any]:
    """Compare Leiden clusters of the predictors with those of the truth and with the labels, if there are any."""
    if importlib.util.find_spec("igraph") is None:
        data.notes.not_scored["clusters"] = "igraph is not installed: pip install 'hist2scrna[leiden]'"
        return {}
    clusters = score_clusters(data.truth, predictors, HEADLINE, data.labels, truth_sd, seed)
    if not clusters:
        data.notes.not_scored["clusters"] = (
            f"{FEWEST_SPOTS} spots in a section and {FEWEST_GENES} genes are needed, which are not here"
        )
        return {}
    data.notes.remarks.append(
        f"Clusters: Leiden, resolution {clusters['resolution']:g}, at most {clusters['n_components']} principal "
        f"components of log-normalized expression, {clusters['n_spots']:,} spots, {clusters['n_genes']:,} genes, "
        "section by section."
    )
    return clusters


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
        Seed of the clusters, and of the draw of spots.

    Returns
    -------
    `n_spots`, `n_genes`, `n_sections`, `resolution`, `n_neighbors`, `n_components`, and for `"truth"` and each
    predictor `n_clusters` and, for each score of clusters, `{name}_truth` (of a predictor) and `{name}_labels` (with
    labels). Empty if there are too few genes, or no section has enough spots.
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
    tables: dict[str, dict[str, list[float]]] = {name: {} for name in ("truth", *predictors)}
    for part in parts:
        of_truth = leiden(truth.region(part, genes, scale), seed)
        for name, columns in tables.items():
            is_truth = name == "truth"
            clusters = of_truth if is_truth else leiden(np.array(predictors[name].region(part, genes, scale)), seed)
            compared_with = {} if is_truth else {"truth": (of_truth, clusters)}
            if labels is not None and (labeled := labels[part] >= 0).any():
                compared_with["labels"] = (labels[part][labeled], clusters[labeled])
            columns.setdefault("n_clusters", []).append(len(np.unique(clusters)))
            for other, pair in compared_with.items():
                for score in scores_of("clusters"):
                    columns.setdefault(f"{score.name}_{other}", []).append(score.function(*pair))
    return {
        "n_spots": sum(map(len, parts)),
        "n_genes": len(genes),
        "n_sections": len(parts),
        "resolution": RESOLUTION,
        "n_neighbors": N_NEIGHBORS,
        "n_components": min(N_COMPONENTS, len(genes) - 1),
        **{name: {key: float(np.mean(v)) for key, v in columns.items()} for name, columns in tables.items()},
    }


def leiden(values: Floats, seed: int) -> NDArray[np.int64]:
    """Cluster spots by Leiden's algorithm on the nearest neighbors in principal components, all by Scanpy.

    Parameters
    ----------
    values
        `(spots, genes)` log-normalized expression, at least 3 genes.
    seed
        Seed of all three steps.

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
