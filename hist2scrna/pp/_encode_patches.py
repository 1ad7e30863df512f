"""Encode the patches of all spots, each once; the next batch is read while one is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.fitting.read_ahead import read_ahead, readers

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hist2scrna.encoders import Encoder
    from hist2scrna.fitting.feature_store import FeatureStore
    from hist2scrna.spots.read import Spots


def encode_by(encoder: Encoder, um: float, device: torch.device) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return the function from patches `(n, 3, px, px)` uint8, `um` microns wide, to features `(n, d)` float32."""

    @torch.no_grad()
    def encode(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return encoder.encode(torch.from_numpy(patches).to(device), um).float().cpu().numpy()

    return encode


def encode_spots(
    spots: Spots,
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    store: FeatureStore,
    batch_size: int,
    progress: bool,
) -> None:
    """Encode the spots that are not in `store` yet, section by section, and put them there.

    Parameters
    ----------
    spots
        All spots, with patches.
    encode
        From patches `(n, 3, px, px)` uint8 to features `(n, d)` float32.
    store
        Where the features go.
    batch_size
        Patches encoded at once.
    progress
        Show a bar.

    Raises
    ------
    ValueError
        If a feature is NaN or infinite, or those in the store are of another encoder or image.
    """
    from tqdm.auto import tqdm

    assert spots.patches is not None
    finished = store.finished
    patches_of = spots.patches
    store.check_encoder(finished, lambda rows: encode(patches_of.cut(rows)), spots.names)
    missing = np.flatnonzero(~finished)
    missing = missing[np.argsort(spots.section[missing], kind="stable")]
    chunks = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
    with tqdm(total=len(spots), initial=int(finished.sum()), desc="encoding", unit="spot", disable=not progress) as bar:
        try:
            for chunk, patches in read_ahead(chunks, spots.patches.cut, workers=readers(len(chunks))):
                values = encode(patches)
                _check_values(values, spots, chunk)
                store.write(chunk, values)
                bar.update(len(chunk))
        finally:
            store.flush()


def _check_values(values: NDArray[np.float32], spots: Spots, chunk: NDArray[np.int64]) -> None:
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"The encoder returned NaN or infinite numbers for {int(bad.sum())} of {len(chunk)} patches (the first is "
            f"that of spot {spots.names[chunk[bad]][0]!r}). Pass precision='32-true', or look at its weights."
        )
