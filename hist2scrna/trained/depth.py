"""The library sizes at which predicted means stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.trained.fitted import FittedModel


def imposed_library(model: FittedModel, obs: pd.DataFrame, library_size: str) -> NDArray[np.float32] | None:
    """Return the library sizes at which means are to stand, one a spot; None: those that the model predicts.

    Raises
    ------
    ValueError
        If they are no column of `.obs`, or not positive.
    """
    if model.likelihood == "mse" or library_size == "predicted":
        return None
    if library_size == "median":
        return np.full(len(obs), model.baselines.median_library, dtype=np.float32)
    if library_size not in obs:
        raise ValueError(
            "Expected `library_size` to be 'predicted', 'median' or a column of adata.obs "
            f"({list(obs.columns)}), found {library_size!r}."
        )
    sizes = pd.to_numeric(obs[library_size], errors="coerce").to_numpy(dtype=np.float32)
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"Expected adata.obs[{library_size!r}] to hold positive library sizes in every spot.")
    return sizes
