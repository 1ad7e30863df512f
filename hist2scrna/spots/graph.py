"""The neighbor graph of all sections: the one that is stored, or one built section by section."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from hist2scrna import keys
from hist2scrna.messages import fields_known
from hist2scrna.spots.builders import array_edges, delaunay_edges, knn_edges, lattice_edges, symmetric, within
from hist2scrna.spots.lattice import find_lattice
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

Kind = Literal["knn", "delaunay"]


@fields_known("field of `neighbors`")
@dataclass(frozen=True)
class Neighbors:
    """Which spots or cells are neighbors, where that is not left to the lattice.

    Attributes
    ----------
    kind
        `"knn"`: the nearest `n_neighbors`. `"delaunay"`: those with a common edge of the Delaunay triangulation. None:
        the lattice where there is one, else the nearest 6.
    n_neighbors
        Number of the nearest; None: 6.
    radius_um
        Neighbors farther apart than this, in microns, are none; None: no limit.

    Raises
    ------
    ValueError
        If a value is wrong, or `n_neighbors` is given with a kind that does not use it.

    Examples
    --------
    >>> h2s.Neighbors("delaunay", radius_um=30)
    Neighbors(kind='delaunay', n_neighbors=None, radius_um=30)
    """

    kind: Kind | None = None
    n_neighbors: int | None = None
    radius_um: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in (None, "knn", "delaunay"):
            raise ValueError(f"Expected `neighbors` to be 'knn' or 'delaunay', found {self.kind!r}.")
        if self.n_neighbors is not None and self.kind != "knn":
            raise ValueError(f"`n_neighbors` goes with neighbors='knn', found neighbors={self.kind!r}.")
        if self.n_neighbors is not None and self.n_neighbors < 1:
            raise ValueError(f"Expected `n_neighbors` to be at least 1, found {self.n_neighbors}.")
        if self.radius_um is not None and not 0 < self.radius_um < float("inf"):
            raise ValueError(f"Expected `radius_um` to be a positive number, found {self.radius_um}.")

    @property
    def asked(self) -> bool:
        """Whether anything was asked for, so that a graph in `.obsp` is not taken."""
        return self != Neighbors()


def as_neighbors(given: Neighbors | Mapping[str, Any] | str | None) -> Neighbors:
    """Return which spots are neighbors, from an object, its fields by name, or a kind alone."""
    if isinstance(given, Neighbors):
        return given
    return Neighbors(**given) if isinstance(given, Mapping) else Neighbors(given)  # type: ignore[arg-type]


DEFAULT = Neighbors()
DELETE = (
    f"Delete it, and neighbors are found from the coordinates: del adata.obsp['{keys.CONNECTIVITIES}']; or build it "
    "again with Squidpy."
)


@dataclass(frozen=True)
class SpatialGraph:
    """Neighbors of every spot.

    Attributes
    ----------
    adjacency
        `(n, n)` CSR of ones, symmetric, empty diagonal, no edge between sections.
    pitch
        `(n_sections,)` median distance between neighbors in full-resolution pixels; 1 where there is no edge. Where
        sections are taken apart (`Spots.part`), that of each part.
    origin
        Where the edges of each section come from: `"hexagonal"`, `"square"`, `"irregular"`, `"knn"`, `"delaunay"`,
        `"array"` or `"given"`.
    """

    adjacency: sparse.csr_array
    pitch: NDArray[np.float64]
    origin: tuple[str, ...]


def build_graph(
    adata: AnnData,
    xy: NDArray[np.float64],
    section: NDArray[np.int64],
    sections: Sequence[str],
    neighbors: Neighbors = DEFAULT,
    mpp: Sequence[float] | None = None,
) -> SpatialGraph:
    """Take the graph in `.obsp["spatial_connectivities"]`, or build one for each section.

    A section on a hexagonal lattice gets its 6 lattice neighbors, on a square one 4, any other its 6 nearest spots;
    which it is is found from the coordinates and logged. Where neighbors are asked for, they are built so whatever
    `.obsp` holds. All edges are made symmetric.

    Parameters
    ----------
    adata
        Annotated data, for `.obsp`.
    xy
        `(n, 2)` coordinates in full-resolution pixels.
    section
        `(n,)` number of the section of each spot.
    sections
        Names of the sections, for messages.
    neighbors
        Which neighbors.
    mpp
        Microns per pixel of each section, for a radius.

    Raises
    ------
    ValueError
        If a given graph has no edges, edges between sections, or weights that are negative or NaN, or a radius is
        asked for and `mpp` is not known.
    """
    if neighbors.radius_um is not None and mpp is None:
        raise ValueError("`radius_um` needs microns per pixel: pass mpp=, or give the spot diameter in adata.uns.")
    if graph_is_stored(adata, neighbors):
        adjacency = _stored_edges(adata, section)
        origin = ("given",) * len(sections)
    else:
        adjacency, origin = _built_edges(xy, section, sections, neighbors, mpp)
    return SpatialGraph(adjacency, _pitch(adjacency, xy, section, len(sections)), origin)


def graph_is_stored(adata: AnnData, neighbors: Neighbors) -> bool:
    """Tell whether the graph in `.obsp` is taken, and none is built."""
    return keys.CONNECTIVITIES in adata.obsp and not neighbors.asked


def _stored_edges(adata: AnnData, section: NDArray[np.int64]) -> sparse.csr_array:
    where = f"adata.obsp['{keys.CONNECTIVITIES}']"
    stored = sparse.csr_array(adata.obsp[keys.CONNECTIVITIES])
    wrong = ~np.isfinite(stored.data)
    wrong |= np.iscomplex(stored.data) if np.iscomplexobj(stored.data) else stored.data < 0
    if wrong.any():
        raise ValueError(
            f"Expected {where} to hold weights of 0 or more, found {int(wrong.sum())} others, such as "
            f"{stored.data[wrong][0]:.4g}. {DELETE}"
        )
    adjacency = symmetric(stored)
    if adjacency.nnz == 0 and len(np.unique(section)) < len(section):
        raise ValueError(f"{where} holds no edge between two spots, so that no spot has a neighbor. {DELETE}")
    edges = sparse.coo_array(adjacency)
    across = int((section[edges.row] != section[edges.col]).sum()) // 2
    if across:
        raise ValueError(
            f"{where} has {across} edges between sections. Build it with library_key=, or delete it: it is then built "
            "section by section."
        )
    return adjacency


def _built_edges(
    xy: NDArray[np.float64],
    section: NDArray[np.int64],
    sections: Sequence[str],
    neighbors: Neighbors,
    mpp: Sequence[float] | None,
) -> tuple[sparse.csr_array, tuple[str, ...]]:
    """Return the edges of all sections, and how those of each were built."""
    blocks, origins = [], []
    for code, name in enumerate(sections):
        place = xy[section == code]
        radius = None if neighbors.radius_um is None or mpp is None else neighbors.radius_um / mpp[code]
        edges, origin = _section_edges(place, neighbors, radius)
        blocks.append(edges)
        origins.append(origin)
        log.log(
            HINT, "section %s: %d spots, %s: %.1f neighbors", name, len(place), origin, edges.nnz / max(1, len(place))
        )
    return symmetric(_joined(blocks, section)), tuple(origins)


def _section_edges(
    xy: NDArray[np.float64], neighbors: Neighbors, radius_px: float | None
) -> tuple[sparse.csr_array, str]:
    """Return the edges of one section, and how they were built."""
    if neighbors.kind == "delaunay":
        edges, origin = delaunay_edges(xy), "delaunay"
    elif neighbors.kind == "knn":
        edges, origin = knn_edges(xy, neighbors.n_neighbors), "knn"
    else:
        lattice = find_lattice(xy)
        edges, origin = lattice_edges(xy, lattice), str(lattice)
    return edges if radius_px is None else within(edges, xy, radius_px), origin


def _joined(blocks: Sequence[sparse.csr_array], section: NDArray[np.int64]) -> sparse.csr_array:
    """Put the edges of each section where its spots are among all."""
    block = sparse.coo_array(sparse.block_diag(blocks, format="coo"))
    position = np.argsort(section, kind="stable")
    ones = np.ones(block.nnz, dtype=np.float32)
    return sparse.csr_array((ones, (position[block.row], position[block.col])), shape=(len(section), len(section)))


def _pitch(
    adjacency: sparse.csr_array, xy: NDArray[np.float64], section: NDArray[np.int64], n_sections: int
) -> NDArray[np.float64]:
    """Return the median distance between neighbors of each section, 1 where there are none."""
    edges = sparse.coo_array(adjacency)
    length = np.linalg.norm(xy[edges.row] - xy[edges.col], axis=1)
    pitch = np.ones(n_sections)
    for code in range(n_sections):
        within = length[(section[edges.row] == code) & (length > 0)]
        if len(within):
            pitch[code] = np.median(within)
    return pitch


def array_graph(
    grid: NDArray[np.float32], xy: NDArray[np.float64], section: NDArray[np.int64], n_sections: int
) -> SpatialGraph:
    """Return the directed graph of Hist2ST (:func:`~hist2scrna.spots.builders.array_edges`), section by section.

    Parameters
    ----------
    grid
        `(n, 2)` array column and row.
    xy
        `(n, 2)` coordinates in pixels, for the pitch.
    section
        `(n,)` number of the section of each spot.
    n_sections
        Number of sections.
    """
    adjacency = _joined([array_edges(grid[section == code]) for code in range(n_sections)], section)
    adjacency.sort_indices()
    return SpatialGraph(adjacency, _pitch(adjacency, xy, section, n_sections), ("array",) * n_sections)
