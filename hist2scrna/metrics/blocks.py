"""Tables of spots x genes, read in dense blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

# Spots x genes: a dense array, or a SciPy sparse matrix or array.
Table: TypeAlias = Any
Floats = NDArray[np.float64]

# 16 MB of float64: some ten such arrays are alive in each thread.
BLOCK_VALUES = 2_000_000


def blocks(n: int, width: int, values: int = BLOCK_VALUES) -> Iterator[slice]:
    """Cut `n` rows of `width` values into slices of about `values` values, at least one row each."""
    step = max(1, values // max(1, width))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def taken(table: Table, rows: NDArray[np.int64]) -> Any:
    """Return rows of a table: where these are all of them in their order itself, which may be large, and no copy."""
    return table if np.array_equal(rows, np.arange(table.shape[0])) else table[rows]


def dense(block: Any) -> Floats:
    """Return a block as a contiguous float64 array."""
    return np.ascontiguousarray(block.toarray() if sparse.issparse(block) else block, dtype=np.float64)


def as_table(table: Table, name: str) -> Any:
    """Return a two-dimensional array or a sparse matrix as it is; raise `ValueError` for anything else."""
    checked = table if sparse.issparse(table) else np.asarray(table)
    if checked.ndim != 2:
        raise ValueError(f"Expected `{name}` to be a table of spots x genes, found shape {checked.shape}.")
    return checked


def pairs(truth: Table, prediction: Table, axis: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield blocks of both tables with what is compared in rows: genes for `axis=0`, spots for `axis=1`.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is NaN or infinite.
    """
    tables = [as_table(truth, "truth"), as_table(prediction, "prediction")]
    shape = tables[0].shape
    if tables[1].shape != shape:
        raise ValueError(f"Expected `truth` and `prediction` to have one shape, found {shape} and {tables[1].shape}.")
    tables = [_sliceable(table, axis) for table in tables]
    for part in blocks(shape[1 - axis], shape[axis]):
        t, p = (dense(table[:, part].T if axis == 0 else table[part]) for table in tables)
        for name, block in (("truth", t), ("prediction", p)):
            if not np.isfinite(block).all():
                raise ValueError(f"Expected `{name}` to hold finite numbers, found NaN or infinite values.")
        yield t, p


def _sliceable(table: Any, axis: int) -> Any:
    if not sparse.issparse(table):
        return table
    return table.tocsc() if axis == 0 else table.tocsr()
