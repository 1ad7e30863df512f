"""Blocks of neighboring spots with the halo that they need: exact, contiguous, cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from hist2scrna.models.contract import Context, SpotBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.spots.read import Spots


def _gather(adjacency: sparse.csr_array, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the neighbors of `nodes`, and for each the position of its node in `nodes`."""
    start, stop = adjacency.indptr[nodes], adjacency.indptr[nodes + 1]
    degree = (stop - start).astype(np.int64)
    owner = np.repeat(np.arange(len(nodes)), degree)
    offset = np.arange(degree.sum()) - np.repeat(np.cumsum(degree) - degree, degree)
    return adjacency.indices[start[owner] + offset].astype(np.int64), owner


def with_halo(adjacency: sparse.csr_array, core: NDArray[np.int64], hops: int) -> NDArray[np.int64]:
    """Return the core spots, in their order, followed by all other spots at most `hops` edges away."""
    known = np.unique(core)
    frontier, halo = known, [core]
    for _ in range(hops):
        reached = np.unique(_gather(adjacency, frontier)[0])
        frontier = np.setdiff1d(reached, known, assume_unique=True)
        known = np.union1d(known, frontier)
        halo.append(frontier)
    return np.concatenate(halo)


def induced_edges(adjacency: sparse.csr_array, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the edges among `nodes`, `(2, e)` source and target as positions in `nodes`."""
    neighbors, owner = _gather(adjacency, nodes)
    order = np.argsort(nodes)
    place = np.searchsorted(nodes[order], neighbors).clip(max=len(nodes) - 1)
    inside = nodes[order][place] == neighbors
    return np.stack([order[place[inside]], owner[inside]])


def spatial_blocks(
    xy: NDArray[np.float64], members: NDArray[np.int64], size: int, rng: np.random.Generator | None = None
) -> list[NDArray[np.int64]]:
    """Cut spots of one section into contiguous blocks of at most `size`, by halving along the longer side.

    Parameters
    ----------
    xy
        `(n, 2)` coordinates of all spots.
    members
        The spots to cut into blocks.
    size
        Most spots of a block.
    rng
        Turns the axes at random and moves the cuts, so that blocks differ between epochs; None: always the same.
    """
    points = xy[members]
    if rng is not None:
        angle = rng.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = points @ turn
    blocks, open_sets = [], [np.arange(len(members))]
    while open_sets:
        block = open_sets.pop()
        if len(block) <= size:
            if len(block):
                blocks.append(members[block])
            continue
        axis = int(np.argmax(np.ptp(points[block], axis=0)))
        order = block[np.argsort(points[block, axis], kind="stable")]
        pieces = -(-len(block) // size)
        cut = round(len(block) * (pieces // 2) / pieces)
        open_sets += [order[cut:], order[:cut]]
    return blocks


def make_batch(
    spots: Spots, core: NDArray[np.int64], context: Context, *, supervised: bool, inputs: bool = True
) -> tuple[SpotBatch, NDArray[np.int64]]:
    """Return the batch of `core` with their halo, and the numbers of all its spots.

    Parameters
    ----------
    spots
        All spots.
    core
        Numbers of the spots to predict.
    context
        What the model must see.
    supervised
        Add counts, library sizes and labels of the core spots.
    inputs
        Add patches or features; False where the encodings are at hand.
    """
    adjacency = spots.graph.adjacency
    nodes = core
    if context.kind == "hops":
        nodes = with_halo(adjacency, core, context.hops)
    elif context.kind == "section":
        others = np.flatnonzero(np.isin(spots.together, np.unique(spots.together[core])))
        nodes = np.concatenate([core, np.setdiff1d(others, core)])
    edges = np.empty((2, 0), dtype=np.int64) if context.kind == "spot" else induced_edges(adjacency, nodes)
    section = spots.together[nodes]
    batch = SpotBatch(
        n_core=len(core),
        xy=torch.from_numpy((spots.xy[nodes] / spots.graph.pitch[section][:, None]).astype(np.float32)),
        edge_index=torch.from_numpy(edges),
        section=torch.from_numpy(section),
        grid=None if spots.grid is None else torch.from_numpy(spots.grid[nodes]),
    )
    # Features stand for the patches that they are of, which are large and are not read again.
    if inputs and spots.patches is not None and spots.features is None:
        batch.patches = torch.from_numpy(spots.patches.read(nodes))
    if inputs and spots.features is not None:
        batch.features = torch.from_numpy(spots.features[nodes])
    if spots.donor is not None:
        batch.donor = torch.from_numpy(spots.donor[core])
    if supervised and spots.counts is not None:
        counts = spots.counts[core].toarray()
        batch.counts, batch.number = torch.from_numpy(counts), torch.from_numpy(core)
        batch.log_library = torch.from_numpy(np.log(counts.sum(axis=1, dtype=np.float64)).astype(np.float32))
        if spots.label is not None:
            batch.label = torch.from_numpy(spots.label[core])
    return batch, nodes


class SpotBlocks(Dataset[SpotBatch]):
    """Supervised batches of core spots, by the blocks that a sampler gives."""

    def __init__(self, spots: Spots, context: Context) -> None:
        self.spots = spots
        self.context = context

    def __getitem__(self, core: NDArray[np.int64]) -> SpotBatch:
        return make_batch(self.spots, core, self.context, supervised=True)[0]


class BlockSampler(Sampler["NDArray[np.int64]"]):
    """Blocks of core spots as a model's context asks: contiguous, at random for `spot`, or a section at once.

    Parameters
    ----------
    spots
        All spots.
    members
        Those that may be core.
    context
        Context of the model.
    size
        Most core spots of a block; sections are never cut.
    seed
        Blocks and their order are drawn anew each epoch from here; None: the same contiguous blocks each time.
    """

    def __init__(
        self, spots: Spots, members: NDArray[np.int64], context: Context, size: int, seed: int | None = None
    ) -> None:
        if size < 1:
            raise ValueError(f"Expected `batch_size` to be at least 1, found {size}.")
        self.xy = spots.xy
        together = spots.together[members]
        self.by_section = [members[together == code] for code in np.unique(together)]
        self.members = members
        self.context = context
        self.size = size
        self.seed = seed
        # Set by whoever trains; an epoch is drawn from seed and number alone, not from those before it.
        self.epoch = 0

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        rng = None if self.seed is None else np.random.default_rng([self.seed, self.epoch])
        if self.context.kind == "section":
            blocks = list(self.by_section)
        elif self.context.kind == "spot" and rng is not None:
            shuffled = rng.permutation(self.members)
            blocks = [shuffled[i : i + self.size] for i in range(0, len(shuffled), self.size)]
        else:
            blocks = [b for rows in self.by_section for b in spatial_blocks(self.xy, rows, self.size, rng)]
        if rng is not None:
            blocks = [blocks[i] for i in rng.permutation(len(blocks))]
        return iter(blocks)

    def __len__(self) -> int:
        if self.context.kind == "section":
            return len(self.by_section)
        if self.context.kind == "spot" and self.seed is not None:
            return -(-len(self.members) // self.size)
        return sum(-(-len(rows) // self.size) for rows in self.by_section)
