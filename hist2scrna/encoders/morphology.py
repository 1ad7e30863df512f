"""The encoder of features by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hist2scrna.encoders import patch_statistics
from hist2scrna.encoders.encoder import Encoder
from hist2scrna.encoders.patch_statistics import FEWEST_PX, FIELDS_OF_VIEW, PIXEL_UM, feature_names

if TYPE_CHECKING:
    from torch import Tensor

NAME, VERSION = "morphology", "1"


def morphology_encoder() -> Encoder:
    """Return the features by hand as an encoder: those of two fields of view, at 1 and 3 um a pixel."""
    return Encoder(
        NAME,
        describe,
        version=VERSION,
        px=FIELDS_OF_VIEW["wide"] * round(150 / PIXEL_UM),
        um_per_px=PIXEL_UM,
        fields_of_view=tuple(FIELDS_OF_VIEW.values()),
        least_tokens=FEWEST_PX,
        width=len(feature_names()),
        license="BSD-3-Clause",
        pooling="statistics",
        weights="none",
        by_name=True,
    )


def describe(patches: Tensor) -> Tensor:
    """Return the statistics of patches `(n, 3, h, w)` in 0..1 as `(n, 52)`, on their device.

    Raises
    ------
    ValueError
        If gradients are asked for: these features have none.
    """
    if patches.requires_grad:
        raise ValueError(f"Features of the encoder {NAME!r} have no gradient by the pixels. Take another encoder.")
    return patch_statistics.describe(patches)
