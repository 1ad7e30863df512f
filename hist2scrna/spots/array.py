"""Where spots are on their array: columns and rows as given, or found from the lattice of their pixels."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from hist2scrna import keys
from hist2scrna.spots.graph import SpatialGraph, find_lattice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

ARRAY_NEIGHBORS = 4
FARTHEST = 2.0


def read_array(
    adata: AnnData, xy: NDArray[np.float64], section: NDArray[np.int64], sections: Sequence[str]
) -> NDArray[np.float32]:
    """Return the array column and row of each spot, `(n, 2)` float32.

    From `.obs[["array_col", "array_row"]]`; where these are missing or not finite, from the pixel coordinates of each
    section: whole numbers from 0 on a square or hexagonal lattice (of a hexagonal one, columns count in half steps, as
    Visium's do), and units of the median distance to the nearest spot where there is none.

    Parameters
    ----------
    adata
        Annotated data.
    xy
        `(n, 2)` coordinates in pixels.
    section
        `(n,)` number of the section of each spot.
    sections
        Names of the sections, for the log.
    """
    if all(key in adata.obs for key in keys.ARRAY_COORDINATES):
        columns = adata.obs[list(keys.ARRAY_COORDINATES)]
        if all(np.issubdtype(kind, np.number) for kind in columns.dtypes):
            given = columns.to_numpy(dtype=np.float64)
            if np.isfinite(given).all():
                return np.round(given).astype(np.float32)
    found = np.zeros((len(xy), 2), dtype=np.float32)
    for code, name in enumerate(sections):
        own = section == code
        found[own] = array_from_pixels(xy[own])
        log.info("section %s: array columns and rows taken from the pixel coordinates", name)
    return found


def array_from_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the array column and row of each spot of one section, `(n, 2)`; see :func:`read_array`.

    The lattice is turned upright by the direction of its bonds, then walked from bond to bond.
    """
    lattice = find_lattice(xy)
    if len(xy) < 2:
        return np.zeros_like(xy)
    tree = cKDTree(xy)
    distance, nearest = tree.query(xy, k=2)
    positive = distance[:, 1][distance[:, 1] > 0]
    pitch = float(np.median(positive)) if len(positive) else 1.0
    if lattice == "irregular":
        return (xy - xy.min(axis=0)) / pitch
    fold = 6 if lattice == "hexagonal" else 4
    direction = xy[nearest[:, 1]] - xy
    angle = np.angle(np.exp(1j * fold * np.arctan2(direction[:, 1], direction[:, 0])).mean()) / fold
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    step = np.array([pitch / 2, pitch * np.sqrt(3) / 2]) if fold == 6 else np.array([pitch, pitch])
    upright = (xy @ turn.T) / step
    known, whole = _walk(upright, tree.query_pairs(1.3 * pitch, output_type="ndarray"), fold)
    # What no bond reaches is placed by the map that fits the others.
    design = np.column_stack([xy, np.ones(len(xy))])
    fitted = design @ np.linalg.lstsq(design[known], whole[known], rcond=None)[0]
    whole = np.where(known[:, None], whole, _to_lattice(fitted, fold))
    return whole - whole.min(axis=0)


def _walk(
    upright: NDArray[np.float64], bonds: NDArray[np.int64], fold: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Count whole steps from bond to bond through the largest connected part, so that no error of the pitch adds up.

    Parameters
    ----------
    upright
        `(n, 2)` coordinates in steps of the lattice, its rows level.
    bonds
        `(m, 2)` pairs of neighbors.
    fold
        4 or 6.

    Returns
    -------
    Which spots were reached, and `(n, 2)` their whole positions.
    """
    n = len(upright)
    links = sparse.csr_array((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(n, n))
    _, part = csgraph.connected_components(links, directed=False)
    largest = np.bincount(part).argmax()
    first = int(np.flatnonzero(part == largest)[0])
    order, before = csgraph.breadth_first_order(links, first, directed=False)
    whole = np.zeros((n, 2))
    for spot in order[1:]:
        offset = (upright[spot] - upright[before[spot]])[None]
        whole[spot] = whole[before[spot]] + _to_lattice(offset, fold)[0]
    return part == largest, whole


def _to_lattice(position: NDArray[np.float64], fold: int) -> NDArray[np.float64]:
    """Round to whole columns and rows; on a hexagonal lattice their sum is even."""
    if fold == 4:
        return np.round(position)
    row = np.round(position[:, 1])
    odd = np.mod(row, 2)
    return np.column_stack([2 * np.round((position[:, 0] - odd) / 2) + odd, row])


def array_graph(
    grid: NDArray[np.float32], xy: NDArray[np.float64], section: NDArray[np.int64], n_sections: int
) -> SpatialGraph:
    """Return the graph of Hist2ST: the four nearest spots on the array, those farther than two units left out.

    Row `i` of the adjacency holds the spots that spot `i` reads: the graph is directed, for a spot at the rim may read
    one that does not read it. Of spots equally near, those that come first are taken.

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
    rows, columns = [], []
    pitch = np.ones(n_sections)
    for code in range(n_sections):
        members = np.flatnonzero(section == code)
        k = min(ARRAY_NEIGHBORS + 1, len(members))
        if k < 2:
            continue
        distance, index = cKDTree(grid[members]).query(grid[members], k=k, distance_upper_bound=FARTHEST + 1e-6)
        near = np.isfinite(distance) & (index != np.arange(len(members))[:, None])
        # Where two spots share a position, a spot may not be first among its own nearest.
        near &= np.cumsum(near, axis=1) <= ARRAY_NEIGHBORS
        spot = np.broadcast_to(np.arange(len(members))[:, None], near.shape)
        rows.append(members[spot[near]])
        columns.append(members[index[near]])
        length = np.linalg.norm(xy[rows[-1]] - xy[columns[-1]], axis=1)
        if (length > 0).any():
            pitch[code] = np.median(length[length > 0])
    row = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
    column = np.concatenate(columns) if columns else np.empty(0, dtype=np.int64)
    adjacency = sparse.csr_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=(len(xy), len(xy)))
    adjacency.sort_indices()
    return SpatialGraph(adjacency, pitch, ("array",) * n_sections)
