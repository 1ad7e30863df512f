"""Size and shape of all nuclei of a label image at once, as scikit-image measures one region after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hist2scrna.images.nucleus_shapes import shapes_of_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Steps to the eight pixels around one, those along an edge first.
EDGES = ((-1, 0), (1, 0), (0, -1), (0, 1))
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def measure_nuclei(label: NDArray[np.int32], density: NDArray[np.float32]) -> pd.DataFrame:
    """Return the measures of all labels of an image, in its pixels.

    Parameters
    ----------
    label
        `(h, w)`, number of the nucleus at each pixel, 0 for none.
    density
        `(h, w)` hematoxylin.

    Returns
    -------
    One row a label, ascending, by which it is indexed. `x`, `y`, `area`, `major`, `minor`, `orientation` as of
    :func:`hist2scrna.images.nucleus_shapes.shapes_of_moments`, of pixels as points at their centers; `perimeter`, as
    :func:`skimage.measure.perimeter`; `eccentricity` of the ellipse; `solidity`, the area divided by the number of
    pixels in the convex hull of the pixels; `hematoxylin`, the mean density; `left`, `top`, `right`, `bottom`, the
    first and the last column and row.
    """
    row, column = np.nonzero(label)
    found = label[row, column]
    order = np.argsort(found, kind="stable")
    row, column = row[order], column[order]
    names, first, number, area = np.unique(found[order], return_index=True, return_inverse=True, return_counts=True)
    if len(names) == 0:
        first = np.zeros(0, dtype=np.int64)

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(number, values, minlength=len(names)).astype(np.float64)

    # From the first pixel of each, so that no digits are lost.
    dx, dy = (ends - ends[first][number] for ends in (column.astype(float), row.astype(float)))
    moments = np.stack([area, *map(total, (dx, dy, dx * dx, dx * dy, dy * dy))], axis=1).astype(float)
    shapes = shapes_of_moments(moments, pd.Index(names))
    shapes[["x", "y"]] += np.stack([column[first], row[first]], axis=1) + 0.5
    ratio = np.divide(shapes["minor"], shapes["major"], out=np.ones(len(names)), where=shapes["major"].to_numpy() > 0)
    return shapes.assign(
        eccentricity=np.sqrt(np.maximum(1 - ratio**2, 0)),
        perimeter=_perimeters(label, names),
        solidity=area / _pixels_of_hulls(row, column, number, len(names)),
        hematoxylin=total(density[row, column].astype(float)) / area,
        left=_of_each(np.minimum, column, first),
        top=_of_each(np.minimum, row, first),
        right=_of_each(np.maximum, column, first),
        bottom=_of_each(np.maximum, row, first),
    )


def _of_each(choose: np.ufunc, values: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    return choose.reduceat(values, first) if len(first) else values


def _perimeters(label: NDArray[np.int32], names: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the length of the rim of each label: steps along edges count 1, those across corners the root of 2.

    Source: Benkrid, Crookes and Benkrid, Design and FPGA implementation of a perimeter estimator, Proc. Irish Machine
    Vision and Image Processing 2000, as in scikit-image.
    """
    padded = np.pad(label, 1)
    inside = padded > 0
    same = {step: padded == np.roll(padded, step, (0, 1)) for step in (*EDGES, *CORNERS)}
    rim = inside & ~np.logical_and.reduce([same[step] for step in EDGES])
    row, column = np.nonzero(rim)
    code = np.ones(len(row), dtype=np.int64)
    for steps, weight in ((EDGES, 2), (CORNERS, 10)):
        for step in steps:
            code += weight * (same[step][row, column] & rim[row - step[0], column - step[1]])
    length = np.zeros(1 + 8 * 10)
    length[[5, 7, 15, 17, 25, 27]], length[[21, 33]], length[[13, 23]] = 1, np.sqrt(2), (1 + np.sqrt(2)) / 2
    number = np.searchsorted(names, padded[row, column])
    return np.bincount(number, length[code], minlength=len(names)).astype(np.float64)


def _pixels_of_hulls(
    row: NDArray[np.int64], column: NDArray[np.int64], number: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """Return how many pixels have their center within the convex hull of those of each nucleus, by Pick's theorem."""
    from shapely import area, convex_hull, get_coordinates, multipoints

    if n == 0:
        return np.zeros(0)
    # Of each row of a nucleus, the first and the last pixel span the rest.
    new = (np.diff(row) != 0) | (np.diff(number) != 0)
    outer = np.r_[True, new] | np.r_[new, True]
    hulls = convex_hull(multipoints(np.stack([column, row], axis=1)[outer].astype(float), indices=number[outer]))
    corners, whose = get_coordinates(hulls, return_index=True)
    step = np.diff(corners, axis=0).astype(np.int64)
    same = whose[1:] == whose[:-1]
    on_rim = np.bincount(whose[1:][same], np.gcd(*step[same].T), minlength=n)
    # The hull of pixels in a row is that row, there and back.
    on_rim[area(hulls) == 0] *= 2
    return area(hulls) + on_rim / 2 + 1
