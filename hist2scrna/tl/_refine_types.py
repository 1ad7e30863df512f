"""Types of nuclei, changed towards the composition of their tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.messages import require_adata, require_key, require_known
from hist2scrna.models.ghist_refinement import candidates_of, refine_tile
from hist2scrna.trained.files import as_fitted
from hist2scrna.trained.refined_expression import refined_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from hist2scrna.trained.fitted import FittedModel

TYPES = ("B", "Myeloid", "T")
HINT = "Predict nuclei with a model on tiles that has cell types first: tl.predict(nuclei, model)."


def refine_types(
    adata: AnnData,
    types: Sequence[str] = TYPES,
    *,
    strength: float = 2.0,
    sure: Mapping[str, float] | None = None,
    toward: str | None = None,
    keep_earlier: bool = False,
    model: FittedModel | str | Path | None = None,
    key: str = keys.KEY_ADDED,
    seed: int = 0,
) -> AnnData:
    """Change types that are hard to tell apart in the image towards the estimated composition of their tile.

    GHIST does this at prediction, without a seed; here it is a step of its own. In each tile, a type of which the
    composition has more than the most probable types of its nuclei show gains, by noise, and the greatest sum of log
    probability and gain is the new type. A tile is made up of the nuclei that it predicts; in GHIST, of all that it
    shows. The expression that was predicted stays; with `model`, a further layer has that of the refined types. GHIST
    does so twice::

        h2s.tl.refine_types(nuclei, ["B", "Myeloid", "T"], model=model)
        # Of a carcinoma that is known to be invasive:
        invasive = {"toward": "Malignant", "strength": 10_000, "keep_earlier": True}
        h2s.tl.refine_types(nuclei, ["Malignant", "Epithelial"], model=model, **invasive)

    Parameters
    ----------
    adata
        Nuclei, as :func:`hist2scrna.tl.predict` leaves them.
    types
        Types that may be exchanged, two or more; the default is that of GHIST.
    strength
        Factor of the gain; 0 exchanges nothing.
    sure
        Type and probability above which a nucleus of it stays. None: `{"T": 0.6}`, where `"T"` is among `types`.
    toward
        The one of `types` that gains, by its whole share of the composition, whatever the nuclei show. With a large
        `strength` nearly all nuclei of the others become it, however sure the image is of them. None: each type gains
        by what it lacks.
    keep_earlier
        Nuclei that are not of `types` keep what an earlier call made of them. Default: they are what was predicted.
    model
        The model that predicted the nuclei, or its folder: nuclei that were changed to a type that one of its special
        heads learned (the option `special` of `ghist`) take the expression of this head. It reads the stored
        embeddings alone, no image. None: no expression is written.
    key
        Prefix of the predictions.
    seed
        Of the noise.

    Returns
    -------
    `adata`, with this field set:

    `.obs[f"{key}_refined_cell_type"]` : categorical
        The most probable type, or the one that it was exchanged for; missing where the nucleus was not predicted.
    `.layers[f"{key}_refined_mean"]` : float32 (n_obs, n_vars), with `model`
        Expected counts: those of the layer `{key}_mean`, but for nuclei that changed to a type of a special head.

    Raises
    ------
    KeyError
        If predictions are missing; with `keep_earlier`, if there was no earlier call.
    ValueError
        If a type is not known, fewer than two are given, `toward` is none of them, or `strength` is negative; if
        `model` has no special heads, or the predictions are not of it.

    Examples
    --------
    >>> import pandas as pd
    >>> nuclei, types = train[:4].copy(), ["lymphoid", "plasma"]
    >>> nuclei.obsm["hist2scrna_cell_type_probability"] = pd.DataFrame([[0.55, 0.45]] * 4, nuclei.obs_names, types)
    >>> nuclei.obsm["hist2scrna_composition"] = pd.DataFrame([[0.5, 0.5]] * 4, nuclei.obs_names, types)
    >>> nuclei.obs["hist2scrna_tile"] = 0
    >>> nuclei = h2s.tl.refine_types(nuclei, types, strength=4.0)
    >>> "plasma" in set(nuclei.obs["hist2scrna_refined_cell_type"])
    True
    """
    require_adata(adata)
    names = keys.OutputKeys(key)
    require_key(adata.obsm, names.composition, "adata.obsm", HINT)
    require_key(adata.obs, names.tile, "adata.obs", HINT)
    probability, composition = (
        adata.obsm[slot].to_numpy(dtype=np.float64) for slot in (names.cell_type_probability, names.composition)
    )
    classes = [str(name) for name in adata.obsm[names.composition].columns]
    sure = ({"T": 0.6} if "T" in types and toward is None else {}) if sure is None else sure
    for name in (*types, *sure):
        require_known("cell type", name, classes)
    if len(set(types)) < 2 or not strength >= 0:
        raise ValueError(
            f"Expected two or more `types` and a `strength` of 0 or more, found {list(types)} and {strength}."
        )
    if toward is not None:
        require_known("type in `toward`", toward, types)
    numbers = [classes.index(name) for name in dict.fromkeys(types)]
    thresholds = {classes.index(name): threshold for name, threshold in sure.items()}
    rng = np.random.default_rng(seed)
    known = np.isfinite(probability).all(axis=1)
    predicted = np.flatnonzero(known)
    before = np.where(known, probability.argmax(axis=1), -1)
    refined = before.copy()
    if keep_earlier:
        require_key(
            adata.obs, names.refined_cell_type, "adata.obs", "It is what an earlier call of this function left."
        )
        earlier = pd.Index(classes).get_indexer(adata.obs[names.refined_cell_type].astype(object))
        refined = np.where(np.isin(before, numbers), before, earlier)
    tile = adata.obs[names.tile].to_numpy()[predicted]
    for number in np.unique(tile):
        rows = predicted[tile == number]
        candidates = candidates_of(probability[rows], numbers, thresholds)
        noise = rng.normal(size=(len(candidates), len(numbers)))
        gaining = None if toward is None else classes.index(toward)
        found = refine_tile(probability[rows], composition[rows[0]], numbers, candidates, noise, strength, gaining)
        refined[rows[candidates]] = found[candidates]
    expression = None if model is None else refined_mean(adata, as_fitted(model), names, before, refined)
    column = pd.Categorical.from_codes(refined, categories=pd.Index(classes)).remove_unused_categories()
    adata.obs[names.refined_cell_type] = column
    adata.layers.pop(names.refined_mean, None)
    if expression is not None:
        adata.layers[names.refined_mean] = expression
    return adata
