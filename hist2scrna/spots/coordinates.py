"""Coordinates of the spots, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.messages import require_key

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def as_coordinates(adata: AnnData, spatial_key: str) -> NDArray[np.float64]:
    """Return the coordinates, `(n, 2)` float64, NaN where a spot has none; numbers written as words are read.

    Raises
    ------
    KeyError
        If the slot is missing.
    ValueError
        If it is not two numbers a spot.
    """
    where = f"adata.obsm[{spatial_key!r}]"
    require_key(adata.obsm, spatial_key, "adata.obsm")
    stored = np.asarray(adata.obsm[spatial_key])
    if stored.ndim != 2 or stored.shape[1] != 2 or stored.dtype.kind in "cb":
        raise ValueError(f"Expected {where} to be numbers of shape (n_obs, 2), found {stored.dtype} {stored.shape}.")
    try:
        return stored.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {where} to be numbers, (x, y) in full-resolution pixels, found {stored.dtype}: {error}. Convert "
            f"them: {where} = {where}.astype(float)."
        ) from error


def read_coordinates(adata: AnnData, spatial_key: str, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Return the coordinates of some rows, or of all, `(n, 2)` float64, checked.

    Raises
    ------
    KeyError
        If the slot is missing.
    ValueError
        If it is not two finite numbers a spot.
    """
    where = f"adata.obsm[{spatial_key!r}]"
    every = np.arange(adata.n_obs) if rows is None else rows
    xy = as_coordinates(adata, spatial_key)[every]
    bad = ~np.isfinite(xy).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} spots have NaN or infinite coordinates in {where} "
            f"(the first is {adata.obs_names[every[bad][0]]!r}). "
            f"Drop them: adata = adata[~np.isnan({where}).any(axis=1)]."
        )
    return xy


def check_places(name: str, xy: NDArray[np.float64], where: str) -> None:
    """Refuse a section of whose spots more than half lie at the place of another: these are several sections.

    Raises
    ------
    ValueError
        If they do.
    """
    _, counts = np.unique(xy, axis=0, return_counts=True)
    n_shared = int(counts[counts > 1].sum())
    if n_shared > len(xy) / 2:
        raise ValueError(
            f"{n_shared} of {len(xy)} spots of section {name!r} lie at the place of another spot in {where}. If these "
            "are several sections, pass library_key=, the column of adata.obs that tells which spot belongs to which; "
            "else read the coordinates again."
        )
