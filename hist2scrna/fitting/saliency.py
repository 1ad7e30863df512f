"""Which part of a spot's own input moves its predicted expression of a gene: gradient times input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from hist2scrna.fitting import inference
from hist2scrna.fitting.batches import BlockSampler, make_batch
from hist2scrna.models.attention import token_grid
from hist2scrna.models.contract import Context
from hist2scrna.models.layers import PatchNormalization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

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

    Returns
    -------
    `(len(columns), n, t)`: summed over the colors and pixels of each token of a patch; or `(len(columns), n, d)`, one
    for each feature.
    """
    from tqdm.auto import tqdm

    model = model.to(device).eval()
    baseline = _baseline(model)
    grid = token_grid(model)
    found: list[NDArray[np.float32]] = []
    with torch.enable_grad():
        reaching = _own_gradients(model, spots, tokens, columns, device)
        starts = range(0, len(spots), batch_size)
        for start in tqdm(starts, desc="saliency", unit="batch", disable=not progress):
            chunk = np.arange(start, min(start + batch_size, len(spots)))
            batch = make_batch(spots, chunk, Context("spot"), supervised=False)[0].to(device)
            if batch.patches is not None:
                batch.patches = inputs = (batch.patches.to(baseline.dtype) / 255).requires_grad_()
            else:
                assert batch.features is not None
                batch.features = inputs = batch.features.to(baseline.dtype).requires_grad_()
            encoded = model.encode(batch)
            effects = []
            for gradient in reaching[:, start : start + len(chunk)].to(encoded):
                (by_input,) = torch.autograd.grad(encoded, inputs, gradient, retain_graph=True)
                effect = (by_input * (inputs - baseline)).detach()
                effects.append(effect if grid is None else _by_token(effect, grid))
            found.append(torch.stack(effects).float().cpu().numpy())
    return np.concatenate(found, axis=1)


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


def _own_gradients(
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
                own = torch.from_numpy(np.flatnonzero(color[core] == one))
                (by_token,) = torch.autograd.grad(log_mean[own, column].sum(), leaf, retain_graph=True)
                gradients[i, torch.from_numpy(core)[own]] = by_token[own].cpu()
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
