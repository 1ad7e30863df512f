"""What a model attends to, spot by spot: its neighbors, the parts of its patch, the input that moves a gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scipy import sparse

from hist2scrna import keys
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.messages import arguments_known
from hist2scrna.spots.placed import spread
from hist2scrna.trained.attribution import attribute
from hist2scrna.trained.model import TrainedModel, as_trained
from hist2scrna.trained.written import writable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData


@arguments_known
@in_own_torch
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
    encoder: Any = None,
    accelerator: str = "auto",
    progress: bool = True,
) -> AnnData:
    """Write what the model attends to: neighboring spots, parts of each patch, and what moves the genes asked for.

    Attention tells what is mixed, not why a prediction came out: see Jain and Wallace, Attention is not Explanation,
    NAACL 2019. Saliency is about the prediction, but to first order only. Nothing is written unless all was computed.
    Spots that :func:`hist2scrna.tl.predict` leaves out get no weights, and NaN in `.obsm`.

    Parameters
    ----------
    adata
        Annotated data with an image and coordinates (or features), as for :func:`hist2scrna.tl.predict`; no prediction
        is needed beforehand.
    model
        What :func:`hist2scrna.tl.fit` returned, or the folder that it was saved to: `"hist2scrna"` or
        `"hist2scrna-lightweight"`. Models that read each spot alone, such as `"kernel"`, have no attention: of these,
        only the saliency of `genes` is available.
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
    library_key, spatial_key, img_key, image, features_key, mpp, encoder, accelerator
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
        color by which patches are normalized. So it is with an encoder that is a network, over the cells of its last
        map. Other models on features: one value a feature; the baseline is the training mean. So a value is, to first
        order, how much the log mean would fall if this part were replaced by the baseline, at the same library size and
        the same neighbors; negative: it would rise. Simonyan et al., ICLR workshop 2014; Shrikumar et al., ICML 2017.
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
    >>> network = h2s.tl.fit(train, model="hist2scrna", preset="tiny", training={"max_epochs": 1}, progress=False)
    >>> test = h2s.tl.attention(test, network, progress=False)
    >>> test.obsp["hist2scrna_attention"].shape
    (30, 30)
    """
    trained = as_trained(model)
    genes = [] if genes is None else [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
    spots = trained.read(
        adata,
        library_key=library_key,
        spatial_key=spatial_key,
        img_key=img_key,
        image=image,
        features_key=features_key,
        mpp=mpp,
    )
    attribution = attribute(
        trained,
        spots,
        genes,
        encoder=encoder,
        graph_layer=graph_layer,
        batch_size=batch_size,
        device=pick_device(accelerator),
        progress=progress,
    )
    names = keys.OutputKeys(key_added)
    weights = attribution.attention
    if weights is not None:
        pairs = sparse.coo_matrix(weights.neighbors)
        places = (spots.rows[pairs.row], spots.rows[pairs.col])
        adata.obsp[names.attention] = sparse.csr_matrix((pairs.data, places), shape=(adata.n_obs, adata.n_obs))
        if weights.patch is not None:
            adata.obsm[names.attention_patch] = spread(weights.patch, spots.rows, adata.n_obs)
    for gene, values in attribution.saliency.items():
        adata.obsm[names.saliency(gene)] = spread(values, spots.rows, adata.n_obs)
    adata.uns[names.attention] = writable(attribution.about)
    return adata
