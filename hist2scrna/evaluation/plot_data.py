"""What the plots of an evaluation need, as plain numbers, so that its JSON is enough to draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.evaluation.drawing_data import DIGITS, extreme_genes, reliability, scatter_points
from hist2scrna.evaluation.summary import HEADLINE
from hist2scrna.evaluation.thumbnail import thumbnail_jpeg
from hist2scrna.spots.coordinates import read_coordinates
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source
from hist2scrna.spots.window import spot_diameter, window_corners

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from hist2scrna.evaluation.inputs import Scored

N_EXTREME, MOST_SECTIONS, MOST_SPOTS = 4, 2, 5_000


def collect_plot_data(
    adata: AnnData,
    predicted: AnnData,
    scored: Scored,
    pearson: pd.Series,
    names: keys.OutputKeys,
    labels_key: str | None,
    library_key: str | None,
    seed: int,
) -> dict[str, Any]:
    """Return what :attr:`hist2scrna.evaluation.Evaluation.plot_data` describes."""
    best, worst = extreme_genes(pearson, N_EXTREME)
    found: dict[str, Any] = {
        "scatter": scatter_points(scored.truth, scored.model, seed),
        "maps": {"best": best, "worst": worst, "sections": _sections(adata, scored, best + worst, library_key, seed)},
    }
    confidence = names.cell_type_confidence
    if labels_key is not None and names.cell_type in predicted.obs and confidence in predicted.obs:
        labeled = adata.obs[labels_key].notna().to_numpy()
        right = adata.obs[labels_key].astype(str).to_numpy() == predicted.obs[names.cell_type].astype(str).to_numpy()
        sure = predicted.obs[confidence].to_numpy(dtype=np.float64)
        if labeled.any():
            found["reliability"] = reliability(right[labeled], sure[labeled])
    return found


def _sections(
    adata: AnnData, scored: Scored, genes: list[str], library_key: str | None, seed: int
) -> dict[str, dict[str, Any]]:
    """Return, by section, coordinates and both expressions of a few genes; nothing without coordinates."""
    try:
        xy = read_coordinates(adata, keys.SPATIAL)[scored.kept]
    except (KeyError, ValueError):
        return {}
    columns, rng = np.array([scored.genes.index(gene) for gene in genes], dtype=np.int64), np.random.default_rng(seed)
    opened = {section.name: section for section in open_sections(adata, Source(library_key=library_key)).members}
    found = {}
    for name, part in list(zip(scored.sections.names, scored.sections.slices, strict=True))[:MOST_SECTIONS]:
        spots = np.arange(part.start, part.stop)
        if len(spots) > MOST_SPOTS:
            spots = np.sort(rng.choice(spots, MOST_SPOTS, replace=False))
        diameter = spot_diameter(opened[name].entry, xy[part])
        truth, prediction = (
            np.round(source.region(spots, columns, HEADLINE), DIGITS) for source in (scored.truth, scored.model)
        )
        found[name] = {
            "n_spots": part.stop - part.start,
            "xy": np.round(xy[spots], 1),
            "spot_diameter": round(diameter, 2),
            "truth": dict(zip(genes, truth.T, strict=True)),
            "prediction": dict(zip(genes, prediction.T, strict=True)),
            "picture": thumbnail_jpeg(opened[name], *window_corners(xy[spots], diameter)),
        }
    return found
