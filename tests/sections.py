"""Small sections with an image, counts and cell types, from which most tests are built."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse


def lattice(kind: str, n: int, pitch: float = 50.0) -> np.ndarray:
    """Coordinates of `n` spots on a hexagonal, square or irregular lattice, away from the origin."""
    column, row = np.arange(n) % 8, np.arange(n) // 8
    if kind == "hexagonal":
        xy = np.stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2], axis=1)
    elif kind == "square":
        xy = np.stack([column, row], axis=1).astype(float)
    else:
        xy = np.random.default_rng(n).uniform(0, 8, (n, 2))
    return xy * pitch + pitch


def section(
    library: str = "s0", *, kind: str = "hexagonal", n_spots: int = 40, n_genes: int = 12, seed: int = 0
) -> ad.AnnData:
    """A small section: counts, a picture wider than high, coordinates, two cell types."""
    rng = np.random.default_rng(seed)
    xy = lattice(kind, n_spots)
    rate = rng.gamma(1.0, 3.0, n_genes)
    kinds = (xy[:, 0] > np.median(xy[:, 0])).astype(int)
    counts = rng.poisson(rate * np.where(kinds[:, None] == 1, 2.0, 0.5)).astype(np.float32)
    counts[:, 0] += 1
    height, width = np.ceil(xy[:, 1].max()).astype(int) + 60, 540
    picture = rng.integers(150, 255, (height, width, 3)).astype(np.uint8)
    for (x, y), type_ in zip(xy.astype(int), kinds, strict=True):
        picture[y - 10 : y + 10, x - 10 : x + 10] = (90, 40, 140) if type_ else (230, 150, 190)
    adata = ad.AnnData(
        X=sparse.csr_matrix(counts),
        obs=pd.DataFrame(
            {
                "library_id": pd.Categorical([library] * n_spots),
                "cell_type": pd.Categorical(np.array(["stroma", "tumor"])[kinds]),
            },
            index=[f"{library}_{i}" for i in range(n_spots)],
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]),
        obsm={"spatial": xy},
    )
    adata.uns["spatial"] = {
        library: {
            "images": {"hires": picture},
            "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 36.0, "mpp": 2.0},
            "metadata": {},
        }
    }
    return adata
