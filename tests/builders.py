"""What tests build from: the spots of an AnnData as the package reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.models.training import FIELDS
from hist2scrna.spots.graph import DEFAULT, Neighbors
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import Spots, read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from anndata import AnnData


def spots_of(
    adata: AnnData,
    *,
    patch_px: int | None = None,
    patch_um: float | None = None,
    patch_per_spot: float = 1.5,
    n_features: int | None = None,
    on_array: bool = False,
    neighbors: Neighbors = DEFAULT,
    **source: Any,
) -> Spots:
    """Read the spots of `adata`; further arguments are those of `Source`."""
    patch = None if patch_px is None else PatchSize(patch_px, patch_um, patch_per_spot)
    opened = open_sections(adata, Source(**source))
    return read_spots(opened, patch=patch, n_features=n_features, on_array=on_array, neighbors=neighbors)


def fast(**arguments: Any) -> dict[str, Any]:
    """Arguments of `fit` for the smallest network; those that are fields of `Training` go there."""
    training = {"max_epochs": 1, "accelerator": "cpu"}
    training |= {name: arguments.pop(name) for name in list(arguments) if name in FIELDS}
    return {"model": "hist2scrna", "preset": "tiny", "progress": False, **arguments, "training": training}


def negative_binomial(rng: np.random.Generator, mu: Any, theta: Any) -> np.ndarray:
    """Counts of mean `mu` and inverse dispersion `theta`."""
    return rng.poisson(rng.gamma(theta, mu / theta)).astype(np.float32)
