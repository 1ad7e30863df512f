"""What a model attends to, spot by spot: its neighbors, the parts of its patch, the input that moves a gene."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

import hist2scrna
from hist2scrna import keys
from hist2scrna.fitting.attention import read_attention
from hist2scrna.fitting.inference import encode_spots, pick_device
from hist2scrna.fitting.saliency import saliency
from hist2scrna.models.attention import graph_attention_layers, token_grid
from hist2scrna.models.kernel import FewFeatures
from hist2scrna.trained.model import PREDICTION_BATCH, TrainedModel, as_trained
from hist2scrna.trained.writer import writable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

WITH_ATTENTION = ["hist2scrna", "hist2scrna-lightweight"]
# Gradients need what every layer gave: far more memory a patch than prediction.
SALIENCY_BATCH = 16


def attention(
    adata: AnnData,
    model: TrainedModel | str | Path,
    *,
    key_added: str = keys.KEY_ADDED,
    genes: str | Sequence[str] | None = None,
    graph_layer: int | None = None,
    batch_size: int | None = None,
    library_key: str | None = None,
    spatial_key: str | None = None,
    img_key: str | Sequence[str] | None = None,
    image: Any = None,
    features_key: str | None = None,
    mpp: float | None = None,
    accelerator: str = "auto",
    progress: bool = True,
) -> AnnData:
    """Write what the model attends to: neighboring spots, parts of each patch, and what moves the genes asked for.

    Attention tells what is mixed, not why a prediction came out: see Jain and Wallace, Attention is not Explanation,
    NAACL 2019. Saliency is about the prediction, but to first order only. Nothing is written unless all was computed.

    Parameters
    ----------
    adata
        Annotated data with a picture and coordinates (or features), as for :func:`hist2scrna.tl.predict`; no prediction
        is needed beforehand.
    model
        What :func:`hist2scrna.tl.fit` returned, or the folder that it was saved to: `"hist2scrna"` or
        `"hist2scrna-lightweight"`. Preset `"few"` of these attends to nothing: it has saliency alone, with `genes`.
    key_added
        Prefix of all slots that are written.
    genes
        Genes of the model whose saliency is computed, one backward pass each; None: no saliency.
    graph_layer
        Weights of one graph attention layer, counted from 0: the first mixes what each patch shows, later ones what was
        mixed already. None: the mean over all layers, so that an entry is still the weight of one edge. (A product over
        layers would spread over spots that are no neighbors.)
    batch_size
        Patches encoded at once; default 64, for saliency 16.
    library_key, spatial_key, img_key, image, features_key, mpp, accelerator
        As in :func:`hist2scrna.tl.predict`.
    progress
        Show a bar.

    Returns
    -------
    `adata`, with these fields set, where `key = key_added`:

    `.obsp[f"{key}_attention"]` : CSR float32 (n_obs, n_obs)
        Weight that the spot of the row gives to the spot of the column: its neighbors in the model's graph, and itself
        on the diagonal. Mean over heads, and over layers unless `graph_layer` names one. Rows sum to 1.
    `.obsm[f"{key}_attention_patch"]` : float32 (n_obs, tokens)
        Models on patches: how far the class token, which stands for the patch, draws on each of its square tokens, row
        by row from the top left. Roll-out over all layers of the vision transformer, mean over heads: Abnar and
        Zuidema, Quantifying Attention Flow in Transformers, ACL 2020. Without the class token itself; rows sum to 1.
    `.obsm[f"{key}_saliency_{gene}"]` : float32 (n_obs, tokens) or (n_obs, n_features)
        Gradient times input: derivative of the natural logarithm of the gene's predicted mean (of the count component;
        for `mse` models the predicted log-normalized expression) in a spot by that spot's own input, times the input
        less its baseline. Models on patches: summed over the colors and pixels of each token; the baseline is the mean
        color by which patches are normalized. Models on features: one value a feature; the baseline is the training
        mean. So a value is, to first order, how much the log mean would fall if this part were replaced by the
        baseline, at the same library size and the same neighbors; negative: it would rise. Simonyan et al., ICLR
        workshop 2014; Shrikumar et al., ICML 2017.
    `.uns[f"{key}_attention"]` : dict
        Model, version, graph layer, rows and columns of tokens, patch geometry, side of a patch in full-resolution
        pixels for each section.

    Raises
    ------
    KeyError
        If a slot, library, image, scale factor or gene is missing.
    FileNotFoundError
        If the model or the image is not there.
    ValueError
        If the model has no attention between neighboring spots, or a value is wrong.

    Examples
    --------
    >>> hist2scrna.tl.attention(slide, model, genes=["ERBB2"])
    >>> hist2scrna.pl.attention(slide, spot=slide.obs_names[0])
    """
    trained = as_trained(model)
    genes = [] if genes is None else [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
    # What reads each spot alone attends to nothing, but the gradient reaches its input all the same.
    n_layers = 0 if genes and isinstance(trained.module, FewFeatures) else _checked_layers(trained, graph_layer)
    columns = _columns(trained, genes)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"Expected `batch_size` to be at least 1, found {batch_size}.")
    device = pick_device(accelerator)
    spots = trained.read(
        adata,
        library_key=library_key,
        spatial_key=spatial_key,
        img_key=img_key,
        image=image,
        features_key=features_key,
        mpp=mpp,
    )
    try:
        size = batch_size or PREDICTION_BATCH
        where: dict[str, Any] = {"device": device, "progress": progress}
        found = None
        if n_layers:
            found = read_attention(trained.module, spots, graph_layer=graph_layer, batch_size=size, **where)
        moved = None
        if columns:
            tokens = (
                encode_spots(trained.module, spots, np.arange(len(spots)), batch_size=size, **where)
                if found is None
                else found.tokens
            )
            size = batch_size or SALIENCY_BATCH
            moved = saliency(trained.module, spots, tokens, columns, batch_size=size, **where)
    finally:
        trained.module.cpu()
    names = keys.OutputKeys(key_added)
    obsm: dict[str, NDArray[np.float32]] = {}
    if found is not None and found.patch is not None:
        obsm[names.attention_patch] = found.patch
    if moved is not None:
        obsm |= {names.saliency(gene): values for gene, values in zip(genes, moved, strict=True)}
    told = {"graph_layer": "mean" if graph_layer is None else graph_layer, "n_graph_layers": n_layers, "genes": genes}
    parameters = writable({**_geometry(trained, spots), **told})
    if found is not None:
        adata.obsp[names.attention] = sparse.csr_matrix(found.neighbors)
    for key, values in obsm.items():
        adata.obsm[key] = values
    adata.uns[names.attention] = parameters
    return adata


def _checked_layers(trained: TrainedModel, graph_layer: int | None) -> int:
    """Return the number of graph attention layers, or refuse a model without, and a layer that is not there."""
    layers = graph_attention_layers(trained.module)
    if trained.module.context.kind == "section":
        raise ValueError(
            f"Model {trained.name!r} reads a whole section at once, and has no weights between neighboring spots: "
            f"there is nothing of the kind to show. Models that have: {WITH_ATTENTION}."
        )
    if isinstance(trained.module, FewFeatures):
        raise ValueError(
            f"Preset 'few' of {trained.name!r} has no attention: it reads each spot alone. Pass genes= for saliency, "
            "or fit with preset='small'."
        )
    if not layers:
        raise ValueError(
            f"Model {trained.name!r} has no attention: it reads each spot alone. Models that have: {WITH_ATTENTION}."
        )
    if graph_layer is not None and graph_layer not in range(len(layers)):
        raise ValueError(
            f"Expected `graph_layer` to be None or from 0 to {len(layers) - 1}, as the model has {len(layers)} graph "
            f"attention layers; found {graph_layer!r}."
        )
    return len(layers)


def _columns(trained: TrainedModel, genes: Sequence[str]) -> list[int]:
    missing = [gene for gene in genes if gene not in trained.genes]
    if missing:
        raise KeyError(
            f"Genes {missing} are not among the {len(trained.genes)} that the model predicts, such as "
            f"{trained.genes[:3]}."
        )
    return [trained.genes.index(gene) for gene in genes]


def _geometry(trained: TrainedModel, spots: Spots) -> dict[str, Any]:
    """Return what it takes to draw the tokens at their place on the tissue."""
    grid = token_grid(trained.module)
    about: dict[str, Any] = {"model": trained.name, "version": hist2scrna.__version__, "sections": list(spots.sections)}
    if grid is not None and trained.geometry is not None:
        about |= {"grid": list(grid), "geometry": asdict(trained.geometry)}
    # Patches that are files of their own have no place on a picture.
    if spots.patches is not None and len(spots.patches.side):
        about["patch_side"] = [float(side) for side in spots.patches.side]
    return about
