"""Batches dealt to the processes of a training on several devices: each in turn gets the next one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from torch.utils.data import Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from hist2scrna.fitting.batches import BlockSampler
    from hist2scrna.fitting.processes import Place
    from hist2scrna.fitting.tile_batches import TileSampler
    from hist2scrna.models.contract import SpotBatch


class Dealt(NamedTuple):
    """What one process gets: the core of a batch, and whether it is a repeat that only keeps the processes in step."""

    core: NDArray[np.int64]
    spare: bool


class DealtSampler(Sampler[Dealt]):
    """The batches of one sampler, dealt to processes in turn.

    Every process draws all of them alike and takes its own, so that one step of `n` processes is on the batches that
    one process would add up in `n` steps (`accumulate`), with the halos that they have there. Where the last round
    lacks some, processes repeat their batch of the round before, or the first of all, as a spare one.

    Parameters
    ----------
    sampler
        Draws the batches.
    place
        Which process this is, of how many.
    """

    def __init__(self, sampler: BlockSampler | TileSampler, place: Place) -> None:
        self.sampler = sampler
        self.place = place

    @property
    def epoch(self) -> int:
        """Number of the epoch, from which the batches are drawn."""
        return self.sampler.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self.sampler.epoch = number

    def __iter__(self) -> Iterator[Dealt]:
        cores, (rank, of) = list(self.sampler), self.place
        own = [Dealt(core, spare=False) for core in cores[rank::of]]
        if len(own) < len(self):
            own.append(Dealt(own[-1].core if own else cores[0], spare=True))
        return iter(own)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.place.of)


class DealtBatches(Dataset["SpotBatch"]):
    """The batches of a dataset, by what a :class:`DealtSampler` gives."""

    def __init__(self, data: Dataset[SpotBatch]) -> None:
        self.data = data

    def __getitem__(self, dealt: Dealt) -> SpotBatch:
        return replace(self.data[dealt.core], spare=dealt.spare)
