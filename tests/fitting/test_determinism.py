"""The same seed gives the same numbers: of a training, of its batches, and in a deterministic mode."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from builders import fast, spots_of
from torch.utils.data import DataLoader

import hist2scrna as h2s
from hist2scrna.fitting.batches import BlockSampler, SpotBlocks
from hist2scrna.models.contract import Context

FEATURES = {"features_key": "f", "progress": False}
MODELS = {
    "hist2scrna": fast(max_epochs=2, dropout=0.1),
    "hist2scrna-lightweight": {**FEATURES, "model": "hist2scrna-lightweight", "training": {"max_epochs": 2}},
    "kernel": {**FEATURES, "model": "kernel"},
    "ridge": {**FEATURES, "model": "ridge"},
}
QUICK = [name if name in ("hist2scrna", "kernel") else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
# Threads add up in another order: float32 keeps some seven digits, of which two epochs of Adam cost some.
BY_THREADS = 1e-3


@pytest.fixture
def section(make_section):
    adata = make_section()
    adata.obsm["f"] = np.random.default_rng(0).normal(size=(adata.n_obs, 6)).astype(np.float32)
    return adata


def predicted(section, name, **more):
    return h2s.tl.fit(section, **{**MODELS[name], **more}).predict(section, progress=False, copy=True).X


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUICK)
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(section, name):
    first = predicted(section, name)
    torch.manual_seed(99)
    np.random.seed(99)
    np.testing.assert_array_equal(predicted(section, name), first)
    if name.startswith("hist2scrna"):
        assert not np.array_equal(predicted(section, name, seed=1), first)


@pytest.mark.numeric
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_threads_change_no_more_than_the_rounding(section, name):
    before = torch.get_num_threads()
    found = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        try:
            found.append(predicted(section, name))
        finally:
            torch.set_num_threads(before)
    np.testing.assert_allclose(found[1], found[0], rtol=BY_THREADS, atol=BY_THREADS)


def test_batches_are_the_same_whatever_the_number_of_workers(section):
    spots = spots_of(section, patch_px=8)
    spots.counts = section.X.astype(np.float32)
    context = Context("hops", 2)
    found = []
    for n_workers in (0, 2):
        sampler = BlockSampler(spots, np.arange(len(spots)), context, 12, seed=3)
        loader = DataLoader(SpotBlocks(spots, context), sampler=sampler, batch_size=None, num_workers=n_workers)
        found.append([(batch.number, batch.patches, batch.edge_index) for batch in loader])
    assert len(found[0]) == len(found[1]) > 2
    for alone, helped in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_deterministic_operations_are_chosen_for_the_training_alone(section):
    chosen = []

    def look(prediction, batch):
        chosen.append(torch.are_deterministic_algorithms_enabled())
        return prediction.mean.sum() * 0

    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    for deterministic in (True, False):
        h2s.tl.fit(section, losses={"look": look}, **fast(deterministic=deterministic))
        assert not torch.are_deterministic_algorithms_enabled()
    assert chosen[0] and not chosen[-1]
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == workspace
    with pytest.raises(ValueError, match="`deterministic` to be True or False, found 'yes'"):
        h2s.Training(deterministic="yes")
