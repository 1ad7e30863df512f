"""Read a file of HDF5, or a folder of Zarr, from its first to its last byte: a program of its own, which may crash.

It imports nothing of this package; :mod:`hist2scrna.stored` starts it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

BLOCK_BYTES = 1 << 24


def read_through(path: str, seconds: int) -> None:
    """Read all attributes and values, and keep none; the system ends it after so many seconds of processor time."""
    try:
        import resource
    except ImportError:
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    # What cannot be read is no reason to leave out the rest; whoever reads it for its values says what is wrong.
    with suppress(Exception):
        if os.path.isdir(path):
            _read_zarr(path)
        else:
            _read_hdf5(path)


def _read_hdf5(path: str) -> None:
    import h5py

    def visit(_: str, item: Any) -> None:
        with suppress(Exception):
            dict(item.attrs)
            # Numbers that lie side by side pass through no decoder.
            if isinstance(item, h5py.Dataset) and (item.chunks is not None or item.dtype.hasobject):
                _read_array(item)

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)


def _read_zarr(path: str) -> None:
    import zarr

    for _, item in zarr.open_group(path, mode="r").members(max_depth=None):
        with suppress(Exception):
            if isinstance(item, zarr.Array):
                _read_array(item)


def _read_array(array: Any) -> None:
    """Read an array in blocks of rows."""
    if not array.shape or 0 in array.shape:
        array[()]
        return
    row = max(1, array.dtype.itemsize)
    for side in array.shape[1:]:
        row *= side
    step = max(1, BLOCK_BYTES // row)
    for start in range(0, array.shape[0], step):
        array[start : start + step]


if __name__ == "__main__":
    read_through(sys.argv[1], int(sys.argv[2]))
