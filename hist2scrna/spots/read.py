"""From opened sections to the arrays of their spots: coordinates, graph, patches or features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.spots.array import read_array
from hist2scrna.spots.coordinates import check_places, read_coordinates
from hist2scrna.spots.features import read_features
from hist2scrna.spots.graph import DEFAULT, Neighbors, SpatialGraph, array_graph, build_graph, graph_is_stored
from hist2scrna.spots.interleave import Parts, interleaved
from hist2scrna.spots.patches import PatchSize, open_patches, pixel_um
from hist2scrna.spots.slides import NO_PLACE, no_graph
from hist2scrna.spots.tiles import TileSize, TileSource, open_tiles
from hist2scrna.spots.unit import Unit, check_pitch, read_pitch, read_unit

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
    pitch_um
        Distance between neighboring spots in microns, the median over the sections; None where that is not known.
    part
        `(n,)` int64, number of what is read together, where sections are taken apart into interleaved lattices at the
        pitch of the training; None: the sections.
    patches, geometry
        Patches and what they mean; None for models on features. Of tiles, what they mean.
    tiles
        Tiles with nuclei; None for models that do not read these.
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
        `(n,)` int64 class, -1 where unknown; None without labels. Of the nuclei, where the spots are sums of these.
    groups, group
        Names of the groups of sections that are left out together, such as donors, and `(n,)` int64 the number of the
        group of each spot; None: each section is left out alone.
    donor
        `(n,)` int64, which donor of the training the tissue is of, -1: another; None: the first.
    """

    names: pd.Index
    rows: NDArray[np.int64]
    sections: tuple[str, ...]
    section: NDArray[np.int64]
    xy: NDArray[np.float64]
    graph: SpatialGraph
    unit: Unit = Unit("spot")
    pitch_um: float | None = None
    part: NDArray[np.int64] | None = None
    patches: PatchSource | None = None
    geometry: PatchGeometry | None = None
    tiles: TileSource | None = None
    pixel_um: tuple[float, float] | None = None
    features: NDArray[np.float32] | None = None
    second_look: NDArray[np.float32] | None = None
    grid: NDArray[np.float32] | None = None
    counts: sparse.csr_array | None = None
    label: NDArray[np.int64] | None = None
    groups: tuple[str, ...] | None = None
    group: NDArray[np.int64] | None = None
    donor: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def together(self) -> NDArray[np.int64]:
        """`(n,)` int64, number of the section, or of the part of one, whose spots are read together."""
        return self.section if self.part is None else self.part

    @property
    def are_slides(self) -> bool:
        """Whether they are slides, which have no place."""
        return NO_PLACE in self.graph.origin

    @property
    def called(self) -> str:
        """What they are called: spots, bins, cells or slides."""
        return self.unit.rows

    @property
    def are_sums(self) -> bool:
        """Whether they are spots that are predicted as sums of the nuclei in them."""
        return self.tiles is not None and self.tiles.by_spot is not None

    def nuclei_summed(self, some: NDArray[np.int64]) -> int | None:
        """Return how many nuclei lie in some of the spots, where spots are fitted as sums of them; else None."""
        return int(self.tiles.n_nuclei()[some].sum()) if self.tiles is not None and self.are_sums else None

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
    tile: TileSize | None = None,
    n_features: int | None = None,
    on_array: bool = False,
    neighbors: Neighbors = DEFAULT,
    slides: bool = False,
    trained_um: float | None = None,
) -> Spots:
    """Read coordinates, graph and patches or features; nothing is written to AnnData.

    Parameters
    ----------
    opened
        The sections, and where to read.
    patch
        How large a patch is; None: read the features of `opened.source` instead.
    tile
        How large a tile is, for models on tiles; these read neither patches nor features.
    n_features
        Width that the features must have; None: any.
    on_array
        Read array columns and rows too, and take the neighbors from these (directed, as Hist2ST has them).
    neighbors
        Which spots or cells are neighbors.
    slides
        The rows are slides: no coordinates are read, and there are no neighbors.
    trained_um
        Distance between neighbors in training, in microns: a finer lattice is taken apart into lattices of about that
        pitch, unless its graph is stored. None: no section is taken apart.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        If a slot or file is missing or wrong.
    """
    adata, source, names, section = opened.adata, opened.source, opened.names, opened.codes
    xy = np.zeros((adata.n_obs, 2)) if slides else read_coordinates(adata, source.spatial_key)
    for member in () if slides else opened.members:
        check_places(member.name, xy[member.rows], f"adata.obsm[{source.spatial_key!r}]")
        check_pitch(member, xy[member.rows], f"adata.obsm[{source.spatial_key!r}]")
    features = patches = geometry = tiles = None
    if tile is not None:
        tiles, geometry = open_tiles(opened, xy, tile)
    elif patch is not None:
        patches, geometry = open_patches(opened, xy, patch)
    elif source.features_key is None:
        raise ValueError("This model reads features: pass features_key=, the slot in adata.obsm that holds them.")
    else:
        features = read_features(adata, source.features_key, n_features)
    grid = read_array(adata, xy, section, names) if on_array else None
    pitch_um = () if slides else read_pitch(opened, xy)
    parts = None
    if trained_um is not None and not slides and (on_array or not graph_is_stored(adata, neighbors)):
        parts = interleaved(xy, section, names, pitch_um, trained_um)
    if grid is not None and parts is not None:
        grid = np.floor(grid / parts.step[:, None])
    graph = no_graph(adata.n_obs, len(names)) if slides else _read_graph(opened, xy, grid, neighbors, parts)
    return Spots(
        names=adata.obs_names,
        rows=opened.rows,
        sections=names,
        section=section,
        xy=xy,
        graph=graph,
        unit=read_unit(opened, xy, slides=slides, sums=tiles is not None and tiles.by_spot is not None),
        pitch_um=round(float(np.median(known)), 3) if (known := [um for um in pitch_um if um is not None]) else None,
        part=None if parts is None else parts.part,
        patches=patches,
        geometry=geometry,
        tiles=tiles,
        pixel_um=_pixels(opened) if patch is not None else None,
        features=features,
        grid=grid,
    )


def _read_graph(
    opened: OpenedSections,
    xy: NDArray[np.float64],
    grid: NDArray[np.float32] | None,
    neighbors: Neighbors,
    parts: Parts | None,
) -> SpatialGraph:
    """Return the neighbors of every spot within its section, or within its part of one."""
    names, code, member = opened.names, opened.codes, np.arange(len(opened.names))
    if parts is not None:
        names, code, member = parts.names, parts.part, parts.section
    if grid is not None:
        graph = array_graph(grid, xy, code, len(names))
    else:
        by_radius = neighbors.radius_um is not None
        scales = [opened.members[i].scale.mpp for i in member] if by_radius else None
        graph = build_graph(opened.adata, xy, code, names, neighbors, scales)
    _, first = np.unique(member, return_index=True)
    return replace(graph, origin=tuple(graph.origin[i] for i in first))


def _pixels(opened: OpenedSections) -> tuple[float, float] | None:
    if opened.patches_are_files:
        return None
    sides = [pixel_um(section) for section in opened.members]
    return min(sides), max(sides)
