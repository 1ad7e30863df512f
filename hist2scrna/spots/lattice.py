"""Lattices of spots: found from their coordinates, and walked to give each spot its column and row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

Lattice = Literal["hexagonal", "square", "irregular"]


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


def array_from_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the array column and row of each spot of one section, `(n, 2)`: whole numbers from 0 on a lattice.

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
