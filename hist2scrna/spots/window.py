"""How large spots are drawn, and the window that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MARGIN = 0.03


def spot_diameter(entry: Mapping[str, Any], xy: NDArray[np.float64]) -> float:
    """Return the diameter of a spot in full-resolution pixels, for drawing.

    Parameters
    ----------
    entry
        Entry of the section in `.uns["spatial"]`, which tells it.
    xy
        `(n, 2)` coordinates: where the entry does not tell, the median distance to the nearest other spot is returned.
    """
    from scipy.spatial import cKDTree

    diameter = (entry.get(keys.SCALEFACTORS) or {}).get(keys.SPOT_DIAMETER)
    if diameter is not None:
        return float(diameter)
    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1])) if len(xy) > 1 else 1.0


def window_corners(xy: NDArray[np.float64], diameter: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the top left and bottom right corner, `(2,)` each, of the window around spots `(n, 2)`, with a margin."""
    margin = max(diameter, MARGIN * float(np.ptp(xy, axis=0).max()))
    return xy.min(axis=0) - margin, xy.max(axis=0) + margin
