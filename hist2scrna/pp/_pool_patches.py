"""From patches to slides: one observation a slide, with mean features and its expression."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from hist2scrna import __version__, keys
from hist2scrna.messages import arguments_known, require_key
from hist2scrna.pp._bulk import match_slides, read_bulk
from hist2scrna.pp._extract_features import extract_features
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.features import read_features
from hist2scrna.spots.sections import read_sections

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from hist2scrna.encoders import Encoder

log = logging.getLogger(__name__)

BULK = "bulk"
PSEUDOBULK = "pseudobulk"
NONE = "none"


@arguments_known
def pool_patches(
    adata: ad.AnnData,
    features_key: str | None = None,
    *,
    by: str = keys.LIBRARY,
    bulk: ad.AnnData | pd.DataFrame | str | Path | None = None,
    encoder: str | nn.Module | Callable[[Tensor], Tensor] | Encoder | None = None,
    layer: str | None = None,
    inner: bool = False,
    weight_key: str | None = None,
    max_patches: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> ad.AnnData:
    """Make one observation of each slide: the mean of the features of its patches, and its expression.

    This is what `model="hist2rna"` reads; `ridge` and `kernel` read it too. A slide may also be a donor or a region:
    whatever the column `by` tells apart.

    Parameters
    ----------
    adata
        Patches or spots, one a row, with features in `.obsm[features_key]`, or with images and coordinates. Slides
        without spots come from :func:`tissue_grid`, joined by :func:`hist2scrna.io.concat`. It is not changed.
    features_key
        Key of `.obsm` with the features; None: they are extracted by `encoder`.
    by
        Column of `.obs` with the slide (patient, donor, region) of each row.
    bulk
        Measured expression of the slides, named as these, in any unit that is not a logarithm: AnnData, a data frame
        (slides x genes), or a file (`.csv`, `.tsv`, `.h5ad`). None: the pseudobulk, which is the sum of the counts of
        all rows of a slide, where `adata` has counts; else no expression, for prediction.
    encoder
        What extracts the features, where `features_key` is None; see :func:`extract_features`, which you call first if
        you need its other arguments. None: `"imagenet"`.
    layer
        Layer of `bulk` if that is AnnData, else of `adata`; None: `.X`.
    inner
        Keep the slides that are both in `adata` and in `bulk`. False: a slide without bulk, and bulk of a slide that
        is not there, are errors.
    weight_key
        Column of `.obs` with the weight of each row in the mean of its slide, such as `"tissue_fraction"`; None: all
        weigh the same.
    max_patches
        Most rows of a slide whose features are averaged, drawn at random; None: all. The pseudobulk is that of all.
    seed
        Of the draw.
    progress
        Show a progress bar while features are extracted.

    Returns
    -------
    A new AnnData, one row a slide, named by it:

    `.X` : float32 (n_slides, n_genes)
        Expression: rows of `bulk`, else the pseudobulk, else None.
    `.obsm[features_key]` : float32 (n_slides, d)
        Mean features.
    `.obs["n_patches"]` : int
        How many rows were averaged. Also kept is every column of `adata.obs` that is constant within each slide.
    `.uns["pooled"]` : dict
        `by`, `features_key`, `expression` (`"bulk"`, `"pseudobulk"` or `"none"`), `weight_key`, `max_patches`, `seed`
        and `version`. It marks the rows as slides, which need no coordinates.
    `.uns["spatial"]`, `.uns[features_key]`
        As in `adata`: images of the slides, and what the features are.

    Raises
    ------
    KeyError
        If a key is missing.
    FileNotFoundError
        If there is no file `bulk`.
    ValueError
        If names do not agree or repeat, a row is of no slide, or values are not finite or negative.

    Examples
    --------
    >>> h2s.pp.extract_features(train, "morphology", progress=False)
    >>> slides = h2s.pp.pool_patches(train, features_key="X_morphology")
    >>> slides.shape
    (2, 12)
    """
    if features_key is not None and encoder is not None:
        raise ValueError(f"Features are read from {features_key!r} or extracted by `encoder`: pass one of the two.")
    if max_patches is not None and max_patches < 1:
        raise ValueError(f"Expected `max_patches` to be at least 1, found {max_patches}.")
    require_key(adata.obs, by, "adata.obs", "`by` names the column with the slide of each row.")
    slides, code = read_sections(adata, by)
    table = None if bulk is None else read_bulk(bulk, layer)
    kept = list(slides) if table is None else match_slides(slides, table, inner=inner)
    weights = _weights(adata, weight_key)
    expression, var, source = _expression(adata, slides, code, layer) if table is None else (None, None, BULK)
    if features_key is None:
        adata, features_key = _extracted(adata, encoder, progress)
    features = read_features(adata, features_key)
    pooled, n_patches = _pooled(features, code, slides, weights, max_patches, np.random.default_rng(seed))
    rows = [slides.index(name) for name in kept]
    if table is not None:
        expression, var = table.loc[kept].to_numpy(), pd.DataFrame(index=table.columns)
    elif expression is not None:
        expression = expression[rows]
    log.info("%d slides from %d patches, expression: %s", len(kept), int(n_patches[rows].sum()), source)
    description = {"by": by, "features_key": features_key, "expression": source, "seed": seed, "version": __version__}
    description |= {k: v for k, v in (("weight_key", weight_key), ("max_patches", max_patches)) if v is not None}
    return ad.AnnData(
        X=expression,
        obs=_observations(adata, slides, code, n_patches).iloc[rows],
        var=var,
        obsm={features_key: pooled[rows]},
        uns={**{k: adata.uns[k] for k in (keys.SPATIAL, features_key) if k in adata.uns}, keys.POOLED: description},
    )


def _extracted(adata: ad.AnnData, encoder: Any, progress: bool) -> tuple[ad.AnnData, str]:
    """Return an AnnData with features, which shares all else with `adata`, and their key."""
    require_key(adata.obsm, keys.SPATIAL, "adata.obsm", "Without coordinates, pass features_key=.")
    view = ad.AnnData(obs=adata.obs, obsm={keys.SPATIAL: adata.obsm[keys.SPATIAL]}, uns=dict(adata.uns))
    extract_features(view, **({} if encoder is None else {"encoder": encoder}), progress=progress)
    (key,) = set(view.obsm) - {keys.SPATIAL}
    return view, key


def _expression(
    adata: ad.AnnData, slides: tuple[str, ...], code: NDArray[np.int64], layer: str | None
) -> tuple[NDArray[np.float32] | None, pd.DataFrame | None, str]:
    """Return the sum of the counts by slide, the genes, and what it is; None where there are no counts."""
    if layer is None and (adata.X is None or adata.n_vars == 0):
        return None, None, NONE
    counts = read_counts(adata, choose_genes(adata, None), layer)
    return (
        (_by_slide(code, len(slides)) @ counts.astype(np.float64)).toarray().astype(np.float32),
        adata.var,
        PSEUDOBULK,
    )


def _by_slide(code: NDArray[np.int64], n_slides: int) -> sparse.csr_array:
    """Return the matrix that adds up rows by slide."""
    return sparse.csr_array((np.ones(len(code)), (code, np.arange(len(code)))), shape=(n_slides, len(code)))


def _weights(adata: ad.AnnData, weight_key: str | None) -> NDArray[np.float64]:
    if weight_key is None:
        return np.ones(adata.n_obs)
    require_key(adata.obs, weight_key, "adata.obs")
    weights = pd.to_numeric(adata.obs[weight_key], errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any():
        raise ValueError(
            f"Expected adata.obs[{weight_key!r}] to hold weights of 0 or more, found {int(wrong.sum())} other values "
            f"(the first of {adata.obs_names[wrong][0]!r})."
        )
    return weights


def _pooled(
    features: NDArray[np.float32],
    code: NDArray[np.int64],
    slides: tuple[str, ...],
    weights: NDArray[np.float64],
    most: int | None,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the weighted mean of the features of each slide, and how many rows it is of."""
    pooled = np.zeros((len(slides), features.shape[1]), dtype=np.float32)
    n_patches = np.zeros(len(slides), dtype=np.int64)
    for number, name in enumerate(slides):
        rows = np.flatnonzero((code == number) & (weights > 0))
        if len(rows) == 0:
            raise ValueError(f"All patches of slide {name!r} have weight 0, so they have no mean.")
        if most is not None and len(rows) > most:
            rows = np.sort(rng.choice(rows, most, replace=False))
        pooled[number] = np.average(features[rows], axis=0, weights=weights[rows])
        n_patches[number] = len(rows)
    return pooled, n_patches


def _observations(
    adata: ad.AnnData, slides: tuple[str, ...], code: NDArray[np.int64], n_patches: NDArray[np.int64]
) -> pd.DataFrame:
    """Return the columns that are constant within each slide, and the number of patches."""
    first = np.array([np.flatnonzero(code == number)[0] for number in range(len(slides))])
    obs = pd.DataFrame(index=pd.Index(slides))
    for name, column in adata.obs.items():
        values = pd.factorize(column)[0]
        if (values == values[first][code]).all():
            chosen = column.iloc[first].set_axis(obs.index)
            categorical = isinstance(column.dtype, pd.CategoricalDtype)
            obs[name] = chosen.cat.remove_unused_categories() if categorical else chosen
    return obs.assign(**{keys.N_PATCHES: n_patches})
