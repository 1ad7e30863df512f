"""Features of the spots that were extracted beforehand, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hist2scrna.messages import require_key

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def as_features(adata: AnnData, features_key: str) -> NDArray[np.float32]:
    """Return the features, `(n, d)` float32, NaN where a spot has none.

    Raises
    ------
    KeyError
        If the slot is missing.
    ValueError
        If they are no numbers in rows.
    """
    where = f"adata.obsm[{features_key!r}]"
    require_key(adata.obsm, features_key, "adata.obsm")
    stored: Any = adata.obsm[features_key]
    values = np.asarray(stored.toarray() if sparse.issparse(stored) else stored)
    if np.iscomplexobj(values):
        raise ValueError(f"Expected {where} to be real numbers, found {values.dtype}. Extract them again.")
    try:
        features = values.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {where} to be numbers of shape (n_obs, d): {error}. Extract them again.") from error
    if features.ndim != 2:
        raise ValueError(f"Expected {where} to be of shape (n_obs, d), found {features.shape}. Extract them again.")
    return features


def not_finite(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows hold NaN or an infinite number; no table of the size of the features is made."""
    return ~(np.isfinite(features.min(axis=1, initial=0)) & np.isfinite(features.max(axis=1, initial=0)))


def read_features(adata: AnnData, features_key: str, width: int | None = None) -> NDArray[np.float32]:
    """Return the features, `(n, d)` float32, checked.

    Raises
    ------
    KeyError
        If the slot is missing.
    ValueError
        If the values are not finite, or not `width` a spot.
    """
    where = f"adata.obsm[{features_key!r}]"
    features = as_features(adata, features_key)
    if width is not None and features.shape[1] != width:
        raise ValueError(f"Expected {where} to be of shape (n_obs, {width}), as in training, found {features.shape}.")
    bad = not_finite(features)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} spots have NaN or infinite features in {where} "
            f"(the first is {adata.obs_names[bad][0]!r}). Extract them again, or drop these spots."
        )
    return features
