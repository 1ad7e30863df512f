"""Cell types, neighbors and places of the scored spots, read from AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hist2scrna import keys
from hist2scrna.evaluation.thumbnail import thumbnail_jpeg
from hist2scrna.metrics.labels import LabeledSpots
from hist2scrna.spots.coordinates import read_coordinates
from hist2scrna.spots.graph import build_graph
from hist2scrna.spots.labels import read_labels
from hist2scrna.spots.window import spot_diameter, window_corners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.evaluation.notes import Notes
    from hist2scrna.evaluation.read_prediction import Where
    from hist2scrna.spots.sections import OpenedSections
    from hist2scrna.trained.model import TrainedModel

MOST_SECTIONS, MOST_SPOTS = 2, 5_000


@dataclass(frozen=True)
class SpotGraph:
    """Neighbors of the scored spots.

    Attributes
    ----------
    weights
        `(spots, spots)` sparse.
    origin
        `"given"`, or the kinds of lattice for which they were built.
    """

    weights: Any
    origin: str


@dataclass(frozen=True)
class SectionMap:
    """Where the spots of a section lie, for the maps of an evaluation.

    Attributes
    ----------
    name
        Name of the section.
    n_spots
        Number of its scored spots.
    spots
        Places of those that are drawn among all scored spots.
    xy
        `(n, 2)` their coordinates, full-resolution pixels.
    spot_diameter
        Diameter of a spot in these pixels.
    image
        A small image of the tissue, see :func:`~hist2scrna.evaluation.thumbnail.thumbnail_jpeg`; None without one.
    """

    name: str
    n_spots: int
    spots: NDArray[np.int64]
    xy: NDArray[np.float64]
    spot_diameter: float
    image: dict[str, Any] | None


def read_label_codes(
    adata: AnnData, labels_key: str | None, trained: TrainedModel | None, predicted: AnnData, names: keys.OutputKeys
) -> NDArray[np.int64] | None:
    """Return a number for the true cell type of each spot, -1 where it is missing; None if no labels are asked for.

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
    return read_labels(adata, labels_key, known_classes(trained, predicted, names))[1]


def known_classes(trained: TrainedModel | None, predicted: AnnData, names: keys.OutputKeys) -> Sequence[str] | None:
    """Return the classes that the model can name; None if it names none."""
    if trained is not None and trained.classes:
        return list(trained.classes)
    if names.cell_type not in predicted.obs:
        return None
    # A subset of an AnnData has lost the categories that none of its spots is called.
    if hasattr(table := predicted.obsm.get(names.cell_type_probability), "columns"):
        return [str(c) for c in table.columns]
    return [str(c) for c in predicted.obs[names.cell_type].astype("category").cat.categories]


def read_cell_types(
    adata: AnnData, predicted: AnnData, names: keys.OutputKeys, labels_key: str | None, notes: Notes
) -> LabeledSpots | None:
    """Return true and predicted cell types of the labeled spots; None, with a note, if there is nothing to compare."""
    if labels_key is None:
        if names.cell_type in predicted.obs:
            notes.not_scored["cell types"] = "no labels_key= was given"
        return None
    if names.cell_type not in predicted.obs:
        notes.not_scored["cell types"] = "the model was trained without labels, and predicts none"
        return None
    named = predicted.obs[names.cell_type].notna().to_numpy()
    labeled = adata.obs[labels_key].notna().to_numpy() & named
    if not labeled.any():
        notes.not_scored["cell types"] = f"no spot has a value in adata.obs[{labels_key!r}]"
        return None
    confidence = None
    if names.cell_type_confidence in predicted.obs:
        confidence = predicted.obs[names.cell_type_confidence].to_numpy(dtype=np.float64)[labeled]
    if not labeled[named].all():
        notes.remarks.append(
            f"{int((~labeled[named]).sum())} spots without a label were left out of the cell-type scores."
        )
    true, called = (
        table.obs[column].astype(str).to_numpy()[labeled].astype(str)
        for table, column in ((adata, labels_key), (predicted, names.cell_type))
    )
    return LabeledSpots(true, called, confidence)


def read_neighbors(adata: AnnData, where: Where, notes: Notes) -> SpotGraph | None:
    """Return the given neighbors of the scored spots, else new ones within sections; None, with a note, without any."""
    if keys.CONNECTIVITIES in adata.obsp:
        return SpotGraph(sparse.csr_array(adata.obsp[keys.CONNECTIVITIES])[where.rows][:, where.rows], "given")
    if keys.SPATIAL not in adata.obsm:
        notes.not_scored["Moran's I"] = (
            f"neither neighbors in adata.obsp[{keys.CONNECTIVITIES!r}] nor coordinates in adata.obsm[{keys.SPATIAL!r}]"
        )
        return None
    try:
        xy = read_coordinates(adata, keys.SPATIAL, where.rows)
    except ValueError as error:
        notes.not_scored["Moran's I"] = str(error)
        return None
    graph = build_graph(adata, xy, where.sections.codes, where.sections.names)
    return SpotGraph(graph.adjacency, ", ".join(sorted(set(graph.origin))))


def read_maps(adata: AnnData, opened: OpenedSections, where: Where, seed: int) -> list[SectionMap]:
    """Return the first sections with places and a small image, of large ones some spots; none without coordinates."""
    try:
        xy = read_coordinates(adata, keys.SPATIAL, where.rows)
    except (KeyError, ValueError):
        return []
    rng, sections = np.random.default_rng(seed), {section.name: section for section in opened.members}
    maps = []
    for name, part in list(zip(where.sections.names, where.sections.slices, strict=True))[:MOST_SECTIONS]:
        spots = np.arange(part.start, part.stop)
        if len(spots) > MOST_SPOTS:
            spots = np.sort(rng.choice(spots, MOST_SPOTS, replace=False))
        diameter = spot_diameter(sections[name].entry, xy[part])
        image = thumbnail_jpeg(sections[name], *window_corners(xy[spots], diameter))
        maps.append(SectionMap(name, part.stop - part.start, spots, xy[spots], diameter, image))
    return maps
