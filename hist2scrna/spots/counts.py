"""Counts and genes from AnnData, checked before anything is trained or scored on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from hist2scrna.messages import listed, require_key
from hist2scrna.spots.gene_names import hint_of_names
from hist2scrna.stored import require_sound_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

# Kinds of NumPy's types: whole numbers, floating-point numbers, true and false.
NUMBERS = "iufb"
FIRST_ROWS = 200
# Above, float32, in which models compute, does not hold every whole number.
LARGEST_COUNT = 2**24


def choose_genes(adata: AnnData, genes: Sequence[str] | str | None) -> list[str]:
    """Return gene names: those given, those marked in a boolean column of `.var`, or all.

    Raises
    ------
    KeyError
        If a name is not in `.var_names`, or the column not in `.var`.
    ValueError
        If names repeat, the column is not boolean, or none is left.
    """
    if isinstance(genes, str):
        require_key(adata.var, genes, "adata.var")
        if not pd.api.types.is_bool_dtype(adata.var[genes]):
            raise ValueError(f"Expected adata.var[{genes!r}] to be boolean, found {adata.var[genes].dtype}.")
        chosen = list(adata.var_names[adata.var[genes].to_numpy(dtype=bool)])
    else:
        if genes is not None and not isinstance(genes, Iterable):
            raise ValueError(f"Expected `genes` to be names, a boolean column of adata.var or None, found {genes!r}.")
        chosen = [str(g) for g in (adata.var_names if genes is None else genes)]
    if not chosen:
        raise ValueError("No gene to model: `genes` selects none of adata.var_names.")
    repeated = pd.Index(chosen)[pd.Index(chosen).duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"{len(repeated)} gene names occur more than once, for example {list(repeated[:3])}. "
            "Call adata.var_names_make_unique(), or name each gene once in `genes`."
        )
    missing = [g for g in chosen if g not in adata.var_names]
    if missing:
        raise KeyError(
            f"{len(missing)} of {len(chosen)} genes not found in adata.var_names: {listed(missing, 20)}. "
            f"adata.var_names begins with {list(adata.var_names[:3])}.{hint_of_names(adata, missing)}"
        )
    if not adata.var_names.is_unique:
        raise ValueError(
            "adata.var_names repeat, so genes cannot be selected by name. Call adata.var_names_make_unique()."
        )
    return chosen


def read_counts(adata: AnnData, genes: Sequence[str], layer: str | None, *, whole: bool = True) -> sparse.csr_array:
    """Return the counts of `genes`, `(n, G)` CSR float32, from `.X` or a layer.

    Parameters
    ----------
    adata, genes, layer
        Annotated data, names of genes, and the layer; None: `.X`.
    whole
        Refuse values that are not whole numbers; False: expression in any unit is taken.

    Raises
    ------
    KeyError
        If the layer is missing.
    ValueError
        If there is no matrix, or a value is no number, not a non-negative whole number, or above 2^24.
    """
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    if layer is not None:
        require_key(adata.layers, layer, "adata.layers")
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(f"{where} is empty, but counts are needed here. {_way_to_counts(adata, layer)}.")
    require_sound_matrix(matrix, where)
    columns = adata.var_names.get_indexer(pd.Index(genes))
    # A large matrix is not copied where nothing of it changes: it is only read.
    own = sparse.issparse(matrix) and matrix.format == "csr" and np.array_equal(columns, np.arange(matrix.shape[1]))
    chosen = matrix if own else matrix[:, columns]
    if hasattr(chosen, "to_memory"):
        chosen = chosen.to_memory()
    if np.dtype(chosen.dtype).kind not in NUMBERS:
        convert = "" if np.dtype(chosen.dtype).kind == "c" else f" Convert them: {where} = {where}.astype(float)."
        raise ValueError(f"Expected {where} to hold counts, found values of type {chosen.dtype}.{convert}")
    # SciPy has no sparse matrix of float16.
    counts = sparse.csr_array(chosen.astype(np.float32) if chosen.dtype == np.float16 else chosen)
    if not counts.data.all():
        counts = counts.copy() if own else counts
        counts.eliminate_zeros()
    wrong = _wrong_values(counts.data, whole)
    if wrong is not None:
        raise ValueError(
            f"Expected {where} to hold counts, found {wrong}. {_way_to_counts(adata, layer)}; normalized or scaled "
            "values have lost the depth that a count model needs."
        )
    if len(counts.data) and counts.data.max() > LARGEST_COUNT:
        spot, gene = (int(i[counts.data.argmax()]) for i in sparse.coo_array(counts).coords)
        raise ValueError(
            f"{where} holds a count of {counts.data.max():.10g}, of gene {genes[gene]!r} in {adata.obs_names[spot]!r}: "
            f"above 2^24 = {LARGEST_COUNT}, digits are lost. Leave out this gene or spot."
        )
    return counts.astype(np.float32, copy=False)


def _wrong_values(values: NDArray[Any], whole: bool) -> str | None:
    """Return what about values keeps them from being counts; None where nothing does."""
    if not np.isfinite(values).all():
        return f"{int((~np.isfinite(values)).sum())} values that are NaN or infinite"
    if (values < 0).any():
        return f"negative values (the smallest is {values.min():.4g})"
    if whole and (values != np.round(values)).any():
        return f"values that are not whole numbers (for example {values[values != np.round(values)][0]:.4g})"
    return None


def _way_to_counts(adata: AnnData, layer: str | None) -> str:
    """Return what to do where a matrix holds no counts: the layers that are there, or the counts in `.raw`."""
    others = [name for name in adata.layers if name != layer and _are_counts(adata.layers[name])]
    if adata.raw is not None and _are_counts(adata.raw.X):
        both = (
            ""
            if adata.var_names.isin(adata.raw.var_names).all()
            else ("adata = adata[:, adata.var_names.isin(adata.raw.var_names)].copy(); ")
        )
        return (
            f"Counts are in adata.raw: {both}adata.layers['counts'] = adata.raw[:, adata.var_names].X, then pass "
            "layer='counts'"
        )
    return f"Pass layer= with the raw counts (whole numbers: {others})" if others else "Give raw counts"


def _are_counts(matrix: Any) -> bool:
    """Tell whether the first rows of a matrix are whole and not negative."""
    head = matrix[:FIRST_ROWS]
    values = np.asarray((head.to_memory() if hasattr(head, "to_memory") else sparse.csr_array(head)).data)
    if values.dtype.kind not in NUMBERS:
        return False
    return bool(
        values.size and np.isfinite(values).all() and (values >= 0).all() and (values == np.round(values)).all()
    )
