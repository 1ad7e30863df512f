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
import pytest
from hypothesis import settings
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


class _Every(set[object]):
    """Holds everything."""

    def __contains__(self, _: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def files_are_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of tests are not read through by a process of its own first, which takes longer than most tests.

    `test_stored.py` and the fuzzer do so.
    """
    from hist2scrna import stored

    monkeypatch.setattr(stored, "_sound", _Every())


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


@pytest.fixture(scope="session")
def make_section() -> Callable[..., AnnData]:
    """Return a maker of small sections: counts, a picture wider than high, coordinates, two cell types."""
    from sections import section

    return section
