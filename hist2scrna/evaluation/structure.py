"""Cell types of the scored spots, and how expression is arranged: in space, and in clusters."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hist2scrna import keys
from hist2scrna.evaluation import passes, summary
from hist2scrna.evaluation.clusters import FEWEST_GENES, FEWEST_SPOTS, score_clusters
from hist2scrna.metrics.labels import cell_type_scores
from hist2scrna.spots.coordinates import read_coordinates
from hist2scrna.spots.graph import build_graph
from hist2scrna.spots.labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.evaluation.inputs import Remarks, Scored
    from hist2scrna.evaluation.predictors import Predictor
    from hist2scrna.trained.model import TrainedModel


def check_labels(
    adata: AnnData, labels_key: str | None, trained: TrainedModel | None, predicted: AnnData, names: keys.OutputKeys
) -> NDArray[np.int64] | None:
    """Return a number for the true cell type of each spot, -1 where it is missing; None: no labels are asked for.

    Raises
    ------
    KeyError
        If the column is missing.
    ValueError
        If it holds a label that the model never saw.
    """
    if labels_key is None:
        return None
    if labels_key in adata.obs and not adata.obs[labels_key].notna().any():
        return np.full(adata.n_obs, -1, dtype=np.int64)
    return read_labels(adata, labels_key, _classes(trained, predicted, names))[1]


def _classes(trained: TrainedModel | None, predicted: AnnData, names: keys.OutputKeys) -> Sequence[str] | None:
    """Return the classes that the model can name; None if it names none."""
    if trained is not None and trained.classes:
        return list(trained.classes)
    if names.cell_type not in predicted.obs:
        return None
    # A subset of an AnnData has lost the categories that no spot of it is called.
    if hasattr(table := predicted.obsm.get(names.cell_type_probability), "columns"):
        return [str(c) for c in table.columns]
    return [str(c) for c in predicted.obs[names.cell_type].astype("category").cat.categories]


def score_cell_types(
    adata: AnnData, predicted: AnnData, names: keys.OutputKeys, labels_key: str | None, remarks: Remarks
) -> dict[str, Any]:
    """Compare predicted with true cell types; what cannot be compared goes to the remarks."""
    if labels_key is None:
        if names.cell_type in predicted.obs:
            remarks.not_scored["cell types"] = "no labels_key= was given"
        return {}
    if names.cell_type not in predicted.obs:
        remarks.not_scored["cell types"] = "the model was trained without labels, and predicts none"
        return {}
    labeled = adata.obs[labels_key].notna().to_numpy()
    if not labeled.any():
        remarks.not_scored["cell types"] = f"no spot has a value in adata.obs[{labels_key!r}]"
        return {}
    true = adata.obs[labels_key].astype(str).to_numpy()[labeled]
    named = predicted.obs[names.cell_type].astype(str).to_numpy()[labeled]
    confidence = None
    if names.cell_type_confidence in predicted.obs:
        confidence = predicted.obs[names.cell_type_confidence].to_numpy(dtype=np.float64)[labeled]
    if not labeled.all():
        remarks.notes.append(f"{int((~labeled).sum())} spots without a label were left out of the cell-type scores.")
    return {**cell_type_scores(true, named, confidence), "n_labeled": int(labeled.sum())}


def score_autocorrelation(
    adata: AnnData, scored: Scored, predictors: Mapping[str, Predictor], remarks: Remarks, progress: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return Moran's I over all genes, and of each gene: `morans_i` of the truth and `morans_i_prediction`."""
    weights, origin = _weights(adata, scored, remarks)
    if weights is None:
        return {}, {}
    morans = passes.score_spatial(scored.truth, predictors, weights, summary.HEADLINE, progress)
    by_gene = {
        column: summary.quiet(np.nanmean, morans[name], axis=0)
        for column, name in (("morans_i", "truth"), ("morans_i_prediction", "model"))
    }
    return {"neighbors": origin, **summary.spatial_agreement(morans)}, by_gene


def _weights(adata: AnnData, scored: Scored, remarks: Remarks) -> tuple[Any, str]:
    """Return the neighbors of the scored spots, those given or else built section by section, and where from."""
    if keys.CONNECTIVITIES in adata.obsp:
        return sparse.csr_array(adata.obsp[keys.CONNECTIVITIES])[scored.kept][:, scored.kept], "given"
    if keys.SPATIAL not in adata.obsm:
        remarks.not_scored["Moran's I"] = (
            f"neither neighbors in adata.obsp[{keys.CONNECTIVITIES!r}] nor coordinates in adata.obsm[{keys.SPATIAL!r}]"
        )
        return None, ""
    try:
        xy = read_coordinates(adata, keys.SPATIAL)[scored.kept]
    except ValueError as error:
        remarks.not_scored["Moran's I"] = str(error)
        return None, ""
    graph = build_graph(adata, xy, scored.sections.codes, scored.sections.names)
    return graph.adjacency, ", ".join(sorted(set(graph.origin)))


def score_leiden(
    scored: Scored,
    predictors: Mapping[str, Predictor],
    labels: NDArray[np.int64] | None,
    truth_sd: NDArray[np.float64],
    seed: int,
    remarks: Remarks,
) -> dict[str, Any]:
    """Compare Leiden clusters of the predictors with those of the truth and with the labels `(n_obs,)`, if given."""
    if importlib.util.find_spec("igraph") is None:
        remarks.not_scored["clusters"] = "igraph is not installed: pip install 'hist2scrna[leiden]'"
        return {}
    own = None if labels is None else labels[scored.kept]
    found = score_clusters(scored.truth, predictors, summary.HEADLINE, own, truth_sd, seed)
    if not found:
        remarks.not_scored["clusters"] = (
            f"{FEWEST_SPOTS} spots in a section and {FEWEST_GENES} genes are needed, which are not here"
        )
        return {}
    remarks.notes.append(
        f"Clusters: Leiden, resolution {found['resolution']:g}, at most {found['n_components']} principal "
        f"components of log-normalized expression, {found['n_spots']:,} spots, {found['n_genes']:,} genes, section by "
        "section."
    )
    return found
