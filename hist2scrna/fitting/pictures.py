"""What tells the tissue of spots where a model reads pixels: features of the patch, or the tile, that shows each."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.encoders import prepare_encoder
from hist2scrna.encoders.compiled import compiled_on
from hist2scrna.encoders.imagenet import LEAST_CELLS
from hist2scrna.fitting.sight import AT_ONCE
from hist2scrna.fitting.tissue import ENCODER, ENCODING, FEATURES
from hist2scrna.images.placement import RGB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.encoders import Encoder
    from hist2scrna.models.contract import SpotModel
    from hist2scrna.spots.read import Spots

NAME = "imagenet, one field of view"


@cache
def one_view() -> Encoder:
    """Return the built-in encoder on one field of view, for patches of any side from 64 pixels."""
    return replace(prepare_encoder("imagenet"), name=NAME, fields_of_view=(1,), width=None)


def source_of(model: SpotModel, spots: Spots) -> str | None:
    """Return which features tell the tissue of a model's spots; None where nothing does."""
    if spots.features is not None:
        return FEATURES
    if spots.geometry is None:
        return None
    in_color = spots.patches is None or spots.patches.channels == RGB
    if in_color and spots.geometry.px >= LEAST_CELLS * one_view().token_px:
        return ENCODER
    # Nuclei have an encoding, a tile has none.
    return None if model.needs == "tiles" else ENCODING


@torch.no_grad()
def describe(patches: Tensor, device: torch.device, n_patches: int) -> NDArray[np.float32]:
    """Return the features by the built-in encoder of patches `(n, 3, px, px)` uint8, some of `n_patches` in all."""
    encoder = one_view()
    encoder = compiled_on(encoder, device, encoder.precision_on(device), px=patches.shape[-1], n_patches=n_patches)
    with encoder.on(device):
        return encoder.encode(patches.to(device)).float().cpu().numpy()


def tiles_showing(spots: Spots, members: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the tile that shows each nucleus, or is centered on each spot, `(members,)`; -1: none does."""
    source = spots.tiles
    assert source is not None
    if source.spot is None:
        return source.owner[members]
    tile = np.full(len(spots), -1, dtype=np.int64)
    tile[source.spot] = np.arange(len(source))
    return tile[members]


def read_pictures(
    spots: Spots, members: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Tensor, NDArray[np.int64]]]:
    """Yield some spots, the patches or tiles that show them, and `(spots,)` which of these shows each."""
    if spots.tiles is None:
        assert spots.patches is not None
        for start in range(0, len(members), AT_ONCE):
            chunk = members[start : start + AT_ONCE]
            yield chunk, torch.from_numpy(spots.patches.cut(chunk)), np.arange(len(chunk))
        return
    shown = tiles_showing(spots, members)
    tiles = np.unique(shown[shown >= 0])
    for start in range(0, len(tiles), AT_ONCE):
        some = tiles[start : start + AT_ONCE]
        own = np.isin(shown, some)
        pictures = np.stack([spots.tiles.read(tile)[0] for tile in some.tolist()])
        yield members[own], torch.from_numpy(pictures), np.searchsorted(some, shown[own])
