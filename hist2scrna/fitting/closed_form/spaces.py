"""What the kernel model regresses on: standardized, clipped and whitened features, and a kernel of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.fitting.closed_form.components import as_buffer, components_of, standardization, write_rows
from hist2scrna.fitting.closed_form.kernel import ROWS, Space, to_kernel_space
from hist2scrna.metrics.blocks import Floats
from hist2scrna.models.kernel import CLIP, KernelRegression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Share of the mean variance between two encodings that is added to each direction.
SHRINKAGE = 0.1


def fit_components(
    model: KernelRegression, looks: Sequence[NDArray[np.float32]], rows: NDArray[np.int64] | slice
) -> None:
    """Set how features are standardized, the principal components of the encoder's, and how these are whitened.

    The standardization is by all spots; components, which are held dense for it, are of some rows.
    """
    mean, scale = standardization(looks[0])
    write_rows(model.feature_mean, mean)
    write_rows(model.feature_scale, scale)
    clipped = [_clipped(model, look[rows]) for look in looks]
    encoded = clipped[0][:, : clipped[0].shape[1] - model.n_morphology]
    model.components = as_buffer(components_of(encoded.numpy().astype(np.float64), model.n_components))
    model.metric = torch.eye(len(model.components))
    if len(looks) > 1:
        one, two = (model.rotate(look).numpy().astype(np.float64) for look in clipped)
        model.metric = as_buffer(whiten(two - one))


def _clipped(model: KernelRegression, features: NDArray[np.float32]) -> torch.Tensor:
    return model.standardize(torch.from_numpy(features)).clamp(-CLIP, CLIP)


def whiten(change: Floats) -> Floats:
    """Return the `(k, k)` that whitens components by how two looks at a spot differ in them.

    The difference of two looks, `(n, k)`, tells nothing of a spot. Its covariance is shrunk towards a multiple of the
    identity: within-class covariance normalization (Hatch and Stolcke, ICASSP 2006), each spot a class.
    """
    values, vectors = np.linalg.eigh(change.T @ change / (2 * len(change)))
    values = np.maximum(values, 0)
    return vectors / np.sqrt(values + max(SHRINKAGE * float(values.mean()), 1e-12))


@dataclass
class FeatureTables:
    """Tables of the training spots that are computed when they are read.

    Attributes
    ----------
    model
        With components and landmarks.
    looks
        `(n, d)`, features of one or two looks at each spot. The mean of the looks is learned from, and a spot to
        predict is seen as the first has it.
    spaces
        What is regressed on.
    """

    model: KernelRegression
    looks: Sequence[NDArray[np.float32]]
    spaces: Sequence[Space] = ()

    @property
    def one_look(self) -> bool:
        """Whether there is one look at each spot."""
        return len(self.looks) == 1

    def spots(self, rows: NDArray[np.int64]) -> list[Floats]:
        """Return the tables of the mean of the looks."""
        whitened, by_hand = self._lines(rows, len(self.looks))
        return self._tables(whitened, by_hand)

    def seen(self, rows: NDArray[np.int64]) -> list[Floats]:
        """Return the tables of the first look."""
        return self._tables(*self._lines(rows, 1))

    def lines(self, rows: NDArray[np.int64]) -> list[Floats]:
        """Return those of the mean of the looks that are no kernel."""
        return [part.numpy().astype(np.float64) for part in self._lines(rows, len(self.looks))]

    def _lines(self, rows: NDArray[np.int64], n_looks: int) -> tuple[torch.Tensor, torch.Tensor]:
        clipped = torch.stack([_clipped(self.model, look[rows]) for look in self.looks[:n_looks]]).mean(dim=0)
        whitened = self.model.rotate(clipped) @ self.model.metric
        return whitened, clipped[:, clipped.shape[1] - self.model.n_morphology :]

    def _tables(self, whitened: torch.Tensor, by_hand: torch.Tensor) -> list[Floats]:
        kernel = self.kernel(whitened)
        lines = [whitened, by_hand] if self.model.n_morphology else [whitened]
        return [kernel, *(line.numpy().astype(np.float64) for line in lines)]

    def kernel(self, whitened: torch.Tensor) -> Floats:
        """Return the kernel of whitened components with the landmarks, `(b, m)`."""
        squares = self.model.kernel_distances(whitened).double()
        return squares.div_(-float(self.model.bandwidth)).exp_().numpy()


def see(model: KernelRegression, looks: Sequence[NDArray[np.float32]], landmarks: NDArray[np.int64]) -> FeatureTables:
    """Set landmarks and bandwidth; return what to regress on."""
    tables = FeatureTables(model, looks)
    some = torch.stack([_clipped(model, look[landmarks]) for look in looks]).mean(dim=0)
    model.landmarks = as_buffer(model.rotate(some).numpy())
    whitened = model.landmarks @ model.metric
    among = model.kernel_distances(whitened).numpy().astype(np.float64)
    off_diagonal = among[~np.eye(len(landmarks), dtype=bool)]
    model.bandwidth.fill_(max(float(np.median(off_diagonal)), 1e-6) if len(off_diagonal) else 1.0)
    squares = np.zeros(2)
    for start in range(0, len(looks[0]), ROWS):
        rows = np.arange(start, min(start + ROWS, len(looks[0])))
        squares += [np.square(line).sum() for line in tables.lines(rows)]
    factor = 1 / np.maximum(np.sqrt(squares / len(looks[0])), 1e-6)
    by_hand = model.n_morphology > 0
    tables.spaces = [
        Space("dual", not by_hand, to_kernel_space(tables.kernel(whitened))),
        Space("slopes", True, float(factor[0])),
        *([Space("morphology_slopes", True, float(factor[1]))] if by_hand else []),
    ]
    return tables
