"""What a fitted model attends to, and which part of its input moves its prediction of a gene."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import hist2scrna
from hist2scrna.fitting.attention import Attention, read_attention
from hist2scrna.fitting.inference import encode_spots
from hist2scrna.fitting.saliency import EncodedPatches, saliency
from hist2scrna.models.attention import graph_attention_layers
from hist2scrna.models.registry import model_entry, model_names
from hist2scrna.trained.encode import encode
from hist2scrna.trained.predict import PREDICTION_BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel

# Gradients need what every layer gave: far more memory a patch than prediction.
SALIENCY_BATCH = 16


@dataclass(frozen=True)
class Attribution:
    """Attention (None without), saliency `(n, t)` by gene, and what it takes to draw them at their place."""

    attention: Attention | None
    saliency: dict[str, NDArray[np.float32]]
    about: dict[str, Any]


def attribute(
    model: FittedModel,
    spots: Spots,
    genes: Sequence[str],
    *,
    encoder: Any,
    graph_layer: int | None,
    batch_size: int | None,
    device: torch.device,
    progress: bool,
) -> Attribution:
    """Compute attention, where the model has it, and the saliency of genes.

    Parameters
    ----------
    model, spots
        The model, and the spots as it reads them.
    genes
        Genes whose saliency is computed.
    encoder
        The encoder of the training, where the model does not find it by itself.
    graph_layer
        Which graph attention layer; None: the mean over all.
    batch_size
        Patches encoded at once; None: 64, for saliency 16.
    device
        Where to compute.
    progress
        Show a bar.

    Raises
    ------
    KeyError
        If a gene is not among those of the model.
    ValueError
        If there is no attention to show, and no gene, or a number is out of range.
    """
    if model.module.context.kind == "tile":
        raise ValueError(
            f"Model {model.name!r} reads tiles: it has neither attention between spots, nor saliency here."
        )
    # A model that reads each spot alone has no attention, but the gradient reaches its input all the same.
    alone = model.module.context.kind == "spot" and not graph_attention_layers(model.module)
    n_layers = 0 if genes and alone else _n_layers(model, graph_layer)
    columns = _columns(model, genes)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"Expected `batch_size` to be at least 1, found {batch_size}.")
    where: dict[str, Any] = {"device": device, "progress": progress}
    size = batch_size or PREDICTION_BATCH
    patches = spots.patches
    weights, effects = None, None
    try:
        encode(model, spots, encoder, batch_size=size, **where)
        if n_layers:
            weights = read_attention(model.module, spots, graph_layer=graph_layer, batch_size=size, **where)
        behind = None
        if patches is not None and model.encoder_in_memory is not None and model.encoder_in_memory.module is not None:
            assert spots.geometry is not None
            behind = EncodedPatches(patches, spots.geometry.um, model.encoder_in_memory)
        if columns:
            everyone = np.arange(len(spots))
            tokens = (
                encode_spots(model.module, spots, everyone, batch_size=size, **where)
                if weights is None
                else weights.tokens
            )
            size = batch_size or SALIENCY_BATCH
            effects = saliency(model.module, spots, tokens, columns, batch_size=size, behind=behind, **where)
    finally:
        model.module.cpu()
    about: dict[str, Any] = {
        "model": model.name,
        "version": hist2scrna.__version__,
        "sections": list(spots.sections),
        "graph_layer": "mean" if graph_layer is None else graph_layer,
        "n_graph_layers": n_layers,
        "genes": list(genes),
    }
    grid = model.module.token_grid if behind is None else behind.encoder.token_grid(behind.patches.px)
    if grid is not None and model.geometry is not None:
        about |= {"grid": list(grid), "geometry": asdict(model.geometry)}
    # Patches that are files of their own have no place on an image.
    if patches is not None and len(patches.side):
        about["patch_side"] = [float(side) for side in patches.side]
    by_gene = {} if effects is None else dict(zip(genes, effects, strict=True))
    return Attribution(weights, by_gene, about)


def _n_layers(model: FittedModel, graph_layer: int | None) -> int:
    """Return the number of graph attention layers, or refuse a model without, and a layer that is not there."""
    layers = graph_attention_layers(model.module)
    able = [name for name in model_names() if model_entry(name).model.has_attention]
    if model.module.context.kind == "section":
        raise ValueError(
            f"Model {model.name!r} reads a whole section at once, and has no weights between neighboring spots: "
            f"there is nothing of the kind to show. Models that have: {able}."
        )
    if not layers:
        raise ValueError(
            f"Model {model.name!r} has no attention: it reads each spot alone. Pass genes= for saliency, or fit one of "
            f"the models that have attention: {able}."
        )
    if graph_layer is not None and graph_layer not in range(len(layers)):
        raise ValueError(
            f"Expected `graph_layer` to be None or from 0 to {len(layers) - 1}, as the model has {len(layers)} graph "
            f"attention layers; found {graph_layer!r}."
        )
    return len(layers)


def _columns(model: FittedModel, genes: Sequence[str]) -> list[int]:
    missing = [gene for gene in genes if gene not in model.genes]
    if missing:
        raise KeyError(
            f"Genes {missing} are not among the {len(model.genes)} that the model predicts, such as {model.genes[:3]}."
        )
    return [model.genes.index(gene) for gene in genes]
