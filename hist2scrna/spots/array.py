"""Where spots are on their array: columns and rows as given, or found from the lattice of their pixels."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna import keys
from hist2scrna.spots.lattice import array_from_pixels
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


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
            stored = columns.to_numpy(dtype=np.float64)
            if np.isfinite(stored).all():
                return np.round(stored).astype(np.float32)
    grid = np.zeros((len(xy), 2), dtype=np.float32)
    for code, name in enumerate(sections):
        within = section == code
        grid[within] = array_from_pixels(xy[within])
        log.log(HINT, "section %s: array columns and rows taken from the pixel coordinates", name)
    return grid
