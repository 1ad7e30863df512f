"""Types of nuclei, changed towards the composition of their tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.messages import require_adata, require_key, require_known
from hist2scrna.models.ghist_refinement import candidates_of, refine_tile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

TYPES = ("B", "Myeloid", "T")
HINT = "Predict nuclei with a model on tiles that has cell types first: tl.predict(nuclei, model)."


def refine_types(
    adata: AnnData,
    types: Sequence[str] = TYPES,
    *,
    strength: float = 2.0,
    sure: Mapping[str, float] | None = None,
    key: str = keys.KEY_ADDED,
    seed: int = 0,
) -> AnnData:
    """Change types that are hard to tell apart in the image towards the estimated composition of their tile.

    GHIST does this at prediction, without a seed; here it is a step of its own. In each tile, a type of which the
    composition has more than the most probable types of its nuclei show gains, by noise, and the greatest sum of log
    probability and gain is the new type. Expression stays as it was predicted. A tile is made up of the nuclei that it
    predicts; in GHIST, of all that it shows.

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
    key
        Prefix of the predictions.
    seed
        Of the noise.

    Returns
    -------
    `adata`, with this field set:

    `.obs[f"{key}_refined_cell_type"]` : categorical
        The most probable type, or the one that it was exchanged for; missing where the nucleus was not predicted.

    Raises
    ------
    KeyError
        If predictions are missing.
    ValueError
        If a type is not known, fewer than two are given, or `strength` is negative.

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
    sure = ({"T": 0.6} if "T" in types else {}) if sure is None else sure
    for name in (*types, *sure):
        require_known("cell type", name, classes)
    if len(set(types)) < 2 or not strength >= 0:
        raise ValueError(
            f"Expected two or more `types` and a `strength` of 0 or more, found {list(types)} and {strength}."
        )
    numbers = [classes.index(name) for name in dict.fromkeys(types)]
    thresholds = {classes.index(name): threshold for name, threshold in sure.items()}
    rng = np.random.default_rng(seed)
    refined = np.full(adata.n_obs, -1)
    predicted = np.flatnonzero(np.isfinite(probability).all(axis=1))
    tile = adata.obs[names.tile].to_numpy()[predicted]
    for number in np.unique(tile):
        rows = predicted[tile == number]
        candidates = candidates_of(probability[rows], numbers, thresholds)
        noise = rng.normal(size=(len(candidates), len(numbers)))
        refined[rows] = refine_tile(probability[rows], composition[rows[0]], numbers, candidates, noise, strength)
    column = pd.Categorical.from_codes(refined, categories=pd.Index(classes)).remove_unused_categories()
    adata.obs[names.refined_cell_type] = column
    return adata
