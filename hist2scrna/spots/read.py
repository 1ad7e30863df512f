"""From opened sections to the arrays of their spots: coordinates, graph, patches or features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.spots.array import read_array
from hist2scrna.spots.coordinates import read_coordinates
from hist2scrna.spots.features import read_features
from hist2scrna.spots.graph import DEFAULT, Neighbors, SpatialGraph, array_graph, build_graph
from hist2scrna.spots.patches import PatchSize, open_patches, pixel_um
from hist2scrna.spots.slides import NO_PLACE, no_graph
from hist2scrna.spots.unit import Unit, check_pitch, read_unit

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.images.patches import PatchGeometry, PatchSource
    from hist2scrna.spots.sections import OpenedSections


@dataclass
class Spots:
    """All spots of an AnnData, as arrays.

    Attributes
    ----------
    names
        Names of the spots.
    rows
        `(n,)` int64, numbers of their rows in AnnData; rows that are no spots, or have no place, were left out.
    sections
        Names of the sections.
    section
        `(n,)` int64, number of the section of each spot.
    xy
        `(n, 2)` float64, full-resolution pixels, x right, y down.
    graph
        Neighbors.
    unit
        What a row is, and how large.
    patches, geometry
        Patches and what they mean; None for models on features.
    pixel_um
        Side in microns of the pixels of the finest and of the coarsest image; None without images.
    features
        `(n, d)` float32; None for models on patches. NaN for spots that were not encoded.
    second_look
        `(n, d)` float32, features of another random variation of the same patches; None without augmentation.
    grid
        `(n, 2)` float32 array column and row; None for models that do not read these.
    counts
        `(n, G)` CSR float32; None for prediction.
    label
        `(n,)` int64 class, -1 where unknown; None without labels.
    groups, group
        Names of the groups of sections that are left out together, such as donors, and `(n,)` int64 the number of the
        group of each spot; None: each section is left out alone.
    another_donor
        `(n,)` bool, whether the tissue is of another donor than those of the training; None: none is.
    """

    names: pd.Index
    rows: NDArray[np.int64]
    sections: tuple[str, ...]
    section: NDArray[np.int64]
    xy: NDArray[np.float64]
    graph: SpatialGraph
    unit: Unit = Unit("spot")
    patches: PatchSource | None = None
    geometry: PatchGeometry | None = None
    pixel_um: tuple[float, float] | None = None
    features: NDArray[np.float32] | None = None
    second_look: NDArray[np.float32] | None = None
    grid: NDArray[np.float32] | None = None
    counts: sparse.csr_array | None = None
    label: NDArray[np.int64] | None = None
    groups: tuple[str, ...] | None = None
    group: NDArray[np.int64] | None = None
    another_donor: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def are_slides(self) -> bool:
        """Whether they are slides, which have no place."""
        return NO_PLACE in self.graph.origin

    @property
    def library_size(self) -> NDArray[np.float64]:
        """`(n,)`, sum of the counts of each spot over the modeled genes."""
        if self.counts is None:
            raise ValueError("These spots were read without counts.")
        return np.asarray(self.counts.sum(axis=1, dtype=np.float64)).ravel()


def read_spots(
    opened: OpenedSections,
    *,
    patch: PatchSize | None = None,
    n_features: int | None = None,
    on_array: bool = False,
    neighbors: Neighbors = DEFAULT,
    slides: bool = False,
) -> Spots:
    """Read coordinates, graph and patches or features; nothing is written to AnnData.

    Parameters
    ----------
    opened
        The sections, and where to read.
    patch
        How large a patch is; None: read the features of `opened.source` instead.
    n_features
        Width that the features must have; None: any.
    on_array
        Read array columns and rows too, and take the neighbors from these (directed, as Hist2ST has them).
    neighbors
        Which spots or cells are neighbors.
    slides
        The rows are slides: no coordinates are read, and there are no neighbors.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        If a slot or file is missing or wrong.
    """
    adata, source, names, section = opened.adata, opened.source, opened.names, opened.codes
    xy = np.zeros((adata.n_obs, 2)) if slides else read_coordinates(adata, source.spatial_key)
    for member in () if slides else opened.members:
        check_pitch(member, xy[member.rows], f"adata.obsm[{source.spatial_key!r}]")
    features = patches = geometry = None
    if patch is not None:
        patches, geometry = open_patches(opened, xy, patch)
    elif source.features_key is None:
        raise ValueError("This model reads features: pass features_key=, the slot in adata.obsm that holds them.")
    else:
        features = read_features(adata, source.features_key, n_features)
    grid = read_array(adata, xy, section, names) if on_array else None
    if slides:
        graph = no_graph(adata.n_obs, len(names))
    elif grid is not None:
        graph = array_graph(grid, xy, section, len(names))
    else:
        by_radius = neighbors.radius_um is not None
        scales = [member.scale.mpp for member in opened.members] if by_radius else None
        graph = build_graph(adata, xy, section, names, neighbors, scales)
    return Spots(
        names=adata.obs_names,
        rows=opened.rows,
        sections=names,
        section=section,
        xy=xy,
        graph=graph,
        unit=read_unit(opened, xy, slides=slides),
        patches=patches,
        geometry=geometry,
        pixel_um=_pixels(opened) if patch is not None else None,
        features=features,
        grid=grid,
    )


def _pixels(opened: OpenedSections) -> tuple[float, float] | None:
    if opened.patches_are_files:
        return None
    sides = [pixel_um(section) for section in opened.members]
    return min(sides), max(sides)
