"""Blocks and halos: contiguous, complete, and exactly equal to the full graph."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import shortest_path

from hist2scrna.fitting.batches import BlockSampler, induced_edges, make_batch, spatial_blocks, with_halo
from hist2scrna.models.contract import Context
from hist2scrna.models.create import create_model
from hist2scrna.spots.graph import build_graph
from hist2scrna.spots.read import Spots

pytestmark = pytest.mark.numeric


def random_graph(n, edges, seed):
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, n, (2, edges))
    matrix = sparse.coo_array((np.ones(edges), pairs), shape=(n, n)).tocsr()
    matrix = ((matrix + matrix.T) > 0).astype(np.float32)
    matrix.setdiag(0)
    matrix.eliminate_zeros()
    return sparse.csr_array(matrix)


@given(
    n=st.integers(1, 40), edges=st.integers(0, 80), hops=st.integers(0, 3), seed=st.integers(0, 1000), data=st.data()
)
def test_halo_is_all_within_reach(n, edges, hops, seed, data):
    graph = random_graph(n, edges, seed)
    core = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True)))
    nodes = with_halo(graph, core, hops)
    np.testing.assert_array_equal(nodes[: len(core)], core)
    distance = shortest_path(graph, unweighted=True)[core].min(axis=0)
    np.testing.assert_array_equal(np.sort(nodes), np.flatnonzero(distance <= hops))
    dense = graph.toarray()[np.ix_(nodes, nodes)]
    source, target = induced_edges(graph, nodes)
    found = np.zeros_like(dense)
    np.add.at(found, (target, source), 1)
    np.testing.assert_array_equal(found, dense)


@given(n=st.integers(1, 300), size=st.integers(1, 50), seed=st.one_of(st.none(), st.integers(0, 9)))
def test_blocks_are_a_partition_of_at_most_size(n, size, seed):
    xy = np.random.default_rng(n).uniform(0, 1, (n, 2))
    members = np.random.default_rng(n + 1).permutation(1000)[:n]
    full = np.zeros((1000, 2))
    full[members] = xy
    blocks = spatial_blocks(full, members, size, None if seed is None else np.random.default_rng(seed))
    assert max(map(len, blocks)) <= size
    assert len(blocks) == -(-n // size)
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.sort(members))


def test_blocks_are_contiguous():
    xy = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0)), axis=-1).reshape(-1, 2)
    rng = np.random.default_rng(0)
    for block in spatial_blocks(xy, np.arange(1600), 64, rng):
        spread = np.ptp(xy[block], axis=0)
        assert spread.max() <= 20
        assert np.linalg.norm(xy[block] - xy[block].mean(axis=0), axis=1).mean() < 6


@pytest.mark.parametrize("context", [Context("spot"), Context("hops", 2), Context("section")])
def test_every_spot_is_a_seed_once_an_epoch(context):
    spots = make_spots("irregular")
    for seed in (None, 3):
        sampler = BlockSampler(spots, np.arange(len(spots)), context, 16, seed=seed)
        for _ in range(2):
            blocks = list(sampler)
            assert len(blocks) == len(sampler)
            np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(len(spots)))
            if context.kind != "spot" or seed is None:
                assert all(len(np.unique(spots.section[b])) == 1 for b in blocks)


def test_blocks_change_between_epochs_and_repeat_with_the_seed():
    spots = make_spots("hexagonal")
    first, again = (BlockSampler(spots, np.arange(len(spots)), Context("hops", 1), 16, seed=5) for _ in range(2))
    epochs = []
    for first.epoch in range(2):
        epochs.append([b.tolist() for b in first])
    assert epochs[0] != epochs[1]
    # The second epoch is the same without the first, as after a checkpoint.
    again.epoch = 1
    assert epochs[1] == [b.tolist() for b in again]


def make_spots(kind):
    """Three sections: a lattice with holes and a far, isolated spot; a smaller one; a single spot."""
    rng = np.random.default_rng(0)
    column, row = np.meshgrid(np.arange(12.0), np.arange(9.0))
    column, row = column.ravel(), row.ravel()
    if kind == "hexagonal":
        xy = np.stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2], axis=1)
    elif kind == "square":
        xy = np.stack([column, row], axis=1)
    else:
        xy = rng.uniform(0, 10, (108, 2))
    first = np.concatenate([xy[rng.random(len(xy)) > 0.15], [[100.0, 100.0]]]) * 50
    second = xy[:30] * 50
    xy = np.concatenate([first, second, [[10.0, 10.0]]])
    section = np.repeat([0, 1, 2], [len(first), len(second), 1])
    import anndata

    adata = anndata.AnnData(obs={"i": np.arange(len(xy))})
    return Spots(
        names=pd.Index([str(i) for i in range(len(xy))]),
        rows=np.arange(len(xy)),
        sections=("a", "b", "c"),
        section=section,
        xy=xy,
        graph=build_graph(adata, xy, section, ["a", "b", "c"]),
        features=rng.normal(size=(len(xy), 24)).astype(np.float32),
    )


class _Patches:
    """Random patches in place of a picture."""

    def __init__(self, n, px):
        self.all = np.random.default_rng(1).integers(0, 255, (n, 3, px, px)).astype(np.uint8)

    def read(self, index):
        return self.all[index]


def model_and_spots(name, kind):
    torch.manual_seed(0)
    spots = make_spots(kind)
    if name == "hist2scrna":
        spots.patches, spots.features = _Patches(len(spots), 16), None
        options = {"patch_px": 16, "token_px": 8, "width": 16, "depth": 1, "heads": 2, "graph_width": 12}
    else:
        options = {"n_features": 24, "width": 16, "depth": 3, "heads": 2}
    model = create_model(name, n_genes=7, n_classes=3, preset="tiny", **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model, spots


@pytest.mark.parametrize("kind", ["hexagonal", "square", "irregular"])
@pytest.mark.parametrize("name", ["hist2scrna", "hist2scrna-lightweight"])
@torch.no_grad()
def test_block_and_halo_equal_the_full_graph(name, kind):
    model, spots = model_and_spots(name, kind)
    everyone = np.arange(len(spots))
    full_batch, _ = make_batch(spots, everyone, Context("hops", 0), supervised=False)
    full = model(full_batch)
    assert full_batch.edge_index.shape[1] == spots.graph.adjacency.nnz
    isolated = np.diff(spots.graph.adjacency.indptr) == 0
    assert isolated[-1]
    for size in (1, 16):
        for core in BlockSampler(spots, everyone, model.context, size, seed=1):
            batch, nodes = make_batch(spots, core, model.context, supervised=False)
            part = model(batch)
            for field in ("log_mu", "dropout_logits", "label_logits", "embedding", "log_library"):
                torch.testing.assert_close(getattr(part, field), getattr(full, field)[core], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_dropping_the_halo_changes_the_prediction():
    """The flaw that the halo removes is real: without it the numbers differ by far more than rounding."""
    model, spots = model_and_spots("hist2scrna", "hexagonal")
    core = next(iter(BlockSampler(spots, np.arange(len(spots)), model.context, 16)))
    whole = model(make_batch(spots, core, model.context, supervised=False)[0])
    cut = model(make_batch(spots, core, Context("hops", 1), supervised=False)[0])
    assert (whole.log_mu - cut.log_mu).abs().max() > 1e-3
