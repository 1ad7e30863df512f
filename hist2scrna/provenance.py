"""Where numbers come from: the spots that a model was fitted on, the genes, and the versions of the packages."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

import hist2scrna
from hist2scrna.metrics.blocks import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from scipy import sparse

VERSIONED = ("hist2scrna", "torch", "torch-geometric", "lightning", "anndata", "scanpy", "squidpy", "numpy")


def fingerprint(counts: sparse.csr_array) -> NDArray[np.int64]:
    """Return one number a spot, `(n,)` int64, from its counts: the same for equal counts, else surely another."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(b"hist2scrna").digest()[:8]))
    weights = rng.integers(1, 2**63, size=counts.shape[1], dtype=np.uint64)
    # Bulk expression: the numbers by their bits.
    whole = all((counts.data[part] == np.round(counts.data[part])).all() for part in blocks(len(counts.data), 1))
    numbers = np.empty(counts.shape[0], dtype=np.int64)
    with np.errstate(over="ignore"):
        for rows in blocks(*counts.shape):
            values = counts.data[counts.indptr[rows.start] : counts.indptr[rows.stop]]
            bounds = counts.indptr[rows.start : rows.stop + 1] - counts.indptr[rows.start]
            genes = counts.indices[counts.indptr[rows.start] : counts.indptr[rows.stop]]
            values = values if whole else values.astype(np.float32).view(np.uint32)
            products = values.astype(np.uint64) * weights[genes]
            running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(products, dtype=np.uint64)])
            numbers[rows] = (running[bounds[1:]] - running[bounds[:-1]]).view(np.int64)
    return numbers


def panel_hash(genes: Iterable[str]) -> str:
    """Return the SHA-256 of the sorted gene names, a line each: equal for equal panels in any order."""
    return hashlib.sha256("\n".join(sorted(genes)).encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape the numbers."""
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = hist2scrna.__version__ if package == "hist2scrna" else "unknown"
    return found
