"""Who is a neighbor of whom in one section: each function takes coordinates and returns a sparse matrix."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from hist2scrna import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.spots.lattice import Lattice

N_ON_LATTICE = {"hexagonal": 6, "square": 4}
N_NEAREST = 6
N_ON_ARRAY = 4
FARTHEST_ON_ARRAY = 2.0


def lattice_edges(xy: NDArray[np.float64], lattice: Lattice) -> sparse.csr_array:
    """Return the neighbors on a hexagonal or square lattice; on an irregular one, the nearest 6."""
    if lattice == "irregular":
        return knn_edges(xy)
    return _squidpy_edges(xy, "spatial_neighbors_grid", n_neighs=N_ON_LATTICE[lattice])


def knn_edges(xy: NDArray[np.float64], n_neighbors: int | None = None) -> sparse.csr_array:
    """Return the nearest `n_neighbors` of each spot, 6 if None, from its row; the matrix need not be symmetric."""
    return _squidpy_edges(xy, "spatial_neighbors_knn", n_neighs=min(n_neighbors or N_NEAREST, len(xy) - 1))


def delaunay_edges(xy: NDArray[np.float64]) -> sparse.csr_array:
    """Return the edges of the Delaunay triangulation; where there is no triangle, the nearest 6."""
    return _squidpy_edges(xy, "spatial_neighbors_delaunay") if _spans_a_plane(xy) else knn_edges(xy)


def array_edges(grid: NDArray[np.float32]) -> sparse.csr_array:
    """Return the neighbors that Hist2ST reads: the four nearest on the array, those farther than two units left out.

    Row `i` holds the spots that spot `i` reads: the graph is directed, for a spot at the rim may read one that does not
    read it. Of spots equally near, those that come first are taken.

    Parameters
    ----------
    grid
        `(n, 2)` array column and row.
    """
    n = len(grid)
    k = min(N_ON_ARRAY + 1, n)
    if k < 2:
        return sparse.csr_array((n, n), dtype=np.float32)
    distance, index = cKDTree(grid).query(grid, k=k, distance_upper_bound=FARTHEST_ON_ARRAY + 1e-6)
    near = np.isfinite(distance) & (index != np.arange(n)[:, None])
    # Where two spots share a position, a spot may not be first among its own nearest.
    near &= np.cumsum(near, axis=1) <= N_ON_ARRAY
    row, column = np.broadcast_to(np.arange(n)[:, None], near.shape)[near], index[near]
    return sparse.csr_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=(n, n))


def within(edges: sparse.csr_array, xy: NDArray[np.float64], radius: float) -> sparse.csr_array:
    """Return the edges that are no longer than `radius`, in the units of `xy`."""
    pairs = sparse.coo_array(edges)
    near = np.linalg.norm(xy[pairs.row] - xy[pairs.col], axis=1) <= radius
    return sparse.csr_array((pairs.data[near], (pairs.row[near], pairs.col[near])), shape=pairs.shape)


def symmetric(adjacency: sparse.csr_array) -> sparse.csr_array:
    """Return a symmetric matrix of ones without a diagonal."""
    both = sparse.coo_array(adjacency + adjacency.T)
    keep = (both.row != both.col) & (both.data != 0)
    ones = np.ones(int(keep.sum()), dtype=np.float32)
    tidy = sparse.csr_array((ones, (both.row[keep], both.col[keep])), shape=both.shape)
    tidy.sum_duplicates()
    tidy.data[:] = 1
    tidy.sort_indices()
    return tidy


def _squidpy_edges(xy: NDArray[np.float64], function: str, **options: Any) -> sparse.csr_array:
    """Call a function of Squidpy on one section; a single spot has no neighbor."""
    import anndata

    with warnings.catch_warnings():
        # Of the docstrings in what Squidpy imports.
        warnings.simplefilter("ignore", SyntaxWarning)
        import squidpy as sq

    n = len(xy)
    if n < 2:
        return sparse.csr_array((n, n), dtype=np.float32)
    spots: AnnData = anndata.AnnData(obs={"spot": np.arange(n)}, obsm={keys.SPATIAL: xy})
    spots.obs_names = [str(i) for i in range(n)]
    with _without_notices():
        result = getattr(sq.gr, function)(spots, copy=True, **options)
    return sparse.csr_array(result.connectivities)


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Leave out Squidpy's line for each section; the graph logs one that says more."""
    logger = logging.getLogger("spatialdata._logging")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _spans_a_plane(xy: NDArray[np.float64]) -> bool:
    """Tell whether there is a triangle at all: fewer than three places, or places on one line, have none."""
    places = np.unique(xy, axis=0)
    return len(places) > 2 and np.linalg.matrix_rank(places - places.mean(axis=0), tol=1e-6 * np.ptp(places)) == 2
