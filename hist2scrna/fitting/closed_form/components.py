"""Features standardized and rotated to their principal components, and results written into a model's buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hist2scrna.metrics.blocks import Floats, blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A feature that varies less is constant.
LEAST_DEVIATION = 1e-6


def standardization(features: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each feature, `(d,)`; the deviation of a constant feature is 1."""
    values = np.asarray(features)
    mean = values.mean(axis=0, dtype=np.float64)
    # NumPy's own would hold all deviations at once.
    squares = sum(np.square(values[rows] - mean).sum(axis=0) for rows in blocks(*values.shape))
    scale = np.sqrt(squares / len(values))
    return mean, np.where(scale > LEAST_DEVIATION, scale, 1.0)


@dataclass(frozen=True)
class Components:
    """Principal components of standardized features.

    Attributes
    ----------
    mean, scale
        `(d,)`, by which features are standardized.
    axes
        `(k, d)`, orthonormal rows.
    """

    mean: Floats
    scale: Floats
    axes: Floats

    @classmethod
    def fit(cls, features: NDArray[Any], most: int) -> Components:
        """Return the `most` leading components, or as many as there can be."""
        mean, scale = standardization(features)
        return cls(mean, scale, components_of((np.asarray(features, dtype=np.float64) - mean) / scale, most))

    def transform(self, features: NDArray[Any]) -> Floats:
        """Return the components of features, `(n, k)`."""
        return (np.asarray(features, dtype=np.float64) - self.mean) / self.scale @ self.axes.T


def components_of(standard: Floats, most: int) -> Floats:
    """Return the leading principal components of standardized features, `(k, d)`: `most`, or as many as there are."""
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if len(standard) >= standard.shape[1] else "full"
    axes: Floats = PCA(min(most, *standard.shape), svd_solver=solver).fit(standard).components_
    return axes


def as_buffer(values: Floats) -> torch.Tensor:
    """Return values as float32 in the order of memory that they have once saved and loaded: rounding depends on it."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def write_rows(buffer: torch.Tensor, values: Floats) -> None:
    """Write values into the first rows and columns of a buffer; the others become zero."""
    buffer.zero_()
    part = buffer[tuple(slice(length) for length in values.shape)] if values.ndim else buffer
    part.copy_(torch.from_numpy(np.asarray(values)))
