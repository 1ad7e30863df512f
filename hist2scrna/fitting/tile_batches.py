"""Batches of whole tiles, each with all nuclei that show in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from hist2scrna.models.contract import SpotBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots
    from hist2scrna.spots.tiles import TileSource


def make_tile_batch(
    spots: Spots, tiles: NDArray[np.int64], members: NDArray[np.bool_], *, owned: bool, supervised: bool
) -> tuple[SpotBatch, NDArray[np.int64]]:
    """Return a batch of tiles, and the numbers of the rows that it predicts; all other nuclei that show are the halo.

    These are the core nuclei. Where the rows of AnnData are spots, it predicts the spot of each tile, and the nuclei in
    it are core.

    Parameters
    ----------
    spots
        All nuclei, with tiles.
    tiles
        Numbers of the tiles.
    members
        `(n,)`, rows that may be predicted.
    owned
        A nucleus is core in the one tile where it shows the most pixels; else in every tile that shows it.
    supervised
        Add counts, library sizes and labels of the core.
    """
    source = _source(spots)
    by_spot = source.spot is not None
    shown = [source.rows(tile) for tile in tiles.tolist()]
    row, tile = np.concatenate(shown), np.repeat(np.arange(len(tiles)), [len(rows) for rows in shown])
    observed = row if source.spot is None else source.spot[tiles][tile]
    core = members[observed] & (source.owner[row] == tiles[tile]) if owned or by_spot else members[row]
    order = np.argsort(~core, kind="stable")
    place = np.argsort(order)
    pictures, masks, start = [], [], 0
    for number, rows in zip(tiles.tolist(), shown, strict=True):
        picture, mask = source.read(number)
        # Row of the batch by place among the nuclei of the tile.
        position = place[start : start + len(rows)] + 1
        inside = mask > 0
        mask[inside] = position[np.searchsorted(rows, mask[inside] - 1)]
        start += len(rows)
        pictures.append(picture)
        masks.append(mask.astype(np.int32))
    row, observed, n_core = row[order], observed[order], int(core.sum())
    section = spots.section[observed]
    predicted = row[:n_core] if source.spot is None else source.spot[tiles]
    batch = SpotBatch(
        n_core=n_core,
        xy=torch.from_numpy((spots.xy[observed] / spots.graph.pitch[section][:, None]).astype(np.float32)),
        edge_index=torch.empty((2, 0), dtype=torch.int64),
        section=torch.from_numpy(section),
        tiles=torch.from_numpy(np.stack(pictures)),
        masks=torch.from_numpy(np.stack(masks)),
        tile=torch.from_numpy(tile[order]),
        spot=torch.from_numpy(tile[order][:n_core]) if by_spot else None,
    )
    if supervised and spots.counts is not None:
        counts = spots.counts[predicted].toarray()
        batch.counts, batch.number = torch.from_numpy(counts), torch.from_numpy(row[:n_core])
        batch.log_library = torch.from_numpy(np.log(counts.sum(axis=1, dtype=np.float64)).astype(np.float32))
        if spots.label is not None:
            batch.label = torch.from_numpy(spots.label[row[:n_core]])
    return batch, predicted


def tiles_of(spots: Spots, members: NDArray[np.bool_], *, owned: bool) -> NDArray[np.int64]:
    """Return the tiles in which some of the nuclei, or the nuclei of some of the spots, are core."""
    source = _source(spots)
    if not owned or source.spot is not None:
        return source.showing(members)
    return np.unique(source.owner[members & (source.owner >= 0)])


def _source(spots: Spots) -> TileSource:
    if spots.tiles is None:
        raise ValueError("These spots were read without tiles.")
    return spots.tiles


class TileBatches(Dataset[SpotBatch]):
    """Supervised batches of tiles.

    In training, a nucleus is core in every tile that shows it; in validation, as in prediction, in one.
    """

    def __init__(self, spots: Spots, members: NDArray[np.int64], *, owned: bool) -> None:
        self.spots = spots
        self.members = np.zeros(len(spots), dtype=bool)
        self.members[members] = True
        self.owned = owned

    def __getitem__(self, tiles: NDArray[np.int64]) -> SpotBatch:
        return make_tile_batch(self.spots, tiles, self.members, owned=self.owned, supervised=True)[0]


class TileSampler(Sampler["NDArray[np.int64]"]):
    """Numbers of tiles, `size` at once.

    Parameters
    ----------
    tiles
        Numbers of the tiles.
    size
        Tiles of a batch; the last batch may have fewer.
    seed
        They are shuffled anew each epoch from here; None: always in their order.
    """

    def __init__(self, tiles: NDArray[np.int64], size: int, seed: int | None = None) -> None:
        self.tiles = tiles
        self.size = size
        self.seed = seed
        # Set by whoever trains; an epoch is drawn from seed and number alone, not from those before it.
        self.epoch = 0

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        tiles = self.tiles
        if self.seed is not None:
            tiles = np.random.default_rng([self.seed, self.epoch]).permutation(tiles)
        return iter([tiles[i : i + self.size] for i in range(0, len(tiles), self.size)])

    def __len__(self) -> int:
        return -(-len(self.tiles) // self.size)
