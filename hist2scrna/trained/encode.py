"""The features of spots by the encoder of a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.encoders import encoder_from_card, prepare_encoder
from hist2scrna.encoders.prepare import check_card
from hist2scrna.fitting.encode import encode_patches

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.fitting.feature_store import FeatureStore
    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel


def encode(
    model: FittedModel,
    spots: Spots,
    encoder: Any,
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
    kept: FeatureStore | None = None,
    watch: Callable[[NDArray[np.int64], Tensor], None] | None = None,
) -> None:
    """Add the features of the spots by the model's encoder, if it has one and they were not read.

    `watch` is told of the patches of spots as they are read.

    Raises
    ------
    ValueError
        If the model has no encoder, but one was given; or it is not that of the training.
    """
    if model.encoder is None:
        if encoder is not None:
            raise ValueError(f"Model {model.name!r} was fitted without an encoder: leave `encoder` out.")
        return
    if spots.patches is None:
        return
    if encoder is not None:
        model.encoder_in_memory = prepare_encoder(encoder)
        check_card(model.encoder_in_memory, model.encoder)
    elif model.encoder_in_memory is None:
        model.encoder_in_memory = encoder_from_card(model.encoder)
    (spots.features,) = encode_patches(
        model.encoder_in_memory,
        spots,
        np.arange(len(spots)),
        batch_size=batch_size,
        device=device,
        progress=progress,
        kept=kept,
        watch=watch,
    )
