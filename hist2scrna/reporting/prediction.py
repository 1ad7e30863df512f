"""The numbers of a prediction without a truth: what was predicted in each section, and how far to rely on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.messages import require_adata, require_key
from hist2scrna.spots.sections import read_sections
from hist2scrna.spots.source import resolve_library_key

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

# Rows of a layer that are read at once.
BLOCK = 2048
N_GENES = 20


@dataclass(frozen=True)
class PredictedSection:
    """A section of a prediction.

    Attributes
    ----------
    name
        Its name.
    rows
        Numbers of its spots that have a prediction.
    n_left_out
        Spots without one: off the tissue, or cells without a nucleus.
    columns
        Values of each of `rows` that can be drawn: `library_size`, `tissue_distance` and `cell_type_confidence` as far
        as they were written, and `uncertainty` (:func:`relative_uncertainty`).
    cell_type
        Predicted type of each of `rows`; None: the model has none.
    unlike
        Whether each of `rows` is unlike the training; None: the model does not tell.
    genes
        The genes that vary most over the section, the first most of all: `mean` (mean of the layer `mean`), `spread`
        (standard deviation of log-normalized expression) and, with cell types, `highest_in`.
    """

    name: str
    rows: NDArray[np.int64]
    n_left_out: int
    columns: dict[str, NDArray[np.float64]]
    cell_type: pd.Series | None
    unlike: NDArray[np.bool_] | None
    genes: pd.DataFrame


def predicted_sections(adata: AnnData, key: str) -> tuple[dict[str, Any], list[PredictedSection]]:
    """Return what `.uns` says of a prediction, and its sections.

    Raises
    ------
    KeyError
        If there is no prediction under `key`.
    TypeError
        If it is no AnnData.
    ValueError
        If no spot has a prediction.
    """
    require_adata(adata)
    names = keys.OutputKeys(key)
    others = keys.prediction_keys(adata.uns, adata.layers)
    hint = f"Pass key=, one of {others}." if others else "Call tl.predict(adata, model) first."
    require_key(adata.uns, names.parameters, "adata.uns", hint)
    require_key(adata.layers, names.layer("mean"), "adata.layers", "A report reads it; predict with layer 'mean'.")
    about = dict(adata.uns[names.parameters])
    if about.get("observation") == "slide":
        sections: tuple[str, ...] = ("slides",)
        codes = np.zeros(adata.n_obs, dtype=np.int64)
    else:
        sections, codes = read_sections(adata, library_key_of(adata, about))
    there = np.concatenate([np.isfinite(block).any(axis=1) for _, block in _blocks(adata, names, "mean")])
    if not there.any():
        raise ValueError(f"No spot has a prediction in adata.layers[{names.layer('mean')!r}]: all values are NaN.")
    found = []
    for code, name in enumerate(sections):
        own = np.flatnonzero(codes == code)
        if there[own].any():
            found.append(_section(adata, names, about, name, own[there[own]], int((~there[own]).sum())))
    return about, found


def library_key_of(adata: AnnData, about: dict[str, Any]) -> str | None:
    """Return the column of `.obs` that tells the sections apart: that of the fit where it is there."""
    named = about.get("params", {}).get("library_key")
    return resolve_library_key(adata, named if named in adata.obs else None)


def _section(
    adata: AnnData, names: keys.OutputKeys, about: dict[str, Any], name: str, rows: NDArray[np.int64], n_left_out: int
) -> PredictedSection:
    columns = {
        column: adata.obs[slot].to_numpy(dtype=np.float64)[rows]
        for column, slot in {
            "library_size": names.library_size,
            "tissue_distance": names.tissue_distance,
            "cell_type_confidence": names.cell_type_confidence,
        }.items()
        if slot in adata.obs
    }
    uncertainty = relative_uncertainty(adata, names, about, rows)
    types = adata.obs[names.cell_type].iloc[rows].astype("category") if names.cell_type in adata.obs else None
    unlike = None
    if names.unlike_training in adata.obs:
        unlike = (adata.obs[names.unlike_training].iloc[rows] == keys.TISSUE[1]).to_numpy()
    return PredictedSection(
        name,
        rows,
        n_left_out,
        columns if uncertainty is None else {**columns, "uncertainty": uncertainty},
        types,
        unlike,
        _genes(adata, names, rows, types),
    )


def relative_uncertainty(
    adata: AnnData, names: keys.OutputKeys, about: dict[str, Any], rows: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Return the predicted standard deviation of a count over its mean, the median of the genes, of each spot.

    It is read from the layer `uncertainty`, else follows from mean, dropout and dispersion: of a zero-inflated negative
    binomial the variance is `m (1 + m (pi + 1 / theta) / (1 - pi))` at the mean m.

    Returns
    -------
    `(len(rows),)`; None if the prediction is no distribution, or its dispersion was not written.
    """
    if about.get("likelihood") == "mse" or about.get("scale") != "counts":
        return None
    stored = names.layer("uncertainty") in adata.layers
    over = np.zeros(adata.n_vars)
    if not stored and about["likelihood"] != "poisson":
        if names.dispersion not in adata.var:
            return None
        over = 1 / adata.var[names.dispersion].to_numpy(dtype=np.float64)
    found = []
    for part, mean in _blocks(adata, names, "mean", rows):
        if stored:
            deviation = _dense(adata.layers[names.layer("uncertainty")], part)
        else:
            zero = names.layer("dropout")
            dropout = _dense(adata.layers[zero], part) if zero in adata.layers else np.zeros_like(mean)
            deviation = np.sqrt(mean * (1 + mean * (dropout + over) / (1 - dropout)))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(mean > 0, deviation / mean, np.nan)
        found.append(np.nanmedian(ratio, axis=1))
    return np.concatenate(found)


def _genes(adata: AnnData, names: keys.OutputKeys, rows: NDArray[np.int64], types: pd.Series | None) -> pd.DataFrame:
    """Return the table of genes of a section, the most varying ones."""
    layer = "log_normalized" if names.layer("log_normalized") in adata.layers else "mean"
    codes = np.zeros(len(rows), dtype=np.int64) if types is None else types.cat.codes.to_numpy()
    kinds = ["all"] if types is None else list(types.cat.categories)
    total, square = np.zeros(adata.n_vars), np.zeros(adata.n_vars)
    by_kind, level = np.zeros((len(kinds), adata.n_vars)), np.zeros(adata.n_vars)
    first, start = None, 0
    for part, values in _blocks(adata, names, layer, rows):
        # Shifted by the first spot, so that a large mean takes no digits from a small variance.
        first = values[0] if first is None else first
        total += (values - first).sum(axis=0)
        square += ((values - first) ** 2).sum(axis=0)
        level += _dense(adata.layers[names.layer("mean")], part).sum(axis=0)
        for kind in range(len(kinds)):
            by_kind[kind] += values[codes[start : start + len(part)] == kind].sum(axis=0)
        start += len(part)
    spread = np.sqrt(np.maximum(square / len(rows) - (total / len(rows)) ** 2, 0))
    table = pd.DataFrame({"mean": level / len(rows), "spread": spread}, index=adata.var_names)
    if types is not None:
        number = np.bincount(codes[codes >= 0], minlength=len(kinds))[:, None]
        table["highest_in"] = np.array(kinds, dtype=object)[(by_kind / np.maximum(number, 1)).argmax(axis=0)]
    return table[np.isfinite(spread)].sort_values("spread", ascending=False, kind="stable").head(N_GENES)


def _blocks(
    adata: AnnData, names: keys.OutputKeys, layer: str, rows: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield the rows of a layer in blocks, as their numbers and values."""
    rows = np.arange(adata.n_obs) if rows is None else rows
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        yield part, _dense(adata.layers[names.layer(layer)], part)


def _dense(layer: Any, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    values = layer[rows]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
