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
        features = values.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {where} to be numbers of shape (n_obs, d): {error}. Extract them again.") from error
    if features.ndim != 2:
        raise ValueError(f"Expected {where} to be of shape (n_obs, d), found {features.shape}. Extract them again.")
    return features


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
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} spots have NaN or infinite features in {where} "
            f"(the first is {adata.obs_names[bad][0]!r}). Extract them again, or drop these spots."
        )
    return features
