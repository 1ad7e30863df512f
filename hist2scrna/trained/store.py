"""The file that predictions are streamed to: where it may be, its rows, and how it is read again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hist2scrna.files import require_writable

if TYPE_CHECKING:
    import anndata as ad
    import numpy as np
    from numpy.typing import NDArray

STORES = (".zarr", ".h5ad")


class ZarrRows:
    """A layer in a Zarr store that takes whole rows."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __setitem__(self, rows: NDArray[np.int64], block: NDArray[np.float32]) -> None:
        self.array.oindex[rows, :] = block


def check_store(given: str | Path) -> None:
    """Refuse a path to which no result can be streamed.

    Raises
    ------
    ValueError
        If it ends otherwise than AnnData do.
    OSError
        If something is there, or nothing can be written.
    """
    store = Path(given) if isinstance(given, str | Path) else Path()
    if store.suffix not in STORES:
        raise ValueError(f"Expected `store` to be a path that ends in one of {list(STORES)}, found '{given}'.")
    if store.exists():
        raise FileExistsError(f"'{store}' exists already. Choose another path for `store`, or remove it first.")
    require_writable(store)


def backed(store: Path, out: ad.AnnData) -> ad.AnnData:
    """Return `out` with the layers of the store, read when they are used."""
    from anndata.experimental import read_elem_lazy

    if store.suffix == ".h5ad":
        import h5py

        group: Any = h5py.File(store, "r")
    else:
        import zarr

        group = zarr.open_group(store, mode="r")
    for key in group["layers"]:
        out.layers[key] = read_elem_lazy(group["layers"][key])
    return out
