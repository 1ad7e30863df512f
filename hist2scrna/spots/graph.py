"""The neighbor graph: built section by section with Squidpy, symmetric, without self loops."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from hist2scrna import keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

Lattice = Literal["hexagonal", "square", "irregular"]
Kind = Literal["knn", "delaunay"]
NEIGHBORS = {"hexagonal": 6, "square": 4, "irregular": 6}


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


DEFAULT = Neighbors()


@dataclass(frozen=True)
class SpatialGraph:
    """Neighbors of every spot.

    Attributes
    ----------
    adjacency
        `(n, n)` CSR of ones, symmetric, empty diagonal, no edge between sections.
    pitch
        `(n_sections,)` median distance between neighbors in full-resolution pixels; 1 where there is no edge.
    origin
        Where the edges of each section come from: `"hexagonal"`, `"square"`, `"irregular"`, `"knn"`, `"delaunay"`,
        `"array"` or `"given"`.
    """

    adjacency: sparse.csr_array
    pitch: NDArray[np.float64]
    origin: tuple[str, ...]


def find_lattice(xy: NDArray[np.float64]) -> Lattice:
    """Tell a hexagonal from a square lattice from scattered points, whatever their rotation.

    The bond-orientational order of the vectors to the nearest neighbors (Steinhardt et al., Phys. Rev. B 1983) is one
    for six (hexagonal) or four (square) directions 60 or 90 degrees apart, and near zero for scattered points.

    Parameters
    ----------
    xy
        `(n, 2)` coordinates of one section. Fewer than 10 are called irregular.
    """
    if len(xy) < 10:
        return "irregular"
    distance, index = cKDTree(xy).query(xy, k=7)
    nearest = np.median(distance[:, 1])
    if nearest == 0:
        return "irregular"
    near = distance[:, 1:] < 1.25 * nearest
    vectors = (xy[index[:, 1:]] - xy[:, None, :])[near]
    angle = np.arctan2(vectors[:, 1], vectors[:, 0])
    spread = np.std(distance[:, 1:][near]) / nearest
    if spread > 0.12 or near.sum() < len(xy):
        return "irregular"
    if abs(np.exp(6j * angle).mean()) > 0.8:
        return "hexagonal"
    if abs(np.exp(4j * angle).mean()) > 0.8:
        return "square"
    return "irregular"


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Leave out Squidpy's line for each section; `build_graph` logs one that says more."""
    logger = logging.getLogger("spatialdata._logging")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _section_edges(
    xy: NDArray[np.float64], lattice: Lattice, asked: Neighbors, radius_px: float | None
) -> sparse.csr_array:
    import anndata
    import squidpy as sq

    n = len(xy)
    if n < 2:
        return sparse.csr_array((n, n), dtype=np.float32)
    spots = anndata.AnnData(obs={"spot": np.arange(n)}, obsm={keys.SPATIAL: xy})
    spots.obs_names = [str(i) for i in range(n)]
    with _without_notices():
        if asked.kind == "delaunay" and _spans_a_plane(xy):
            result = sq.gr.spatial_neighbors_delaunay(spots, copy=True)
        elif asked.kind is not None or lattice == "irregular":
            nearest = asked.n_neighbors or NEIGHBORS["irregular"]
            result = sq.gr.spatial_neighbors_knn(spots, n_neighs=min(nearest, n - 1), copy=True)
        else:
            result = sq.gr.spatial_neighbors_grid(spots, n_neighs=NEIGHBORS[lattice], copy=True)
    edges = sparse.coo_array(result.connectivities)
    if radius_px is None:
        return edges.tocsr()
    near = np.linalg.norm(xy[edges.row] - xy[edges.col], axis=1) <= radius_px
    return sparse.csr_array((edges.data[near], (edges.row[near], edges.col[near])), shape=edges.shape)


def _spans_a_plane(xy: NDArray[np.float64]) -> bool:
    """Tell whether there is a triangle at all: fewer than three places, or places on one line, have none."""
    places = np.unique(xy, axis=0)
    return len(places) > 2 and np.linalg.matrix_rank(places - places.mean(axis=0), tol=1e-6 * np.ptp(places)) == 2


def _tidy(adjacency: sparse.csr_array) -> sparse.csr_array:
    """Return a symmetric matrix of ones without a diagonal."""
    both = sparse.coo_array(adjacency + adjacency.T)
    keep = (both.row != both.col) & (both.data != 0)
    ones = np.ones(int(keep.sum()), dtype=np.float32)
    tidy = sparse.csr_array((ones, (both.row[keep], both.col[keep])), shape=both.shape)
    tidy.sum_duplicates()
    tidy.data[:] = 1
    tidy.sort_indices()
    return tidy


def build_graph(
    adata: AnnData,
    xy: NDArray[np.float64],
    section: NDArray[np.int64],
    sections: Sequence[str],
    asked: Neighbors = DEFAULT,
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
    asked
        Which neighbors.
    mpp
        Microns per pixel of each section, for a radius.

    Raises
    ------
    ValueError
        If a given graph has edges between sections, or a radius is asked for and `mpp` is not known.
    """
    if asked.radius_um is not None and mpp is None:
        raise ValueError("`radius_um` needs microns per pixel: pass mpp=, or give the spot diameter in adata.uns.")
    if keys.CONNECTIVITIES in adata.obsp and not asked.asked:
        adjacency = _given_edges(adata, section)
        origin = ("given",) * len(sections)
    else:
        adjacency, origin = _built_edges(xy, section, sections, asked, mpp)
    return SpatialGraph(adjacency, _pitch(adjacency, xy, section, len(sections)), origin)


def _given_edges(adata: AnnData, section: NDArray[np.int64]) -> sparse.csr_array:
    adjacency = _tidy(sparse.csr_array(adata.obsp[keys.CONNECTIVITIES]))
    edges = sparse.coo_array(adjacency)
    across = int((section[edges.row] != section[edges.col]).sum()) // 2
    if across:
        raise ValueError(
            f"adata.obsp['{keys.CONNECTIVITIES}'] has {across} edges between sections. Build it with "
            "library_key=, or delete it: it is then built section by section."
        )
    return adjacency


def _built_edges(
    xy: NDArray[np.float64],
    section: NDArray[np.int64],
    sections: Sequence[str],
    asked: Neighbors,
    mpp: Sequence[float] | None,
) -> tuple[sparse.csr_array, tuple[str, ...]]:
    """Return the edges of all sections, and how those of each were built."""
    blocks, origins, order = [], [], []
    for code, name in enumerate(sections):
        members = np.flatnonzero(section == code)
        lattice = "irregular" if asked.kind is not None else find_lattice(xy[members])
        radius = None if asked.radius_um is None or mpp is None else asked.radius_um / mpp[code]
        edges = _section_edges(xy[members], lattice, asked, radius)
        blocks.append(edges)
        origins.append(asked.kind or lattice)
        order.append(members)
        degree = edges.nnz / max(1, len(members))
        log.info("section %s: %d spots, %s: %.1f neighbors", name, len(members), origins[-1], degree)
    block = sparse.coo_array(sparse.block_diag(blocks, format="coo"))
    position = np.concatenate(order)
    entries = np.ones(block.nnz), (position[block.row], position[block.col])
    return _tidy(sparse.csr_array(entries, shape=(len(xy), len(xy)))), tuple(origins)


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
