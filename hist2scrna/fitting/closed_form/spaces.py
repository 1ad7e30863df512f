"""What the kernel model regresses on: standardized, clipped and whitened features, and a kernel of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.fitting.closed_form.components import as_buffer, components_of, standardization, write_rows
from hist2scrna.fitting.closed_form.kernel import to_kernel_space
from hist2scrna.metrics.blocks import Floats
from hist2scrna.models.kernel import CLIP, KernelRegression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Share of the mean variance between two encodings that is added to each direction.
SHRINKAGE = 0.1


def fit_components(model: KernelRegression, looks: Sequence[NDArray[np.float32]]) -> None:
    """Set how features are standardized, the principal components of the encoder's, and how these are whitened."""
    mean, scale = standardization(looks[0])
    write_rows(model.feature_mean, mean)
    write_rows(model.feature_scale, scale)
    clipped = [_clipped(model, look) for look in looks]
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


@dataclass(frozen=True)
class Space:
    """What a ridge regression is on.

    Attributes
    ----------
    buffer
        Name of the buffer that holds its weights.
    of_depth
        Whether the library size is predicted from it; programs and classes are from all.
    spots, seen
        `(n, k)`, of the mean of the looks at each spot, and of one look.
    back
        From weights in the space, `(k, t)`, to those in the buffer: a matrix `(rows, k)`, or a factor.
    """

    buffer: str
    of_depth: bool
    spots: Floats
    seen: Floats
    back: Floats | float

    def weights(self, weights: Floats) -> Floats:
        """Return weights as the buffer holds them."""
        return self.back @ weights if isinstance(self.back, np.ndarray) else self.back * weights


def see(model: KernelRegression, looks: Sequence[NDArray[np.float32]], landmarks: NDArray[np.int64]) -> list[Space]:
    """Set landmarks and bandwidth; return what to regress on."""
    mean = torch.stack([_clipped(model, look) for look in looks]).mean(dim=0)
    once = _clipped(model, looks[0])
    rotated = model.rotate(mean)
    model.landmarks = as_buffer(rotated[torch.from_numpy(landmarks)].numpy())
    among = model.kernel_distances(rotated @ model.metric).numpy().astype(np.float64)
    off_diagonal = among[landmarks][~np.eye(len(landmarks), dtype=bool)]
    bandwidth = max(float(np.median(off_diagonal)), 1e-6) if len(off_diagonal) else 1.0
    model.bandwidth.fill_(bandwidth)
    seen_once = model.kernel_distances(model.rotate(once) @ model.metric).numpy().astype(np.float64)
    kernel = np.exp(-among / bandwidth)
    to_space = to_kernel_space(kernel[landmarks])
    by_hand = model.n_morphology > 0
    spaces = [
        Space("dual", not by_hand, kernel @ to_space, np.exp(-seen_once / bandwidth) @ to_space, to_space),
        _line("slopes", rotated @ model.metric, model.rotate(once) @ model.metric),
    ]
    if by_hand:
        spaces.append(_line("morphology_slopes", mean[:, -model.n_morphology :], once[:, -model.n_morphology :]))
    return spaces


def _line(buffer: str, spots: torch.Tensor, seen: torch.Tensor) -> Space:
    values = spots.numpy().astype(np.float64)
    factor = 1 / max(float(np.sqrt(np.square(values).sum(axis=1).mean())), 1e-6)
    return Space(buffer, True, factor * values, factor * seen.numpy().astype(np.float64), factor)
