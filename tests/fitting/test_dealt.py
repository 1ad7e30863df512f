"""Batches dealt to processes: each is learned from once, and a round of all is what one process adds up."""

from __future__ import annotations

import numpy as np
import pytest
from builders import spots_of
from torch.utils.data import DataLoader

from hist2scrna.fitting.batches import BlockSampler, SpotBlocks
from hist2scrna.fitting.dealt import DealtBatches, DealtSampler
from hist2scrna.fitting.processes import Place
from hist2scrna.models.contract import Context


@pytest.mark.parametrize("processes", [2, 3, 9])
@pytest.mark.parametrize("context", [Context("spot"), Context("hops", 1), Context("section")])
def test_rounds_of_all_processes_are_the_batches_of_one(make_section, context, processes):
    spots = spots_of(make_section(n_spots=40), patch_px=8)
    drawn = BlockSampler(spots, np.arange(40), context, 9, seed=3)
    ranks = [
        DealtSampler(BlockSampler(spots, np.arange(40), context, 9, seed=3), Place(rank, processes))
        for rank in range(processes)
    ]
    for epoch in (0, 1):
        drawn.epoch = epoch
        for sampler in ranks:
            sampler.epoch = epoch
        rounds = list(zip(*ranks, strict=True))
        assert len(rounds) == len(ranks[0]) == -(-len(drawn) // processes)
        dealt = [one.core for each in rounds for one in each if not one.spare]
        assert all(np.array_equal(core, own) for core, own in zip(dealt, drawn, strict=True))
        assert all(one.core.size for each in rounds for one in each)


def test_a_spare_batch_says_so(make_section):
    spots = spots_of(make_section(n_spots=20), patch_px=8)
    context = Context("spot")
    for rank in (0, 1):
        sampler = DealtSampler(BlockSampler(spots, np.arange(20), context, 8), Place(rank, 2))
        batches = list(DataLoader(DealtBatches(SpotBlocks(spots, context)), sampler=sampler, batch_size=None))
        assert [batch.spare for batch in batches] == [False, rank == 1]
