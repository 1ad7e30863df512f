"""Patches to features, by a frozen encoder: each patch is read once, however often it is looked at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hist2scrna.files import require_writable
from hist2scrna.fitting.encode_tiles import TilePass
from hist2scrna.fitting.look import PLAIN, Look
from hist2scrna.fitting.patch_pass import PatchPass
from hist2scrna.images.placement import RGB
from hist2scrna.verbosity import settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.encoders import Encoder
    from hist2scrna.encoders.precision import Precision
    from hist2scrna.fitting.feature_store import FeatureStore
    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)


def encode_patches(
    encoder: Encoder,
    spots: Spots,
    members: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
    precision: Precision | None = None,
    looks: Sequence[Look] = PLAIN,
    kept: FeatureStore | None = None,
    watch: Callable[[NDArray[np.int64], Tensor], None] | None = None,
) -> list[NDArray[np.float32]]:
    """Return the features of all spots for each look, `(n, d)` float32, NaN for those that are not among `members`.

    They are computed in the precision that the encoder has on the device; on a CPU in float32, by OpenVINO. An encoder
    of tiles encodes the image once, and spots read its maps (:class:`~hist2scrna.fitting.encode_tiles.TilePass`).
    Patches are read, and on a CPU varied and described by hand, in threads of their own while others pass through the
    network. Encoders by name, whose weights nobody changes, keep the features of each section in `settings.cache_dir`,
    where there is one, and take them from there.

    Parameters
    ----------
    encoder
        The encoder.
    spots, members
        All spots, with patches; the numbers of those to encode.
    batch_size
        Most patches encoded at once.
    device
        Where to compute.
    progress
        Show a bar.
    precision
        In which the network is computed; None: the encoder's own on the device.
    looks
        How each patch is looked at; features by hand describe it as it is.
    kept
        Where the features of an interrupted run lie, and new ones go, of one look at each patch; None: in memory.
    watch
        Is told of each batch of spots and their patches as these are read, in the threads that read.

    Raises
    ------
    ValueError
        If a feature is NaN or infinite, or there is no spot.
    OSError
        If nothing can be written to the cache.
    """
    from tqdm.auto import tqdm

    if not len(members):
        raise ValueError("There is no spot to encode.")
    require_rgb(spots)
    cache = settings.cache_dir if encoder.by_name and kept is None else None
    if cache is not None:
        require_writable(cache / "features")
    precision = precision or encoder.precision_on(device)
    one_pass = PatchPass
    if encoder.maps is not None:
        require_images(encoder, spots)
        one_pass = TilePass
    tables: list[NDArray[np.float32]] = []
    with (
        encoder.on(device, precision),
        tqdm(total=len(members), desc="encoding", unit="spot", disable=not progress) as bar,
    ):
        pass_through = one_pass(encoder, spots, looks, device, precision, len(members), batch_size, bar, watch)
        if kept is not None:
            return [pass_through.kept_rows(members, kept)]
        for code in np.unique(spots.section[members]):
            own = members[spots.section[members] == code]
            encoded = pass_through.section(own) if cache is None else pass_through.cached_section(own, cache)
            tables = tables or [np.full((len(spots), look.shape[1]), np.nan, dtype=np.float32) for look in encoded]
            for table, look in zip(tables, encoded, strict=True):
                table[own] = look.numpy()
    return tables


def require_rgb(spots: Spots) -> None:
    """Refuse patches whose channels are not red, green and blue: encoders were trained on no others.

    Raises
    ------
    ValueError
        If they have another number of channels.
    """
    if spots.patches is not None and spots.patches.channels != RGB:
        raise ValueError(
            f"Encoders read RGB images, and those of section {spots.sections[0]!r} have {spots.patches.channels} "
            "channels. Pass one image of each section, H&E in RGB: image= or img_key=."
        )


def require_images(encoder: Encoder, spots: Spots) -> None:
    """Refuse patches in files for an encoder that reads tiles of the image.

    Raises
    ------
    ValueError
        If there is no image.
    """
    if spots.patches is not None and not spots.patches.images:
        raise ValueError(
            f"Encoder {encoder.name!r} reads tiles of the image, and section {spots.sections[0]!r} has patches in "
            "files. Pass image=, or an encoder of patches, such as encoder='imagenet'."
        )


def encoded_width(encoder: Encoder, spots: Spots, device: torch.device) -> int:
    """Return the number of features of a patch; where it is not known, the first patch is encoded."""
    if encoder.width is not None:
        return encoder.width
    return encode_patches(encoder, spots, np.arange(1), batch_size=1, device=device, progress=False)[0].shape[1]
