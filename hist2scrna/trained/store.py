"""The file that predictions are streamed to: where it may be, its rows, how it is read again, what a kill leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hist2scrna.encoders.weights import state_sha256
from hist2scrna.files import require_writable
from hist2scrna.fitting.feature_store import FeatureStore
from hist2scrna.fitting.identity import spots_identity
from hist2scrna.stored import STORES

if TYPE_CHECKING:
    import anndata as ad
    import numpy as np
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel

# What is added to the name of a store, for the folder with what has been encoded before it is whole.
ENCODED = ".partial"


class ZarrRows:
    """A layer in a Zarr store that takes whole rows.

    One chunk is compressed at a time: each further thread of Zarr keeps an arena of memory for itself, gigabytes by the
    end of a million cells.
    """

    def __init__(self, array: Any) -> None:
        self.array = array

    def __setitem__(self, rows: NDArray[np.int64], block: NDArray[np.float32]) -> None:
        import zarr

        with zarr.config.set({"async.concurrency": 1}):
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


def encoded_folder(store: Path) -> Path:
    """Return the folder in which an interrupted prediction keeps what it has encoded."""
    return store.with_name(store.name + ENCODED)


def keep_encoded(store: Path, model: FittedModel, spots: Spots) -> FeatureStore | None:
    """Return where encoded patches are kept until the store is whole; None where the model encodes none.

    Raises
    ------
    FileExistsError, ValueError
        If the folder holds something else, or what another model or other spots left.
    """
    if spots.patches is None:
        return None
    state = state_sha256(model.module.state_dict())
    manifest = {"model": state, "encoder": model.encoder and model.encoder["sha256"], **spots_identity(spots)}
    return FeatureStore(len(spots), encoded_folder(store), manifest)


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
