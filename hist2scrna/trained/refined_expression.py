"""Expression of nuclei whose type was changed, by the head of a model that learned the new type alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from hist2scrna.messages import require_key
from hist2scrna.models.ghist import FACTOR, GENERAL
from hist2scrna.spots.gene_names import locate_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.keys import OutputKeys
    from hist2scrna.trained.fitted import FittedModel

# Nuclei whose stored means are compared with those of the model, and how far half precision may move these.
COMPARED, CLOSE = 64, 0.05


def refined_mean(
    adata: AnnData,
    model: FittedModel,
    names: OutputKeys,
    before: NDArray[np.int64],
    after: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the expected counts `(n, n_vars)`: of nuclei that changed to a type of a special head, those by this head.

    Parameters
    ----------
    adata
        Nuclei with their predicted means and their embeddings, which are all that the heads read.
    model
        The model that predicted them.
    names
        Where these are.
    before, after
        `(n,)` number of the predicted and of the refined type, -1 for none.

    Raises
    ------
    KeyError
        If the means or embeddings are missing.
    ValueError
        If the model has no special heads, or the predictions are not its own.
    """
    special: dict[str, tuple[int, ...]] = getattr(model.module, "special", {})
    if not special:
        raise ValueError(
            f"The model ({model.name!r}) has no head of expression for some types alone. Leave `model` out: types are "
            "refined then, and expression stays."
        )
    hint = "Predict the nuclei first, with the layer 'mean'."
    require_key(adata.layers, names.layer("mean"), "adata.layers", hint)
    require_key(adata.obsm, names.embedding, "adata.obsm", hint)
    layer: Any = adata.layers[names.layer("mean")]
    mean = np.array(layer.toarray() if sparse.issparse(layer) else layer, dtype=np.float32)
    columns = locate_genes(adata, model.genes)
    _check_own(adata, model, names, mean, columns)
    for head, types in special.items():
        rows = np.flatnonzero((before != after) & np.isin(after, types))
        mean[np.ix_(rows, columns)] = _counts(model, head, adata.obsm[names.embedding][rows])
    return mean


def _check_own(
    adata: AnnData, model: FittedModel, names: OutputKeys, mean: NDArray[np.float32], columns: NDArray[np.int64]
) -> None:
    """Refuse means that the model does not give of the embeddings."""
    embedding, width = np.asarray(adata.obsm[names.embedding]), int(model.options["embedding"])
    some = np.flatnonzero(np.isfinite(embedding).all(axis=1))[:COMPARED]
    own = embedding.shape[1] == width and bool((columns >= 0).all())
    if own and len(some):
        expected, found = _counts(model, GENERAL, embedding[some]), mean[np.ix_(some, columns)]
        own = bool(np.linalg.norm(found - expected) <= CLOSE * np.linalg.norm(expected))
    if not own:
        raise ValueError(
            f"The predictions under {names.key!r} are not of this model: it gives other means of the embeddings in "
            f"adata.obsm[{names.embedding!r}]. Pass the model that predicted them, or predict again."
        )


@torch.no_grad()
def _counts(model: FittedModel, head: str, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    module: Any = model.module
    logarithm = module.expression_by(head, torch.from_numpy(np.ascontiguousarray(embedding, dtype=np.float32)))
    return torch.expm1(logarithm / FACTOR).numpy()
