"""Join sections with their images, graphs and metadata."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import anndata as ad
import pandas as pd

from hist2scrna import keys
from hist2scrna.evaluation.plain import plain
from hist2scrna.messages import listed, warn_user

log = logging.getLogger(__name__)


def concat(
    adatas: Sequence[ad.AnnData] | Mapping[str, ad.AnnData],
    *,
    library_key: str = keys.LIBRARY,
    join: Literal["inner", "outer"] = "inner",
) -> ad.AnnData:
    """Join sections into one AnnData that keeps their images, graphs and names apart.

    By default, :func:`anndata.concat` drops `.uns` and `.obsp`, and two sections with the same name would share an
    image. Predictions under one key should be of one model: where they are not, a warning names the models.

    Parameters
    ----------
    adatas
        The sections, each with one or more libraries. Or a dictionary by new names, each of one library, which is
        renamed: for sections that were given the same name.
    library_key
        Column of `.obs` that tells the section of each spot, as named in `.uns["spatial"]`. Where it is missing and
        there is one library, it is filled in.
    join
        Genes of the result: those that all have (`"inner"`), or any has (`"outer"`, with zero where one has not).

    Returns
    -------
    A new AnnData:

    - `.obs[library_key]`: categorical, in the order of `adatas`; `.obs_names` unique: where names repeat between
      sections, `-{library}` is appended to these names.
    - `.uns["spatial"]`: all libraries, their images not copied; the colors of categories; other entries of `.uns` where
      they do not contradict each other.
    - `.obsp`: block-diagonal; a matrix that one of them lacks is left out, with a warning.

    The inputs are not changed.

    Raises
    ------
    KeyError
        If a section has neither `library_key` nor a library.
    ValueError
        If there is nothing to join, two sections have the same name, a name is not in `.uns["spatial"]`, or
        `.obs_names` repeat within a section.

    Warns
    -----
    UserWarning
        If a matrix of `.obsp` is left out, or predictions under one key are of several models.

    Examples
    --------
    >>> h2s.io.concat([train, test]).shape
    (90, 12)
    """
    if not adatas:
        raise ValueError("No section to join: `adatas` is empty.")
    if isinstance(adatas, Mapping):
        parts = [_renamed(adata, str(name), library_key) for name, adata in adatas.items()]
    else:
        parts = [_named(adata, i, library_key) for i, adata in enumerate(adatas)]
    names = [str(c) for part in parts for c in part.obs[library_key].cat.categories]
    libraries = [name for part in parts for name in part.uns.get(keys.SPATIAL, {})]
    repeated = [name for repeatable in (names, libraries) for name, n in Counter(repeatable).items() if n > 1]
    if repeated:
        raise ValueError(
            f"Section {repeated[0]!r} occurs in more than one of `adatas`: its spots and images could not be "
            "distinguished. Pass a dictionary of AnnData by new names."
        )
    _make_unique(parts, library_key)
    _warn_of_several_models(parts, library_key)
    for key in dict.fromkeys(key for part in parts for key in part.obsp):
        lacking = sum(key not in part.obsp for part in parts)
        if lacking:
            warn_user(f".obsp[{key!r}] is left out: {lacking} of {len(parts)} sections have none.")
    joined = ad.concat(parts, join=join, merge="same", uns_merge="unique", pairwise=True, fill_value=0)
    joined.obs[library_key] = pd.Categorical(joined.obs[library_key].astype(str), categories=names)
    _keep_colors(joined, parts)
    lost = sorted({key for part in parts for key in part.uns} - set(joined.uns))
    if lost:
        log.info("entries of .uns that differ between sections are left out: %s", lost)
    return joined


def _keep_colors(joined: ad.AnnData, parts: Sequence[ad.AnnData]) -> None:
    """Keep the colors of categories, where Scanpy has them, if each category has one in some section."""
    for column in joined.obs.select_dtypes("category"):
        key = f"{column}_colors"
        colors: dict[str, str] = {}
        for part in parts:
            if key in part.uns and column in part.obs:
                colors = dict(zip(part.obs[column].cat.categories, part.uns[key], strict=False)) | colors
        joined.uns.pop(key, None)
        if colors and set(joined.obs[column].cat.categories) <= set(colors):
            joined.uns[key] = [colors[name] for name in joined.obs[column].cat.categories]


def _warn_of_several_models(parts: Sequence[ad.AnnData], library_key: str) -> None:
    """Warn where predictions under one key differ in more than the graph, which is each section's own."""
    by_key: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for part in parts:
        sections = listed([str(name) for name in part.obs[library_key].cat.categories])
        for key in keys.prediction_keys(part.uns, part.layers):
            by_key.setdefault(key, []).append((sections, plain(part.uns[key])))
    for key, predictions in by_key.items():
        fields = dict.fromkeys(field for _, facts in predictions for field in facts if field != "graph")
        first = predictions[0][1]
        differing = [f for f in fields if any(facts.get(f) != first.get(f) for _, facts in predictions)]
        if differing:
            which = "; ".join(
                f"{sections} by {facts['model']!r}, trained on {listed(facts.get('trained_on', ['unknown sections']))}"
                for sections, facts in predictions
            )
            warn_user(
                f"The predictions under {key!r} are not of one model ({which}): they differ in {', '.join(differing)}. "
                f"They are joined, and .uns[{key!r}] keeps what they have in common. Predict all sections with one "
                "model, or each model under its own key_added=."
            )


def _shallow(adata: ad.AnnData) -> ad.AnnData:
    """Return an AnnData of its own that shares all arrays; tables have the names of its spots, and are copied."""
    return ad.AnnData(
        X=adata.X,
        obs=adata.obs.copy(),
        var=adata.var,
        layers=dict(adata.layers),
        obsm={key: value.copy() if isinstance(value, pd.DataFrame) else value for key, value in adata.obsm.items()},
        varm=dict(adata.varm),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
        uns=dict(adata.uns),
    )


def _named(adata: ad.AnnData, number: int, library_key: str) -> ad.AnnData:
    libraries = list(adata.uns.get(keys.SPATIAL, {}))
    part = _shallow(adata)
    if library_key not in part.obs:
        if len(libraries) != 1:
            raise KeyError(
                f"Key {library_key!r} not found in .obs of section {number}, and its .uns['{keys.SPATIAL}'] holds "
                f"{len(libraries)} libraries: {libraries}. Write the name of the section of each spot there."
            )
        part.obs[library_key] = libraries[0]
    column = part.obs[library_key].astype("category").cat.remove_unused_categories()
    part.obs[library_key] = column.cat.rename_categories([str(c) for c in column.cat.categories])
    unknown = [c for c in part.obs[library_key].cat.categories if libraries and c not in libraries]
    if unknown:
        raise ValueError(
            f".obs[{library_key!r}] of section {number} names {unknown}, but its .uns['{keys.SPATIAL}'] holds "
            f"{libraries}. Make the names agree."
        )
    return part


def _renamed(adata: ad.AnnData, name: str, library_key: str) -> ad.AnnData:
    libraries = adata.uns.get(keys.SPATIAL, {})
    several = library_key in adata.obs and adata.obs[library_key].nunique() > 1
    if len(libraries) > 1 or several:
        raise ValueError(f"{name!r} holds more than one library: only single ones can be renamed. Pass a list.")
    part = _shallow(adata)
    part.obs[library_key] = pd.Categorical([name] * part.n_obs)
    if libraries:
        part.uns[keys.SPATIAL] = {name: next(iter(libraries.values()))}
    return part


def _make_unique(parts: Sequence[ad.AnnData], library_key: str) -> None:
    """Append the section to names that occur in more than one part."""
    count: Counter[str] = Counter()
    for i, part in enumerate(parts):
        if not part.obs_names.is_unique:
            raise ValueError(f".obs_names repeat within section {i}. Call obs_names_make_unique() on it first.")
        count.update(part.obs_names)
    for part in parts:
        names = zip(part.obs_names, part.obs[library_key], strict=True)
        part.obs_names = pd.Index([f"{name}-{library}" if count[name] > 1 else name for name, library in names])
    everything = Counter(name for part in parts for name in part.obs_names)
    repeated = next((name for name, n in everything.items() if n > 1), None)
    if repeated is not None:
        raise ValueError(f"Spot {repeated!r} would occur twice in .obs_names. Rename the spots of one section.")
