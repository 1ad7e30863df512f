"""Coordinates of the spots, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.messages import require_key

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def read_coordinates(adata: AnnData, spatial_key: str) -> NDArray[np.float64]:
    """Return the coordinates, `(n, 2)` float64, checked.

    Raises
    ------
    KeyError
        If the slot is missing.
    ValueError
        If it is not two finite numbers a spot.
    """
    where = f"adata.obsm[{spatial_key!r}]"
    require_key(adata.obsm, spatial_key, "adata.obsm")
    xy = np.asarray(adata.obsm[spatial_key])
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.issubdtype(xy.dtype, np.number):
        raise ValueError(f"Expected {where} to be numbers of shape (n_obs, 2), found {xy.dtype} {xy.shape}.")
    xy = xy.astype(np.float64)
    bad = ~np.isfinite(xy).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} spots have NaN or infinite coordinates in {where} "
            f"(the first is {adata.obs_names[bad][0]!r}). Drop them: adata = adata[~np.isnan({where}).any(axis=1)]."
        )
    return xy
