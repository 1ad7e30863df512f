"""Dense spots to features: the image is encoded once by tiles, and each spot reads the maps at its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hist2scrna.encoders.compiled import compiled_on
from hist2scrna.encoders.windows import integrals_of
from hist2scrna.fitting.patch_pass import PatchPass
from hist2scrna.fitting.read_ahead import read_ahead, readers
from hist2scrna.fitting.sight import AT_ONCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.encoders.encoder import TileMaps

# Side of a tile in pixels, where windows are small: wider ones waste less on their rims, and take more memory.
SIDE = 1344
# Tokens at the rim of a tile whose maps tell of the white around it.
RIM = 2
# Spots that read at once.
READ_AT_ONCE = 512


@dataclass(frozen=True)
class Tile:
    """A tile of one field of view.

    Attributes
    ----------
    field
        Number of the field of view.
    middle
        `(2,)` its middle, x and y in full-resolution pixels.
    rows
        Places, among the spots of the section that are asked for, of those whose middle lies in its core.
    done
        Places of the spots that are complete with this tile; none before the last one of a stretch.
    """

    field: int
    middle: NDArray[np.float64]
    rows: NDArray[np.int64]
    done: NDArray[np.int64]


class TilePass(PatchPass):
    """One pass over the images of some spots, each tile of each field of view once.

    The core of a tile is what it reads for; around it lie half a window and a rim. Cores of one field of view lie side
    by side from the corner of the image, as wide as two by two of the next narrower: what a spot reads does not depend
    on which other spots are asked for. Only tiles with a spot in their core are read.
    """

    def section(
        self, members: NDArray[np.int64], then: Callable[[NDArray[np.int64], list[Tensor]], None] | None = None
    ) -> list[Tensor]:
        """Return the features of some spots of one section, for each look; `then` is told of each stretch of tiles."""
        tables = self._read_all(members, then)
        self.patches.release(int(self.spots.section[members[0]]))
        return self.finite(tables)

    def again(self, members: NDArray[np.int64]) -> Tensor:
        """Return the features of spots, all of one section, at the first look."""
        return self._read_all(members, None, count=False)[0]

    @torch.no_grad()
    def _read_all(
        self,
        members: NDArray[np.int64],
        then: Callable[[NDArray[np.int64], list[Tensor]], None] | None,
        *,
        count: bool = True,
    ) -> list[Tensor]:
        tiles = self.tiles(members)
        plain = replace(self.encoder, network=self.maps.network, fields_of_view=(1,), width=None)
        network = compiled_on(plain, self.device, self.precision, px=self.side, n_patches=len(tiles)).network
        width = int(self.encoder.width or 0)
        tables = [torch.empty((len(members), width)) for _ in self.looks]
        columns = width // len(self.encoder.fields_of_view)
        for tile, seen in read_ahead(tiles, lambda tile: self._see_tile(tile, members), workers=readers(len(tiles))):
            for table, (picture, places) in zip(tables, seen, strict=True):
                (maps,) = network(picture.to(self.device, non_blocking=True))
                start = tile.field * columns
                table[tile.rows, start : start + columns] = self._read_windows(maps, places)
            if len(tile.done) and then is not None:
                then(members[tile.done], [table[tile.done] for table in tables])
            if len(tile.done) and count:
                self.step(len(tile.done))
        return tables

    @property
    def maps(self) -> TileMaps:
        """How maps are read."""
        assert self.encoder.maps is not None
        return self.encoder.maps

    @property
    def window(self) -> int:
        """Side of a window in pixels of its field of view."""
        return self.geometry.px // self.encoder.widest

    @property
    def side(self) -> int:
        """Side of a tile in pixels: at least half of it is core."""
        around = self.window + 2 * RIM * self.encoder.token_px
        return max(SIDE, -(-2 * around // self.encoder.token_px) * self.encoder.token_px)

    @property
    def core(self) -> int:
        """Side of the core of a tile in pixels."""
        return self.side - self.window - 2 * RIM * self.encoder.token_px

    def tiles(self, members: NDArray[np.int64]) -> list[Tile]:
        """Return the tiles that show some spots of one section, stretch by stretch, as wide as one of the widest."""
        xy = self.spots.xy[members]
        cores = [self.core * self._pixel(members, wider) for wider in self.encoder.fields_of_view]
        tiles: list[Tile] = []
        for stretch in _groups(xy, cores[-1], np.arange(len(members))):
            own = [
                Tile(field, (np.floor(xy[rows[0]] / core) + 0.5) * core, rows, stretch[:0])
                for field, core in enumerate(cores)
                for rows in _groups(xy, core, stretch)
            ]
            tiles += [*own[:-1], replace(own[-1], done=stretch)]
        return tiles

    def _pixel(self, members: NDArray[np.int64], wider: int) -> float:
        """Return the side of a pixel of a field of view in full-resolution pixels."""
        return wider * self.patches.side[int(self.spots.section[members[0]])] / self.geometry.px

    @torch.no_grad()
    def _see_tile(self, tile: Tile, members: NDArray[np.int64]) -> list[tuple[Tensor, Tensor]]:
        """Return the tile as the network reads it at each look, and where its spots lie in it, in tokens."""
        own = members[tile.rows]
        code, pixel = int(self.spots.section[own[0]]), self._pixel(members, self.encoder.fields_of_view[tile.field])
        picture = torch.from_numpy(self.patches.window(code, tile.middle, self.side * pixel, self.side)[None])
        places = torch.from_numpy((self.spots.xy[own] - tile.middle) / pixel + self.side / 2)
        if tile.field == 0 and self.watch is not None:
            self._watch(own, picture[0], places)
        mean, std = (torch.tensor(values)[:, None, None] for values in self.encoder.colors)
        seen = []
        for look in self.looks:
            # All spots of a tile are varied as its first one.
            drawn = look.drawn_for(own[:1])
            varied, moved = look.at(picture, own[:1]), places
            if look.variation is not None:
                moved = look.variation.moved(places, self.side, drawn)
            pixels = varied.float() / 255 if varied.dtype == torch.uint8 else varied
            tokens = (moved - self.maps.shift_px) / self.encoder.token_px
            seen.append(((pixels - mean) / std, tokens))
        return seen

    def _watch(self, own: NDArray[np.int64], picture: Tensor, places: Tensor) -> None:
        """Tell of the narrowest field of view of spots, in the middle of patches that are empty around it."""
        assert self.watch is not None
        side, px = self.window, self.geometry.px
        start = (px - side) // 2
        corners = (places - side / 2).round().long().clamp(0, self.side - side).tolist()
        for first in range(0, len(own), AT_ONCE):
            some: Any = torch.zeros((len(own[first : first + AT_ONCE]), 3, px, px), dtype=torch.uint8)
            for patch, (x, y) in zip(some, corners[first : first + AT_ONCE], strict=True):
                patch[:, start : start + side, start : start + side] = picture[:, y : y + side, x : x + side]
            self.watch(own[first : first + AT_ONCE], some)

    def _read_windows(self, maps: Tensor, places: Tensor) -> Tensor:
        integrals, side = integrals_of(maps), self.window / self.encoder.token_px
        parts = places.to(maps.device).split(READ_AT_ONCE)
        return torch.cat([self.maps.read(integrals, part, side) for part in parts]).float().cpu()


def _groups(xy: NDArray[np.float64], core: float, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return rows by the core that their places lie in."""
    square = np.floor(xy[rows] / core).astype(np.int64)
    _, group = np.unique(square, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    cuts = np.flatnonzero(np.diff(group.ravel()[order])) + 1
    return np.split(rows[order], cuts)
