"""Which part of a spot's own input moves its predicted expression of a gene: gradient times input."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from hist2scrna.fitting import inference
from hist2scrna.fitting.batches import BlockSampler, make_batch
from hist2scrna.models.contract import Context
from hist2scrna.models.layers import PatchNormalization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.encoders import Encoder
    from hist2scrna.images.patches import PatchSource
    from hist2scrna.models.contract import SpotModel
    from hist2scrna.spots.read import Spots


def saliency(
    model: SpotModel,
    spots: Spots,
    tokens: Tensor,
    columns: Sequence[int],
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
    behind: EncodedPatches | None = None,
) -> NDArray[np.float32]:
    """Return, for each gene and spot, the gradient of the log mean times the input less its baseline.

    The chain rule in two steps, so that each patch goes through the encoder once: from the log mean to the spot's own
    encoding, then to its input. The paths by which a spot's encoding returns to it through its neighbors count.

    Sources: Simonyan et al., Deep Inside Convolutional Networks, ICLR workshop 2014 (gradient); Shrikumar et al.,
    Learning Important Features Through Propagating Activation Differences, ICML 2017 (times the difference from a
    reference).

    Parameters
    ----------
    model
        A model of context `spot` or `hops`, in eval mode.
    spots
        All spots.
    tokens
        `(n, d)` encodings of all spots.
    columns
        Numbers of the genes.
    batch_size
        Spots encoded at once.
    device
        Where to compute.
    progress
        Show a bar.
    behind
        The patches and the encoder that the features are from; None: the saliency is that of the features themselves.

    Returns
    -------
    `(len(columns), n, t)`: summed over the colors and pixels of each token of a patch; or `(len(columns), n, d)`, one
    for each feature.
    """
    from tqdm.auto import tqdm

    model = model.to(device).eval()
    reader = _Reader(model, spots, device, behind)
    effects: list[NDArray[np.float32]] = []
    with torch.enable_grad(), contextlib.nullcontext() if behind is None else behind.encoder.on(device):
        by_token = _token_gradients(model, spots, tokens, columns, device)
        starts = range(0, len(spots), batch_size)
        for start in tqdm(starts, desc="saliency", unit="batch", disable=not progress):
            chunk = np.arange(start, min(start + batch_size, len(spots)))
            inputs, encoded = reader.encode(chunk)
            of_genes = []
            for gradient in by_token[:, start : start + len(chunk)].to(encoded):
                (by_input,) = torch.autograd.grad(encoded, inputs, gradient, retain_graph=True)
                of_genes.append(reader.pool((by_input * (inputs - reader.baseline)).detach()))
            effects.append(torch.stack(of_genes).float().cpu().numpy())
    return np.concatenate(effects, axis=1)


@dataclass(frozen=True)
class EncodedPatches:
    """Patches, and the frozen encoder that made features of them."""

    patches: PatchSource
    um: float
    encoder: Encoder


class _Reader:
    """Reads inputs that ask for a gradient, and encodes them; knows their baseline, and how an effect is pooled."""

    def __init__(self, model: SpotModel, spots: Spots, device: torch.device, behind: EncodedPatches | None) -> None:
        self.model, self.spots, self.device, self.behind = model, spots, device, behind
        if behind is None:
            self.baseline, self.grid = _baseline(model), model.token_grid
        else:
            self.baseline = torch.tensor(behind.encoder.colors[0], device=device)[:, None, None]
            self.grid = behind.encoder.token_grid(behind.patches.px)

    def encode(self, chunk: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the inputs of some spots, and their encodings."""
        batch = make_batch(self.spots, chunk, Context("spot"), supervised=False)[0].to(self.device)
        if self.behind is not None:
            patches = torch.from_numpy(self.behind.patches.read(chunk)).to(self.device)
            inputs = (patches.float() / 255).requires_grad_()
            batch.features = self.behind.encoder.encode(inputs, self.behind.um).float()
        elif batch.patches is not None:
            batch.patches = inputs = (batch.patches.to(self.baseline.dtype) / 255).requires_grad_()
        else:
            assert batch.features is not None
            batch.features = inputs = batch.features.to(self.baseline.dtype).requires_grad_()
        return inputs, self.model.encode(batch)

    def pool(self, effect: Tensor) -> Tensor:
        """Sum the effect of a patch over the pixels of each token; leave that of features as it is."""
        return effect if self.grid is None else _by_token(effect, self.grid)


def _baseline(model: SpotModel) -> Tensor:
    """Return the input at which the model's first layer reads zero: the mean color, or the mean of each feature."""
    for module in model.modules():
        if isinstance(module, PatchNormalization):
            return module.mean
    return model.get_buffer("feature_mean")


def _by_token(effect: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum `(n, channels, h, w)` over channels and the pixels of each token, `(n, rows * columns)`."""
    n, _, height, width = effect.shape
    rows, columns = grid
    blocks = effect.sum(dim=1).view(n, rows, height // rows, columns, width // columns)
    return blocks.sum(dim=(2, 4)).flatten(1)


def _token_gradients(
    model: SpotModel, spots: Spots, tokens: Tensor, columns: Sequence[int], device: torch.device
) -> Tensor:
    """Return the gradient of each spot's log mean by its own encoding, `(genes, n, d)`.

    A sum over spots that do not reach each other has, at each of them, the gradient of its own term alone: one backward
    pass a color of the graph, in place of one a spot.
    """
    gradients = tokens.new_zeros((len(columns), *tokens.shape))
    color = separate(spots.graph.adjacency, model.context.hops)
    for core in BlockSampler(spots, np.arange(len(spots)), model.context, inference.GRAPH_BLOCK):
        batch, nodes = make_batch(spots, core, model.context, supervised=False, inputs=False)
        leaf = tokens[torch.from_numpy(nodes)].to(device).requires_grad_()
        prediction = model.decode(leaf, batch.to(device))
        log_mean = prediction.log_mu if prediction.value is None else prediction.mean
        assert log_mean is not None
        for i, column in enumerate(columns):
            for one in np.unique(color[core]):
                rows = torch.from_numpy(np.flatnonzero(color[core] == one))
                (by_token,) = torch.autograd.grad(log_mean[rows, column].sum(), leaf, retain_graph=True)
                gradients[i, torch.from_numpy(core)[rows]] = by_token[rows].cpu()
    return gradients


def separate(adjacency: sparse.csr_array, hops: int) -> NDArray[np.int64]:
    """Color spots so that no two of one color are `hops` edges or fewer apart, greedily.

    Parameters
    ----------
    adjacency
        `(n, n)` CSR, symmetric.
    hops
        Number of edges; 0: one color for all.

    Returns
    -------
    `(n,)` numbers from 0.
    """
    n = adjacency.shape[0]
    step = sparse.csr_array(adjacency + sparse.eye_array(n, format="csr"))
    reach = sparse.csr_array(sparse.eye_array(n, format="csr"))
    for _ in range(hops):
        reach = sparse.csr_array(reach @ step)
    color = np.full(n, -1, dtype=np.int64)
    for spot in range(n):
        taken = set(color[reach.indices[reach.indptr[spot] : reach.indptr[spot + 1]]].tolist())
        color[spot] = next(c for c in range(len(taken) + 1) if c not in taken)
    return color
