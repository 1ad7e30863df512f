"""What tests build from: the spots and patches of an AnnData as the package reads them, tables, and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hist2scrna.models.training import FIELDS
from hist2scrna.spots.graph import DEFAULT, Neighbors
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import Spots, read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from anndata import AnnData

TABLE_FORMATS = [np.asarray, sparse.csr_array, sparse.csc_array, sparse.csr_matrix]


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


def patches_of(adata: AnnData, px: int = 8, **options: Any) -> np.ndarray:
    """Read the patches of all spots of `adata`, `px` pixels wide; by default it is one section."""
    options = {"library_key": None, "spatial_key": "spatial", "patch_px": px, **options}
    return spots_of(adata, **options).patches.read(np.arange(adata.n_obs))


def fast(**arguments: Any) -> dict[str, Any]:
    """Arguments of `fit` for the smallest network; those that are fields of `Training` go there."""
    training = {"max_epochs": 1, "accelerator": "cpu"}
    training |= {name: arguments.pop(name) for name in list(arguments) if name in FIELDS}
    return {"model": "hist2scrna", "preset": "tiny", "progress": False, **arguments, "training": training}


def negative_binomial(rng: np.random.Generator, mu: Any, theta: Any) -> np.ndarray:
    """Counts of mean `mu` and inverse dispersion `theta`."""
    return rng.poisson(rng.gamma(theta, mu / theta)).astype(np.float32)


def zinb_sample(seed: int) -> tuple[np.ndarray, ...]:
    """Zero-inflated counts of 4,000 spots and 6 genes, and the mean, inverse dispersion and dropout they are from."""
    shape = (4000, 6)
    rng = np.random.default_rng(seed)
    mu = rng.gamma(2, np.array([0.1, 0.5, 1.0, 3.0, 10.0, 60.0]), shape)
    theta = np.array([0.5, 2.0, 1.0, 5.0, 2.0, 20.0])
    dropout = rng.uniform(0, 0.5, shape)
    counts = rng.negative_binomial(theta, theta / (theta + mu)) * (rng.random(shape) > dropout)
    return counts, mu, theta, dropout
