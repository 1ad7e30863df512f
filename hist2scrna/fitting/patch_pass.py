"""One pass over the patches of spots: read and encoded batch by batch, or taken from the cache or a store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hist2scrna.encoders.compiled import compiled_on
from hist2scrna.fitting.duration import Duration
from hist2scrna.fitting.feature_cache import features_key, store_features, stored_features
from hist2scrna.fitting.read_ahead import read_ahead, readers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hist2scrna.encoders import Encoder
    from hist2scrna.encoders.precision import Precision
    from hist2scrna.fitting.feature_store import FeatureStore
    from hist2scrna.fitting.look import Look
    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)


class PatchPass:
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
            self.step(len(members))
        return stored

    def kept_rows(self, members: NDArray[np.int64], kept: FeatureStore) -> NDArray[np.float32]:
        """Return the features of all spots, NaN for those that are not asked for; what is kept is not made again."""
        finished = kept.finished
        kept.check_encoder(finished, self.again, self.spots.names)
        self.step(int(finished[members].sum()))
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
            self.step(len(chunk))
        self.patches.release(int(self.spots.section[members[0]]))
        return self.finite(tables)

    def finite(self, tables: list[Tensor]) -> list[Tensor]:
        """Return features, refused where one is none."""
        if not all(bool(torch.isfinite(table).all()) for table in tables):
            raise ValueError(f"Encoder {self.encoder.name!r} returned NaN or infinite features. Look at its weights.")
        return tables

    def again(self, members: NDArray[np.int64]) -> Tensor:
        """Return the features of a few spots at the first look."""
        return self._encode(self._read(members), members)[0]

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

    def step(self, n: int) -> None:
        """Count spots that are done."""
        self.done += n
        self.bar.update(n)
        self.duration.step(self.done)
