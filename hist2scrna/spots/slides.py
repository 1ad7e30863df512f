"""Observations without a place: rows that are slides, donors or regions instead of spots."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hist2scrna import keys
from hist2scrna.spots.graph import SpatialGraph
from hist2scrna.spots.sections import OpenedSections, Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from hist2scrna.spots.source import Source

NO_PLACE = "none"
ALL_SLIDES = "slides"


def pooled(adata: AnnData) -> Mapping[str, Any]:
    """Return what :func:`hist2scrna.pp.pool_patches` wrote; empty where the rows were not made by it."""
    return adata.uns.get(keys.POOLED) or {}


def rows_are_slides(adata: AnnData, observation: str) -> bool:
    """Tell whether the rows are slides: they were pooled, or the model knows nothing else.

    Raises
    ------
    ValueError
        If the model reads slides, and the rows are spots.
    """
    if pooled(adata):
        return True
    if observation == "slide" and keys.SPATIAL in adata.obsm:
        raise ValueError(
            f"This model reads slides, one a row, but adata.obsm['{keys.SPATIAL}'] is there, so the rows are spots. "
            "Make slides of them: pp.pool_patches(adata, by=...)."
        )
    return observation == "slide"


def with_pooled_features(adata: AnnData, source: Source, encoder: Any = None) -> Source:
    """Return where to read, with the features that were pooled if no others were asked for."""
    key = pooled(adata).get("features_key")
    if source.features_key is not None or encoder is not None or key is None:
        return source
    return replace(source, features_key=str(key))


def one_section_a_slide(opened: OpenedSections) -> OpenedSections:
    """Return sections of one slide each, so that whole slides are held out, unless a column says what belongs together.

    Raises
    ------
    ValueError
        If names of slides repeat.
    """
    adata = opened.adata
    if opened.source.library_key is not None:
        return opened
    repeated = adata.obs_names[adata.obs_names.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"{len(repeated)} names of slides occur more than once in adata.obs_names: {list(repeated[:3])}. Give each "
            "slide one row and a name of its own."
        )
    members = tuple(
        Section(str(name), np.array([row]), {}, opened.source, ()) for row, name in enumerate(adata.obs_names)
    )
    return OpenedSections(adata, opened.source, members, np.arange(adata.n_obs), opened.rows)


def slides_together(opened: OpenedSections) -> OpenedSections:
    """Return one section of all slides, where each would be one of its own: they are compared with one another."""
    if len(opened.members) < len(opened.codes):
        return opened
    n = len(opened.codes)
    source = replace(opened.source, library_key=None)
    member = Section(ALL_SLIDES, np.arange(n), {}, source, ())
    return OpenedSections(opened.adata, source, (member,), np.zeros(n, dtype=np.int64), opened.rows)


def no_graph(n_spots: int, n_sections: int) -> SpatialGraph:
    """Return a graph without edges."""
    empty = sparse.csr_array((n_spots, n_spots), dtype=np.float32)
    return SpatialGraph(empty, np.ones(n_sections), (NO_PLACE,) * n_sections)
