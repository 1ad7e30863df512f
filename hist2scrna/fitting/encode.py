"""Patches to features, by a frozen encoder: each patch is read once, however often it is looked at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hist2scrna.encoders.compiled import compiled_on
from hist2scrna.files import require_writable
from hist2scrna.fitting.duration import Duration
from hist2scrna.fitting.feature_cache import features_key, store_features, stored_features
from hist2scrna.fitting.look import PLAIN, Look
from hist2scrna.fitting.read_ahead import read_ahead, readers
from hist2scrna.images.placement import RGB
from hist2scrna.verbosity import settings

if TYPE_CHECKING:
    from pathlib import Path

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
    looks: Sequence[Look] = PLAIN,
    kept: FeatureStore | None = None,
    watch: Callable[[NDArray[np.int64], Tensor], None] | None = None,
) -> list[NDArray[np.float32]]:
    """Return the features of all spots for each look, `(n, d)` float32, NaN for those that are not among `members`.

    They are computed in the precision that the encoder has on the device; on a CPU in float32, by OpenVINO. Patches
    are read, and on a CPU varied and described by hand, in threads of their own while others pass through the network.
    Encoders by name, whose weights nobody changes, keep the features of each section in `settings.cache_dir`, where
    there is one, and take them from there.

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
    precision = encoder.precision_on(device)
    tables: list[NDArray[np.float32]] = []
    with (
        encoder.on(device),
        tqdm(total=len(members), desc="encoding", unit="spot", disable=not progress) as bar,
    ):
        pass_through = _Pass(encoder, spots, looks, device, precision, len(members), batch_size, bar, watch)
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


class _Pass:
    """One pass over the patches of some spots, section by section."""

    def __init__(
        self,
        encoder: Encoder,
        spots: Spots,
        looks: Sequence[Look],
        device: torch.device,
        precision: Precision,
        n: int,
        batch_size: int,
        bar: Any,
        watch: Callable[[NDArray[np.int64], Tensor], None] | None,
    ) -> None:
        assert spots.geometry is not None and spots.patches is not None
        self.encoder, self.spots, self.patches, self.geometry = encoder, spots, spots.patches, spots.geometry
        self.looks, self.device, self.precision, self.n, self.bar = looks, device, precision, n, bar
        self.watch = watch
        self.size = min(batch_size, encoder.at_once or batch_size)
        self.duration = Duration(f"encoding {n:,} spots on {device}", n)
        self.done = 0

    def cached_section(self, members: NDArray[np.int64], folder: Path) -> list[Tensor]:
        """Return the features of some spots of one section from the cache, into which they go where they are new."""
        key, about = features_key(self.encoder, self.precision, self.spots, members, self.looks)
        stored = stored_features(folder, key, len(self.looks), len(members))
        if stored is None:
            stored = self.section(members)
            store_features(folder, key, about, stored)
        else:
            log.info("Features of %d spots of section %s: from the cache", len(members), about["section"])
            self._step(len(members))
        return stored

    def kept_rows(self, members: NDArray[np.int64], kept: FeatureStore) -> NDArray[np.float32]:
        """Return the features of all spots, NaN for those that are not asked for; what is kept is not made again."""
        finished = kept.finished
        kept.check_encoder(finished, lambda rows: self._encode(self._read(rows), rows)[0], self.spots.names)
        self._step(int(finished[members].sum()))
        for code in np.unique(self.spots.section[members]):
            missing = members[~finished[members] & (self.spots.section[members] == code)]
            if len(missing):
                self.section(missing, lambda chunk, features: kept.write(chunk, features[0].numpy()))
        return kept.array()

    def section(
        self, members: NDArray[np.int64], then: Callable[[NDArray[np.int64], list[Tensor]], None] | None = None
    ) -> list[Tensor]:
        """Return the features of some spots of one section, for each look; `then` is told of each batch."""
        chunks = [members[start : start + self.size] for start in range(0, len(members), self.size)]
        tables: list[Tensor] = []
        for number, (chunk, read) in enumerate(read_ahead(chunks, self._read, workers=readers(len(chunks)))):
            encoded = self._encode(read, chunk)
            if then is not None:
                then(chunk, encoded)
            for look, features in enumerate(encoded):
                if number == 0:
                    tables.append(features.new_empty((len(members), features.shape[1])))
                tables[look][number * self.size : number * self.size + len(chunk)] = features
            self._step(len(chunk))
        self.patches.release(int(self.spots.section[members[0]]))
        if not all(bool(torch.isfinite(table).all()) for table in tables):
            raise ValueError(f"Encoder {self.encoder.name!r} returned NaN or infinite features. Look at its weights.")
        return tables

    @torch.no_grad()
    def _read(self, chunk: NDArray[np.int64]) -> Any:
        """Read patches, and do what the CPU is to do to them."""
        patches = torch.from_numpy(self.patches.cut(chunk))
        if self.watch is not None:
            self.watch(chunk, patches)
        if self.device.type == "cuda":
            return patches.pin_memory()
        return patches if self.device.type != "cpu" else self._see(patches, chunk)

    def _see(self, patches: Tensor, chunk: NDArray[np.int64]) -> tuple[list[list[Tensor]], Tensor | None]:
        """Return the fields of view at each look, and the features by hand."""
        by_hand = self.encoder.by_hand(patches, self.geometry.um)
        return [self.encoder.views(look.at(patches, chunk)) for look in self.looks], by_hand

    @torch.no_grad()
    def _encode(self, read: Any, chunk: NDArray[np.int64]) -> list[Tensor]:
        """Return the features of patches that were read, on the CPU."""
        if self.device.type != "cpu":
            read = self._see(read.to(self.device, non_blocking=True), chunk)
        views, by_hand = read
        encoded = [self.encoder.joined(self.network.encode_views(seen), by_hand) for seen in views]
        return [features.float().cpu() for features in encoded]

    @cached_property
    def network(self) -> Encoder:
        """The encoder, compiled where that pays; nothing is compiled where all comes from the cache."""
        return compiled_on(self.encoder, self.device, self.precision, px=self.geometry.px, n_patches=self.n)

    def _step(self, n: int) -> None:
        self.done += n
        self.bar.update(n)
        self.duration.step(self.done)


def encoded_width(encoder: Encoder, spots: Spots, device: torch.device) -> int:
    """Return the number of features of a patch; where it is not known, the first patch is encoded."""
    if encoder.width is not None:
        return encoder.width
    return encode_patches(encoder, spots, np.arange(1), batch_size=1, device=device, progress=False)[0].shape[1]
