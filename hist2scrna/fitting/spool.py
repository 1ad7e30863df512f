"""A table of encodings that is in memory while it is small, and else in a temporary file."""

from __future__ import annotations

import mmap
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Encodings that are kept in memory; and bytes of the file that are touched before their pages are given back.
MOST_IN_MEMORY, MOST_TOUCHED = 2**28, 2**26


class Spool:
    """Rows of float32, written in any order and taken in any order, `(n, width)`.

    A large table lies in a file without a name in the folder for temporary files, which `TMPDIR` chooses; it goes with
    the spool. Pages that were written or read are given back to the system every 64 MB, so that memory stays flat.

    Parameters
    ----------
    n, width
        Its shape.
    """

    def __init__(self, n: int, width: int) -> None:
        self.touched = 0
        self.rows: NDArray[np.float32]
        if 4 * n * width <= MOST_IN_MEMORY:
            self.rows = np.empty((n, width), dtype=np.float32)
            return
        with tempfile.TemporaryFile(prefix="hist2scrna-") as file:
            self.rows = np.memmap(file, dtype=np.float32, mode="w+", shape=(n, width))

    def put(self, start: int, values: Tensor) -> None:
        """Write rows from `start` on."""
        self.rows[start : start + len(values)] = values.numpy()
        self._touch(values.numel())

    def take(self, index: NDArray[np.int64]) -> Tensor:
        """Return rows, in memory."""
        # In the order of the file, its pages are read once.
        order = np.argsort(index)
        taken = np.empty((len(index), self.rows.shape[1]), dtype=np.float32)
        taken[order] = self.rows[index[order]]
        self._touch(taken.size)
        return torch.from_numpy(taken)

    def _touch(self, n_values: int) -> None:
        self.touched += 4 * n_values
        mapped = getattr(self.rows, "_mmap", None)
        if self.touched >= MOST_TOUCHED and isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.flush()
            mapped.madvise(mmap.MADV_DONTNEED)
            self.touched = 0
