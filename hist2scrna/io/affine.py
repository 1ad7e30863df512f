"""Affine maps of the plane, as `(3, 3)` matrices for columns (x, y, 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def transform(matrix: NDArray[np.float64], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points `(n, 2)`."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def magnification(matrix: NDArray[np.float64]) -> float:
    """Return by how much lengths grow, as the root of the factor of areas."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def invert(matrix: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """Return the inverse.

    Raises
    ------
    ValueError
        If there is none: values that are not finite, or all points fall on a line.
    """
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix[:2, :2]) > 1e8:
        raise ValueError(f"{what} cannot be inverted: {matrix.tolist()}.")
    return np.linalg.inv(matrix).astype(np.float64)
