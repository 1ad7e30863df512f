"""Patches to features, by a frozen encoder: each patch once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.encoders.compiled import compiled_on
from hist2scrna.fitting.inference import encode_members

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hist2scrna.encoders import Encoder
    from hist2scrna.models.contract import SpotBatch
    from hist2scrna.spots.read import Spots


def encode_patches(
    encoder: Encoder,
    spots: Spots,
    members: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
    augmentation: Callable[[SpotBatch], SpotBatch] | None = None,
) -> NDArray[np.float32]:
    """Return the features of all spots, `(n, d)` float32, NaN for those that are not among `members`.

    They are computed in the precision that the encoder has on the device; on a CPU in float32, by OpenVINO.

    Parameters
    ----------
    encoder
        The encoder.
    spots, members
        All spots, with patches; the numbers of those to encode.
    batch_size
        Patches encoded at once.
    device
        Where to compute.
    progress
        Show a bar.
    augmentation
        What is done to each batch of patches first; features by hand describe the patches as they were.
    """
    assert spots.geometry is not None
    um = spots.geometry.um

    def encode(batch: SpotBatch) -> torch.Tensor:
        plain = batch.patches
        if augmentation is not None:
            with torch.autocast(device.type, enabled=False):
                batch = augmentation(batch)
        assert batch.patches is not None
        return encoder.encode(batch.patches, um, plain=plain)

    with encoder.on(device):
        precision = encoder.precision_on(device)
        encoder = compiled_on(encoder, device, precision, px=spots.geometry.px, n_patches=len(members))
        encoded = encode_members(
            encode,
            spots,
            members,
            batch_size=batch_size,
            device=device,
            progress=progress,
        )
    if not torch.isfinite(encoded).all():
        raise ValueError(f"Encoder {encoder.name!r} returned NaN or infinite features. Look at its weights.")
    features = np.full((len(spots), encoded.shape[1]), np.nan, dtype=np.float32)
    features[members] = encoded.numpy()
    return features


def encoded_width(encoder: Encoder, spots: Spots, device: torch.device) -> int:
    """Return the number of features of a patch; where it is not known, the first patch is encoded."""
    if encoder.width is not None:
        return encoder.width
    first = encode_patches(encoder, spots, np.arange(1), batch_size=1, device=device, progress=False)
    return first.shape[1]
