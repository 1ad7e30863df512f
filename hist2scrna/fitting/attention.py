"""Attention of a model over all spots of an AnnData: which neighbor, and which part of the patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from hist2scrna.fitting.batches import make_batch
from hist2scrna.fitting.inference import predict_blocks
from hist2scrna.models.attention import AttentionRecorder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.models.contract import SpotModel
    from hist2scrna.spots.read import Spots


@dataclass(frozen=True)
class Attention:
    """What a model attends to.

    Attributes
    ----------
    neighbors
        `(n, n)` CSR float32; row: the spot that attends, column: the spot attended to, itself on the diagonal. Rows
        sum to 1.
    patch
        `(n, t)` float32, roll-out of each patch over its tokens, row by row; None without a vision transformer.
    tokens
        `(n, d)` float32, encoding of each spot.
    """

    neighbors: sparse.csr_array
    patch: NDArray[np.float32] | None
    tokens: Tensor


def read_attention(
    model: SpotModel,
    spots: Spots,
    *,
    graph_layer: int | None,
    batch_size: int,
    device: torch.device,
    progress: bool,
) -> Attention:
    """Predict all spots, and keep the attention weights on the way.

    Parameters
    ----------
    model
        A model with graph attention, of context `spot` or `hops`.
    spots
        All spots.
    graph_layer
        Which graph attention layer; None: the mean over all.
    batch_size
        Patches encoded at once.
    device
        Where to compute.
    progress
        Show a bar.
    """
    recorder = AttentionRecorder(model)
    rows, columns, values = [], [], []
    blocks = predict_blocks(recorder, spots, batch_size=batch_size, device=device, log_library=None, progress=progress)
    for core, _ in blocks:
        nodes = make_batch(spots, core, model.context, supervised=False, inputs=False)[1]
        layers = recorder.graph_layers if graph_layer is None else [recorder.graph_layers[graph_layer]]
        for edges, weights in layers:
            source, target = edges.cpu().numpy()
            # Spots of the halo lack neighbors of their own: only the core spots' weights are true.
            of_core = target < len(core)
            rows.append(nodes[target[of_core]])
            columns.append(nodes[source[of_core]])
            values.append(weights.cpu().numpy()[of_core] / len(layers))
    n = len(spots)
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    neighbors = sparse.coo_array(entries, shape=(n, n)).tocsr().astype(np.float32)
    neighbors.sort_indices()
    patch = torch.cat(recorder.rollouts).float().numpy() if recorder.rollouts else None
    return Attention(neighbors, patch, torch.cat(recorder.tokens))
