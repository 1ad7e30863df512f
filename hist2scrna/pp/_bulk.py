"""Bulk expression of slides: a table with one row a slide, checked and matched to slides by name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from hist2scrna.stored import read_anndata

SHOWN = 5
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def read_bulk(bulk: ad.AnnData | pd.DataFrame | str | Path, layer: str | None) -> pd.DataFrame:
    """Return bulk expression as a data frame of numbers, slides x genes, float32.

    Parameters
    ----------
    bulk
        AnnData, a data frame, or a file: `.h5ad`, `.csv`, `.tsv` or `.txt` (tabs), of which the first column names the
        slides and the first line the genes.
    layer
        Layer of an AnnData; None: `.X`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If the layer is missing.
    TypeError
        If it is none of these.
    ValueError
        If names repeat, or values are no numbers, not finite or negative.
    """
    table = _as_table(bulk, layer)
    for names, what in ((table.index, "slides"), (table.columns, "genes")):
        repeated = names[names.duplicated()].unique()
        if len(repeated):
            raise ValueError(
                f"{len(repeated)} names of {what} occur more than once in `bulk`: {shown(repeated)}. Keep one row a "
                "slide and one column a gene."
            )
    text = [str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    if text:
        raise ValueError(
            f"{len(text)} columns of `bulk` hold text instead of expression: {shown(text)}. Drop them, or move them to "
            "adata.obs."
        )
    values = table.to_numpy(dtype=np.float64)
    for wrong, what in ((~np.isfinite(values), "that are missing or infinite"), (values < 0, "below zero")):
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{int(wrong.sum())} values of `bulk` are {what.removeprefix('that are ')} (the first of slide "
                f"{table.index[row]!r}, gene {table.columns[column]!r}). Give expression before taking logarithms, and "
                "drop or fill in what was not measured."
            )
    return pd.DataFrame(values.astype(np.float32), index=table.index, columns=table.columns)


def match_slides(slides: Sequence[str], bulk: pd.DataFrame, *, inner: bool) -> list[str]:
    """Return the slides that have bulk expression, in the order of `slides`.

    Raises
    ------
    ValueError
        If some have none, or bulk is of slides that are not there, unless `inner`; or if no name agrees.
    """
    measured = [name for name in slides if name in bulk.index]
    without = [name for name in slides if name not in bulk.index]
    unknown = [name for name in bulk.index if name not in set(slides)]
    if not measured:
        turned = sum(name in bulk.columns for name in slides)
        hint = " Slides are its columns: pass bulk.T." if turned else _nearest(without, bulk.index)
        raise ValueError(
            f"None of the {len(slides)} slides has bulk expression: they are called {shown(slides)}, the rows of "
            f"`bulk` {shown(bulk.index)}.{hint}"
        )
    if inner or not (without or unknown):
        return measured
    parts = [f"{len(without)} slides have no row in `bulk`: {shown(without)}."] if without else []
    parts += [f"{len(unknown)} rows of `bulk` are of no slide in adata: {shown(unknown)}."] if unknown else []
    hint = _nearest(without, unknown)
    raise ValueError(f"{' '.join(parts)}{hint} Make the names agree, or pass inner=True to keep the slides in both.")


def shown(names: Sequence[Any]) -> str:
    """Return the first names of a list, and how many more there are."""
    first = [str(name) for name in names[:SHOWN]]
    return f"{first}" if len(names) <= SHOWN else f"{first} and {len(names) - SHOWN} more"


def _as_table(bulk: ad.AnnData | pd.DataFrame | str | Path, layer: str | None) -> pd.DataFrame:
    if isinstance(bulk, str | Path):
        bulk = _read_file(Path(bulk))
    if isinstance(bulk, ad.AnnData):
        if layer is not None and layer not in bulk.layers:
            raise KeyError(f"Layer {layer!r} not found in bulk.layers. Available layers: {list(bulk.layers)}.")
        if layer is None and bulk.X is None:
            raise ValueError(f"bulk.X is empty. Pass layer=, one of {list(bulk.layers)}.")
        table = bulk.to_df(layer)
    elif isinstance(bulk, pd.DataFrame):
        table = bulk.copy(deep=False)
    else:
        raise TypeError(f"Expected `bulk` to be AnnData, a data frame or a path, found {type(bulk).__name__}.")
    if table.shape[0] == 0 or table.shape[1] == 0:
        raise ValueError(f"`bulk` is empty: {table.shape[0]} slides, {table.shape[1]} genes.")
    table.index, table.columns = (pd.Index([str(name) for name in axis]) for axis in (table.index, table.columns))
    return table


def _read_file(path: Path) -> ad.AnnData | pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"`bulk` names '{path}', which is not there.")
    suffix = path.suffix.lower()
    if suffix == ".h5ad":
        return read_anndata(path)
    if suffix not in SEPARATORS:
        raise ValueError(f"Expected `bulk` to be a file of {['.h5ad', *SEPARATORS]}, found '{path.name}'.")
    # pandas would rename the second of two equal columns.
    header = pd.read_csv(path, sep=SEPARATORS[suffix], header=None, nrows=1, dtype=str).iloc[0, 1:]
    table = pd.read_csv(path, sep=SEPARATORS[suffix], index_col=0, dtype={0: str}, skipinitialspace=True)
    if len(header) == len(table.columns):
        table.columns = pd.Index(header.str.strip())
    return table


def _nearest(names: Sequence[str], choices: Sequence[str]) -> str:
    for name in names:
        near = get_close_matches(name, [str(choice) for choice in choices], n=1)
        if near:
            return f" The nearest to {name!r} is {near[0]!r}."
    return ""
