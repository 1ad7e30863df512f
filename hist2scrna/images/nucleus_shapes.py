"""Center, area and ellipse of nuclei that were found elsewhere: of label images and of polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows of a label image that are read at once.
ROWS = 1024
# 1, x, y, xx, xy, yy.
N_MOMENTS = 6


def label_shapes(labels: Any) -> pd.DataFrame:
    """Return the shape of each label, in pixels of the label image; it is read in bands of rows.

    Returns
    -------
    One row a label, by which it is indexed; columns as of :func:`shapes_of_moments`.
    """
    found: dict[int, NDArray[np.float64]] = {}
    for first in range(0, labels.shape[0], ROWS):
        band = np.asarray(labels[first : first + ROWS])
        row, column = np.nonzero(band)
        here, number = np.unique(band[row, column], return_inverse=True)
        x, y = column + 0.5, row + first + 0.5
        powers = (np.ones(len(x)), x, y, x * x, x * y, y * y)
        sums = np.stack([np.bincount(number, power, minlength=len(here)) for power in powers], axis=1)
        for name, values in zip(here.tolist(), sums, strict=True):
            found[name] = found.get(name, 0) + values
    names = sorted(found)
    moments = np.array([found[name] for name in names]).reshape(-1, N_MOMENTS)
    # A pixel is a square, not a point.
    moments[:, [3, 5]] += moments[:, :1] / 12
    return shapes_of_moments(moments, pd.Index(names))


def polygon_shapes(names: list[str], polygons: NDArray[np.object_]) -> pd.DataFrame:
    """Return the shape of each polygon, exact by Green's theorem, without its holes; columns as of the moments.

    Parameters
    ----------
    names
        `(m,)` names.
    polygons
        `(m,)` polygons or multipolygons of shapely.
    """
    from shapely import get_coordinates, get_parts, get_rings

    parts, whose = get_parts(polygons, return_index=True)
    rings, part = get_rings(parts, return_index=True)
    # The rim of a part comes first, then its holes.
    outer = np.r_[True, part[1:] != part[:-1]]
    moments = np.zeros((len(polygons), N_MOMENTS))
    # About a point nearby, so that no digits are lost.
    origin = np.array([polygon.representative_point().coords[0] for polygon in polygons])
    xy, ring = get_coordinates(rings, return_index=True)
    xy = xy - origin[whose[part[ring]]]
    same = ring[1:] == ring[:-1]
    a, b, ring = xy[:-1][same], xy[1:][same], ring[:-1][same]
    cross = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
    total, products = a + b, a[:, [0, 1]] * b[:, [0, 1]]
    squares = (a * a + products + b * b) * cross[:, None] / 12
    mixed = (a[:, 0] * b[:, 1] + 2 * a.prod(axis=1) + 2 * b.prod(axis=1) + b[:, 0] * a[:, 1]) * cross / 24
    terms = np.column_stack([cross / 2, total * cross[:, None] / 6, squares[:, 0], mixed, squares[:, 1]])
    of_rings = np.stack([np.bincount(ring, column, minlength=len(rings)) for column in terms.T], axis=1)
    sign = np.where(outer, 1, -1) * np.sign(of_rings[:, 0])
    np.add.at(moments, whose[part], of_rings * sign[:, None])
    shapes = shapes_of_moments(moments, pd.Index(names))
    shapes[["x", "y"]] += origin
    return shapes


def shapes_of_moments(moments: NDArray[np.float64], names: pd.Index) -> pd.DataFrame:
    """Return the ellipses that have the same moments up to the second.

    Parameters
    ----------
    moments
        `(m, 6)` integrals of 1, x, y, x^2, x y and y^2.
    names
        `(m,)` names.

    Returns
    -------
    `x`, `y`, `area`; `major`, `minor`, the lengths of the axes of the ellipse from rim to rim; `orientation`, the
    direction of the long one in degrees, 0 to 180, clockwise from the right.
    """
    area = np.maximum(moments[:, 0], 1e-12)
    x, y = moments[:, 1] / area, moments[:, 2] / area
    xx, xy, yy = moments[:, 3] / area - x * x, moments[:, 4] / area - x * y, moments[:, 5] / area - y * y
    middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "area": moments[:, 0],
            "major": 4 * np.sqrt(middle + spread),
            "minor": 4 * np.sqrt(np.maximum(middle - spread, 0)),
            "orientation": np.mod(np.degrees(np.arctan2(2 * xy, xx - yy)) / 2, 180),
        },
        index=names,
    )
