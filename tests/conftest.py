"""What all tests share: threads, reproducible property tests, and the folder with real sections."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# One thread, unless asked for more: with a busy neighbor on one of two cores, two threads wait for each other at every
# loop and take seven times as long. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from scipy import sparse
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

REPOSITORY = Path(__file__).resolve().parent.parent

THREADS = int(os.environ["OMP_NUM_THREADS"])

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")


@pytest.fixture(scope="session", autouse=True)
def blas_threads() -> None:
    """Of NumPy and SciPy, which plugins of pytest import before the variable above is set."""
    threadpool_limits(THREADS, user_api="blas")


@pytest.fixture(autouse=True)
def torch_threads() -> None:
    """Before every test: the first parallel function of Numba leaves PyTorch with a thread for each core."""
    import torch

    torch.set_num_threads(THREADS)


def shared_folder(name: str) -> Path:
    """A folder of `../shared` (or of HIST2SCRNA_SHARED); without it, the test is skipped."""
    folder = Path(os.environ.get("HIST2SCRNA_SHARED", REPOSITORY.parent / "shared")) / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name!r} in ../shared; HIST2SCRNA_SHARED may name another place for it")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real sections (`her2st/`, `mob/`, `visium_mousebrain/`, `wsi/`)."""
    return shared_folder("data")


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """Folder with gene panels and stored outputs of published implementations."""
    return shared_folder("fixtures")


@pytest.fixture(scope="session")
def expected_log() -> Callable[..., np.ndarray]:
    """Return E[log(1 + a X)], summed over the probabilities that SciPy gives every count."""
    from scipy import stats

    def add_up(scale, mu, theta=None, dropout=0.0) -> np.ndarray:
        x = np.arange(1, 200 + int(np.max(mu) + 40 * np.sqrt(np.max(mu + (0 if theta is None else mu**2 / theta)))))
        x = x.reshape(-1, *[1] * np.ndim(mu))
        p = stats.poisson.pmf(x, mu) if theta is None else stats.nbinom.pmf(x, theta, theta / (theta + mu))
        return (1 - dropout) * (p * np.log1p(scale * x)).sum(axis=0)

    return add_up


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


@pytest.fixture(scope="session")
def make_section() -> Callable[..., AnnData]:
    """Return a maker of small sections: counts, a picture wider than high, coordinates, two cell types."""
    import anndata

    def make(
        library: str = "s0", *, kind: str = "hexagonal", n_spots: int = 40, n_genes: int = 12, seed: int = 0
    ) -> AnnData:
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
        adata = anndata.AnnData(
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

    return make
