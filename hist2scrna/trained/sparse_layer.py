"""A sparse layer whose rows come in any order: kept in a temporary file, and read again in theirs."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hist2scrna.metrics.blocks import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHUNK = 2**20
ENTRY = np.dtype([("column", "<i4"), ("value", "<f4")])


class SparseLayer:
    """Rows of a CSR matrix `(n, genes)`, float32; those that were never written are NaN, as in a dense layer.

    The file has no name and goes with the layer; `TMPDIR` chooses where it is.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.file = tempfile.TemporaryFile(prefix="hist2scrna-")
        self.start = np.zeros(shape[0], dtype=np.int64)
        self.length = np.full(shape[0], -1, dtype=np.int64)
        self.n_entries = 0

    def __setitem__(self, rows: NDArray[np.int64], block: NDArray[np.float32]) -> None:
        table = sparse.csr_array(block)
        entries = np.empty(table.nnz, dtype=ENTRY)
        entries["column"], entries["value"] = table.indices, table.data
        self.file.write(entries.tobytes())
        self.start[rows] = self.n_entries + table.indptr[:-1]
        self.length[rows] = np.diff(table.indptr)
        self.n_entries += table.nnz

    def complete(self) -> NDArray[np.integer]:
        """Write the rows that are missing, and return where each begins, `(n + 1,)`."""
        missing = np.flatnonzero(self.length < 0)
        for part in blocks(len(missing), self.shape[1]):
            self[missing[part]] = np.full((part.stop - part.start, self.shape[1]), np.nan, dtype=np.float32)
        self.file.flush()
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.length)])
        # Compiled readers want pointers and columns of one type, and most know the short one alone.
        return indptr.astype(np.int32) if self.n_entries <= np.iinfo(np.int32).max else indptr

    def parts(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield the entries in the order of their rows, block by block, with their places; the layer is complete."""
        ends = np.cumsum(self.length)
        for rows in blocks(self.shape[0], self.shape[1]):
            start, length = self.start[rows], self.length[rows]
            first = ends[rows.start] - length[0]
            # Where rows lie one after the other, they are read at once.
            breaks = np.flatnonzero(start[1:] != start[:-1] + length[:-1]) + 1
            runs = [
                self._read(start[run[0]], int(length[run].sum())) for run in np.split(np.arange(len(start)), breaks)
            ]
            yield slice(int(first), int(ends[rows.stop - 1])), np.concatenate(runs)

    def _read(self, start: np.int64, n: int) -> NDArray[Any]:
        self.file.seek(int(start) * ENTRY.itemsize)
        return np.frombuffer(self.file.read(n * ENTRY.itemsize), dtype=ENTRY)

    def to_memory(self) -> sparse.csr_matrix:
        """Return the whole layer."""
        indptr = self.complete()
        data, indices = np.empty(indptr[-1], dtype=np.float32), np.empty(indptr[-1], dtype=indptr.dtype)
        for place, entries in self.parts():
            data[place], indices[place] = entries["value"], entries["column"]
        return sparse.csr_matrix((data, indices, indptr), shape=self.shape, copy=False)

    def write(self, group: Any, create: str) -> None:
        """Write it to a group of a store, as AnnData has CSR matrices; `create` is the method that makes an array."""
        indptr = self.complete()
        n = int(indptr[-1])
        chunks = {"chunks": (min(n, CHUNK),)} if n else {}
        arrays = {
            name: getattr(group, create)(name, shape=(n,), dtype=dtype, **chunks)
            for name, dtype in (("data", np.dtype(np.float32)), ("indices", indptr.dtype))
        }
        pointers = getattr(group, create)("indptr", shape=indptr.shape, dtype=indptr.dtype)
        pointers[:] = indptr
        for place, entries in self.parts():
            arrays["data"][place], arrays["indices"][place] = entries["value"], entries["column"]
        for array in (*arrays.values(), pointers):
            array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(self.shape)})
