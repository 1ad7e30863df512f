"""Attention: weights as the layers have them, roll-out in closed form, saliency by finite differences."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
import torch
from builders import fast, spots_of
from matplotlib import pyplot as plt
from matplotlib.collections import EllipseCollection
from scipy import sparse
from scipy.sparse.csgraph import shortest_path
from torch.nn import functional as F

from hist2scrna import pl
from hist2scrna.encoders import prepare_encoder
from hist2scrna.fitting.batches import make_batch
from hist2scrna.fitting.saliency import saliency, separate
from hist2scrna.models import Context, Prediction, SpotBatch, SpotModel, create_model
from hist2scrna.models.attention import AttentionRecorder, FusedAttention, attention_rollout
from hist2scrna.models.layers import PatchNormalization
from hist2scrna.pl._token_map import tokens_on_tissue
from hist2scrna.tl import attention, fit, predict

QUIET = {"progress": False, "accelerator": "cpu"}
CPU = {"device": torch.device("cpu"), "progress": False}
GENES = ["g3", "g1", "g8", "g5"]


@pytest.fixture(scope="module")
def model(make_section):
    return fit(make_section(), **fast(genes=GENES, max_epochs=2, lr=1e-3))


@pytest.fixture(scope="module")
def featured(make_section):
    def make(*args, **kwargs):
        adata = make_section(*args, **kwargs)
        rng = np.random.default_rng(3)
        adata.obsm["X_f"] = rng.normal(1, 2, (adata.n_obs, 7)).astype(np.float32)
        return adata

    return make


@pytest.fixture(scope="module")
def lightweight(featured):
    return fit(
        featured(), **fast(model="hist2scrna-lightweight", features_key="X_f", genes=GENES, max_epochs=2, lr=1e-3)
    )


@pytest.fixture
def unseen(featured):
    return featured("s9", seed=9, kind="hexagonal", n_spots=33)


@pytest.fixture(params=["model", "lightweight"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def close_figures():
    mpl.use("Agg")
    yield
    plt.close("all")


def whole(trained, adata):
    """One batch of all spots of a section, with inputs, and the graph it was cut from."""
    spots = trained.read(adata)
    return make_batch(spots, np.arange(len(spots)), Context("hops", 0), supervised=False)[0], spots


# -- the weights ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"is_causal": True}])
def test_explicit_weights_are_those_of_the_fused_attention(options) -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 5, generator=torch.Generator().manual_seed(0))
    with FusedAttention() as fused:
        mixed = F.scaled_dot_product_attention(q, k, v[..., :3], **options)
    logits = q @ k.transpose(-1, -2) * options.get("scale", 5**-0.5)
    if options.get("is_causal"):
        logits = logits.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
    weights = logits.softmax(dim=-1)
    torch.testing.assert_close(weights @ v[..., :3], mixed, rtol=0, atol=1e-5)
    (found,) = fused.layers
    # Logits of a few units, each a sum of five float32 products.
    torch.testing.assert_close(found, weights.mean(dim=1), rtol=0, atol=16 * torch.finfo(torch.float32).eps)


def test_weights_under_half_precision_are_in_full() -> None:
    q, k, v = torch.randn(3, 2, 4, 37, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16), FusedAttention() as fused:
        assert F.scaled_dot_product_attention(q, k, v).dtype == torch.bfloat16
    (found,) = fused.layers
    assert found.dtype == torch.float32
    # 37 weights, each rounded to float32.
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 37), rtol=0, atol=37 * torch.finfo(torch.float32).eps)


def test_weights_of_every_block_reproduce_what_it_mixed(model, unseen) -> None:
    """The weights found during a pass of the vision transformer give, times the values, the output of its layers."""
    batch, _ = whole(model, unseen)
    blocks = model.module.vit.blocks
    seen = []
    handles = [b.attn.register_forward_hook(lambda m, args, out: seen.append((m, args[0], out))) for b in blocks]
    with torch.no_grad(), FusedAttention() as fused:
        model.module.encode(batch)
    for handle in handles:
        handle.remove()
    assert len(fused.layers) == len(seen) == len(blocks)
    for weights, (layer, tokens, _) in zip(fused.layers, seen, strict=True):
        assert weights.shape == (33, 37, 37)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(33, 37), rtol=0, atol=1e-5)
        width = tokens.shape[-1] // layer.heads
        q, k, _ = layer.qkv(tokens).chunk(3, dim=-1)
        heads = [
            (a @ b.transpose(1, 2) / width**0.5).softmax(-1)
            for a, b in zip(q.split(width, -1), k.split(width, -1), strict=True)
        ]
        torch.testing.assert_close(weights, torch.stack(heads).mean(0), rtol=0, atol=1e-5)


def test_recording_changes_no_number(either, unseen) -> None:
    batch, _ = whole(either, unseen)
    with torch.no_grad():
        plain, recorded = either.module(batch), AttentionRecorder(either.module)(batch)
        after = either.module(batch)
    for name in ("log_mu", "embedding", "dropout_logits"):
        assert torch.equal(getattr(plain, name), getattr(recorded, name))
        assert torch.equal(getattr(plain, name), getattr(after, name))


def test_rollout_in_closed_form() -> None:
    even = torch.full((2, 5, 5), 0.2)
    torch.testing.assert_close(attention_rollout([even] * 3), torch.full((2, 4), 0.25))
    assert torch.equal(attention_rollout([torch.eye(5)[None]] * 2), torch.zeros(1, 4))
    # One layer: the class token's own row; two: Abnar and Zuidema's product, in numpy.
    first, second = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)).softmax(dim=-1)
    torch.testing.assert_close(attention_rollout([first]), first[:, 0, 1:] / first[:, 0, 1:].sum(1, keepdim=True))
    a, b = (0.5 * m.numpy() + 0.5 * np.eye(6) for m in (first, second))
    row = (b @ a)[:, 0, 1:]
    np.testing.assert_allclose(attention_rollout([first, second]), row / row.sum(axis=1, keepdims=True), rtol=1e-5)


# -- tl.attention -----------------------------------------------------------------------------------------------------
def test_slots(either, unseen, tmp_path) -> None:
    on_patches = either.geometry is not None
    predicted = predict(unseen.copy(), either, **QUIET)
    out = attention(unseen, either, genes=["g1", "g3"], **QUIET)
    assert out is unseen
    weights = unseen.obsp["hist2scrna_attention"]
    assert weights.format == "csr" and weights.dtype == np.float32
    # A mean over heads and layers of up to seven float32 weights.
    np.testing.assert_allclose(np.asarray(weights.sum(axis=1)).ravel(), 1, rtol=16 * np.finfo(np.float32).eps)
    assert weights.data.min() > 0
    pattern = either.read(unseen).graph.adjacency + sparse.eye_array(33)
    np.testing.assert_array_equal(weights.toarray() > 0, pattern.toarray() > 0)
    assert ("hist2scrna_attention_patch" in unseen.obsm) == on_patches
    if on_patches:
        patch = unseen.obsm["hist2scrna_attention_patch"]
        assert patch.shape == (33, 36) and patch.dtype == np.float32 and patch.min() >= 0
        np.testing.assert_allclose(patch.sum(axis=1), 1, rtol=1e-5)
        assert list(unseen.uns["hist2scrna_attention"]["grid"]) == [6, 6]
        # 108 um at 2 um a pixel.
        np.testing.assert_allclose(unseen.uns["hist2scrna_attention"]["patch_side"], [54.0])
    for gene in ("g1", "g3"):
        values = unseen.obsm[f"hist2scrna_saliency_{gene}"]
        assert values.shape == (33, 36 if on_patches else 7) and values.dtype == np.float32
        assert np.isfinite(values).all() and (values != 0).any()
    assert list(unseen.layers) == [] and "hist2scrna" not in unseen.uns
    unseen.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(again.obsp["hist2scrna_attention"].toarray(), weights.toarray())
    # The model itself predicts as before.
    after = predict(unseen.copy(), either, **QUIET)
    np.testing.assert_array_equal(after.layers["hist2scrna_mean"], predicted.layers["hist2scrna_mean"])


def test_weights_are_the_softmax_of_graph_attention(model, unseen) -> None:
    """Velickovic et al. 2018, equation 3, with dense matrices; and PyG's own answer for the second layer."""
    batch, spots = whole(model, unseen)
    dense = {}
    for layer in (0, 1):
        attention(unseen, model, graph_layer=layer, **QUIET)
        dense[layer] = unseen.obsp["hist2scrna_attention"].toarray()
    attention(unseen, model, **QUIET)
    mean = unseen.obsp["hist2scrna_attention"].toarray()
    np.testing.assert_allclose(mean, (dense[0] + dense[1]) / 2, rtol=1e-5, atol=1e-7)
    gat = model.module.spatial_gnn
    with torch.no_grad():
        tokens = model.module.encode(batch)
        heads, width = gat.gat1.heads, gat.gat1.out_channels
        mapped = (tokens @ gat.gat1.lin.weight.T).view(len(tokens), heads, width)
        source, target = ((mapped * a).sum(-1).T for a in (gat.gat1.att_src, gat.gat1.att_dst))
        logits = F.leaky_relu(target[:, :, None] + source[:, None, :], 0.2)
        linked = torch.from_numpy((spots.graph.adjacency + sparse.eye_array(33)).toarray() > 0)
        expected = logits.masked_fill(~linked, -torch.inf).softmax(dim=-1).mean(dim=0)
        hidden = F.elu(gat.gat1(tokens, batch.edge_index))
        _, (edges, own) = gat.gat2(hidden, batch.edge_index, return_attention_weights=True)
    np.testing.assert_allclose(dense[0], expected.numpy(), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(dense[1][edges[1], edges[0]], own[:, 0].numpy(), rtol=1e-4, atol=1e-7)


def test_blocks_and_batches_change_nothing(either, unseen, monkeypatch) -> None:
    in_one = attention(unseen.copy(), either, genes="g8", **QUIET)
    monkeypatch.setattr("hist2scrna.fitting.inference.GRAPH_BLOCK", 7)
    in_pieces = attention(unseen.copy(), either, genes="g8", batch_size=5, **QUIET)
    left, right = (out.obsp["hist2scrna_attention"].toarray() for out in (in_one, in_pieces))
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-7)
    assert set(in_one.obsm) == set(in_pieces.obsm) > {"hist2scrna_saliency_g8"}
    for slot in set(in_one.obsm) - {"spatial", "X_f"}:
        scale = np.abs(in_one.obsm[slot]).max()
        np.testing.assert_allclose(in_one.obsm[slot], in_pieces.obsm[slot], rtol=1e-3, atol=1e-4 * scale)


def test_sections_are_apart(model, make_section) -> None:
    first, second = make_section("a", seed=5), make_section("b", seed=6, kind="square")
    second.uns["spatial"]["b"]["scalefactors"]["mpp"] = 1.8
    both = ad.concat([first, second], uns_merge="unique")
    both = both[np.random.default_rng(0).permutation(both.n_obs)].copy()
    attention(both, model, library_key="library_id", key_added="k", **QUIET)
    attention(second, model, **QUIET)
    weights = both.obsp["k_attention"].tocoo()
    section = both.obs["library_id"].to_numpy()
    assert (section[weights.row] == section[weights.col]).all()
    index = both.obs_names.get_indexer(second.obs_names)
    together = both.obsp["k_attention"][index][:, index].toarray()
    np.testing.assert_allclose(together, second.obsp["hist2scrna_attention"].toarray(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(both.uns["k_attention"]["patch_side"], [54.0, 60.0])
    ax = pl.attention(both, key="k", kind="patch", spot=second.obs_names[3])
    left, right, bottom, top = ax.get_images()[-1].get_extent()
    np.testing.assert_allclose([right - left, bottom - top], 60.0)


def test_model_without_edges_attends_to_itself(featured) -> None:
    adata = featured()
    options = {"model": "hist2scrna-lightweight", "features_key": "X_f", "graph": False}
    alone = fit(adata, **fast(max_epochs=1, **options))
    attention(adata, alone, **QUIET)
    np.testing.assert_allclose(adata.obsp["hist2scrna_attention"].toarray(), np.eye(40), rtol=1e-6)


def test_nothing_is_written_when_it_fails(model, unseen, monkeypatch) -> None:
    def broken(*args, **kwargs):
        raise RuntimeError("no more memory")

    kept = {name: set(getattr(unseen, name)) for name in ("obs", "obsm", "obsp", "uns", "layers")}
    monkeypatch.setattr("hist2scrna.trained.attribution.saliency", broken)
    with pytest.raises(RuntimeError, match="no more memory"):
        attention(unseen, model, genes="g1", **QUIET)
    assert {name: set(getattr(unseen, name)) for name in kept} == kept
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.module.modules())


def test_wrong_requests(model, unseen, featured) -> None:
    with pytest.raises(KeyError, match=r"Genes \['ERBB2'\] are not among the 4 that the model predicts"):
        attention(unseen, model, genes=["g1", "ERBB2"], **QUIET)
    for wrong in (2, -1):
        with pytest.raises(ValueError, match=r"from 0 to 1, as the model has 2 graph"):
            attention(unseen, model, graph_layer=wrong, **QUIET)
    with pytest.raises(ValueError, match="`batch_size` to be at least 1, found 0"):
        attention(unseen, model, batch_size=0, **QUIET)
    ridge = fit(featured(), model="ridge", features_key="X_f", progress=False)
    with pytest.raises(ValueError, match=r"'ridge' has no attention.*\['hist2scrna', 'hist2scrna-lightweight'\]"):
        attention(unseen, ridge, **QUIET)
    whole_section = fit(featured(), **fast(model="histogene", preset=None, patch_size=8, n_layers=1, dim=16))
    with pytest.raises(ValueError, match="'histogene' reads a whole section at once.*hist2scrna-lightweight"):
        attention(unseen, whole_section, **QUIET)


# -- saliency ---------------------------------------------------------------------------------------------------------
def log_rates(network, spots, inputs: torch.Tensor, name: str) -> torch.Tensor:
    """Log mean of all spots at a library size of one."""
    batch = make_batch(spots, np.arange(len(spots)), Context("hops", 0), supervised=False)[0]
    setattr(batch, name, inputs)
    prediction = network(batch)
    return prediction.log_mu - prediction.log_library[:, None]


@pytest.mark.parametrize("kind", ["hist2scrna", "hist2scrna-lightweight"])
def test_saliency_is_the_derivative_along_the_input(unseen, kind, monkeypatch) -> None:
    """Scaling one token (feature) of one spot about the baseline, its neighbors as they are: central differences."""
    torch.manual_seed(0)
    on_patches = kind == "hist2scrna"
    options = {} if on_patches else {"n_features": 7}
    network = create_model(kind, n_genes=3, preset="tiny", **options).double().eval()
    # Differences need more digits than the heads keep.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    torch.nn.init.normal_(network.heads.rate.weight, std=0.3)
    spots = spots_of(
        unseen,
        library_key=None,
        spatial_key="spatial",
        features_key=None if on_patches else "X_f",
        patch_px=48 if on_patches else None,
    )
    everyone = np.arange(len(spots))
    if on_patches:
        inputs = torch.from_numpy(spots.patches.read(everyone)).double() / 255
        baseline = PatchNormalization().mean.double()
    else:
        features = torch.randn(50, 7, generator=torch.Generator().manual_seed(2)) * 3 + 1
        network.feature_mean.copy_(features.mean(dim=0))
        network.feature_scale.copy_(features.std(dim=0))
        inputs = torch.from_numpy(spots.features).double()
        baseline = network.feature_mean
    name = "patches" if on_patches else "features"
    batch = make_batch(spots, everyone, Context("hops", 0), supervised=False)[0]
    setattr(batch, name, inputs)
    with torch.no_grad():
        tokens = network.encode(batch)
    found = saliency(network, spots, tokens, [2, 0], batch_size=9, **CPU)
    assert found.shape == (2, 33, 36 if on_patches else 7)
    rng, checked = np.random.default_rng(0), []
    for spot, part in zip(rng.integers(33, size=6), rng.integers(found.shape[2], size=6), strict=True):
        moved = torch.zeros_like(inputs)
        if on_patches:
            row, column = divmod(int(part), 6)
            window = (spot, slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        else:
            window = (spot, part)
        moved[window] = (inputs - baseline)[window]
        with torch.no_grad():
            up, down = (log_rates(network, spots, inputs + step * moved, name)[spot] for step in (1e-5, -1e-5))
        slope = ((up - down) / 2e-5).numpy()
        checked.append((found[:, spot, part], slope[[2, 0]]))
    ours, expected = (np.array(part) for part in zip(*checked, strict=True))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


class Linear(SpotModel):
    """Log mean linear in the features, plus a spot's neighbors' mean."""

    needs, likelihood = "features", "poisson"

    def __init__(self) -> None:
        super().__init__()
        self.context = Context("hops", 1)
        self.register_buffer("feature_mean", torch.full((7,), 0.5))
        self.weight = torch.nn.Parameter(torch.arange(14.0).view(2, 7) - 5)

    def encode(self, batch):
        return batch.features - self.feature_mean

    def decode(self, tokens, batch):
        source, target = batch.edge_index
        around = torch.zeros_like(tokens).index_add(0, target, tokens[source])
        return Prediction(tokens[: batch.n_core], log_mu=((tokens + around) @ self.weight.T)[: batch.n_core])


def test_saliency_of_a_linear_model_is_its_terms(unseen) -> None:
    """What neighbors add to each other's predictions is in none of them."""
    spots = spots_of(unseen, library_key=None, spatial_key="spatial", features_key="X_f")
    network = Linear()
    found = saliency(network, spots, torch.from_numpy(spots.features) - 0.5, [1, 0], batch_size=64, **CPU)
    expected = network.weight.detach().numpy()[[1, 0], None] * (unseen.obsm["X_f"] - 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_spots_of_one_color_are_far_apart(unseen, hops) -> None:
    graph = spots_of(unseen, library_key=None, spatial_key="spatial", features_key="X_f").graph.adjacency
    color = separate(graph, hops)
    apart = shortest_path(graph, unweighted=True)
    same = color[:, None] == color[None, :]
    assert apart[same & ~np.eye(33, dtype=bool)].min() > hops
    assert color.max() + 1 <= (apart <= hops).sum(axis=1).max()


def test_trained_model_finds_the_tokens_that_tell(make_section) -> None:
    """The color that tells the type, and so the counts, is planted in the middle four tokens; noise is around it."""
    adata, other = make_section(n_spots=64), make_section("u", n_spots=33, seed=9)
    trained = fit(adata, seed=1, **fast(max_epochs=25, lr=1e-3))
    gene = adata.var_names[np.asarray(adata.X.sum(axis=0)).argmax()]
    attention(other, trained, genes=gene, **QUIET)
    planted = np.zeros((6, 6), dtype=bool)
    planted[2:4, 2:4] = True
    for slot in ("hist2scrna_attention_patch", f"hist2scrna_saliency_{gene}"):
        strength = np.abs(other.obsm[slot]).mean(axis=0).reshape(6, 6)
        assert strength[planted].min() > 1.5 * strength[~planted].max()


# -- pl.attention -----------------------------------------------------------------------------------------------------
@pytest.fixture
def attended(unseen):
    """A section with weights of our own choice, in place of a model's."""
    rng = np.random.default_rng(0)
    spots = spots_of(unseen, library_key=None, spatial_key="spatial", features_key="X_f")
    weights = (spots.graph.adjacency + sparse.eye_array(33)).toarray() * rng.uniform(0.1, 1, (33, 33))
    unseen.obsp["hist2scrna_attention"] = sparse.csr_matrix(weights / weights.sum(axis=1, keepdims=True))
    unseen.obsm["hist2scrna_attention_patch"] = rng.dirichlet(np.ones(9), 33)
    unseen.obsm["hist2scrna_saliency_g1"] = rng.normal(size=(33, 9))
    unseen.uns["hist2scrna_attention"] = {
        "model": "hist2scrna",
        "sections": np.array(["s9"]),
        "grid": np.array([3, 3]),
        "patch_side": np.array([30.0]),
    }
    return unseen


def drawn(ax) -> EllipseCollection:
    (found,) = [c for c in ax.collections if isinstance(c, EllipseCollection)]
    return found


def test_neighbors_of_a_spot_have_its_weights(attended) -> None:
    ax = pl.attention(attended, spot="s9_12")
    row = attended.obsp["hist2scrna_attention"][12].toarray().ravel()
    offsets = np.asarray(drawn(ax).get_offsets())
    for place, weight, text in zip(offsets, drawn(ax).get_array(), ax.texts, strict=True):
        spot = int(np.linalg.norm(attended.obsm["spatial"] - place, axis=1).argmin())
        assert weight == pytest.approx(row[spot])
        assert text.get_text() == f"{row[spot]:.2f}"
    assert len(offsets) == (row > 0).sum() == 7
    (lines,) = [c for c in ax.collections if not isinstance(c, EllipseCollection)]
    assert len(lines.get_segments()) == 6
    x, y = attended.obsm["spatial"][12]
    assert ax.get_xlim()[0] < x < ax.get_xlim()[1] < 540 and ax.get_ylim()[1] < y < ax.get_ylim()[0]


def test_section_shows_what_each_spot_gives_away(attended, tmp_path) -> None:
    ax = pl.attention(attended, save=tmp_path / "n.png")
    weights = attended.obsp["hist2scrna_attention"].toarray()
    np.testing.assert_allclose(drawn(ax).get_array(), 1 - weights.diagonal(), rtol=1e-6)
    (lines,) = [c for c in ax.collections if not isinstance(c, EllipseCollection)]
    relative = weights * (weights > 0).sum(axis=1, keepdims=True)
    strong = np.triu((relative + relative.T) / 2, 1) > 1
    assert len(lines.get_segments()) == strong.sum() > 5
    assert (tmp_path / "n.png").stat().st_size > 1000


@pytest.mark.parametrize("gene", [None, "g1"])
def test_tokens_lie_on_the_patch(attended, gene) -> None:
    kind = "patch" if gene is None else "saliency"
    slot = "hist2scrna_attention_patch" if gene is None else "hist2scrna_saliency_g1"
    ax = pl.attention(attended, kind=kind, gene=gene, spot="s9_20")
    picture, heat = ax.get_images()
    expected = attended.obsm[slot][20].reshape(3, 3) * (9 if gene is None else 1)
    np.testing.assert_allclose(heat.get_array(), expected)
    x, y = attended.obsm["spatial"][20]
    np.testing.assert_allclose(heat.get_extent(), [x - 15, x + 15, y + 15, y - 15])
    assert picture.get_extent()[0] <= x - 15 and picture.get_array().dtype == np.uint8
    if gene is not None:
        low, high = heat.get_clim()
        assert low == -high
    section = pl.attention(attended, kind=kind, gene=gene)
    assert section.get_images()[-1].get_array().count() > 33 * 4


def test_overlapping_tokens_are_averaged() -> None:
    xy = np.array([[10.0, 10.0], [14.0, 10.0]])
    values = np.array([[1.0, 2, 3, 4], [5.0, 6, 7, 8]])
    raster, extent = tokens_on_tissue(xy, values, 8.0, (2, 2))
    np.testing.assert_allclose(raster, [[1, 3.5, 6], [3, 5.5, 8]])
    np.testing.assert_allclose(extent, [6, 18, 14, 6])
    apart, _ = tokens_on_tissue(np.array([[0.0, 0], [12.0, 0]]), values, 4.0, (2, 2))
    assert apart.shape == (2, 8) and np.isnan(apart[:, 2:6]).all()


def test_wrong_drawings(attended) -> None:
    with pytest.raises(ValueError, match=r"`kind` to be one of \['neighbors', 'patch', 'saliency'\], found 'gene'"):
        pl.attention(attended, kind="gene")
    with pytest.raises(ValueError, match="`gene` goes with kind='saliency', found kind='patch' and gene='g1'"):
        pl.attention(attended, kind="patch", gene="g1")
    with pytest.raises(ValueError, match="found kind='saliency' and gene=None"):
        pl.attention(attended, kind="saliency")
    with pytest.raises(KeyError, match="Spot 'x' not found in adata.obs_names, such as"):
        pl.attention(attended, spot="x")
    with pytest.raises(KeyError, match=r"'other_attention' not found in adata.obsp.*Call tl.attention"):
        pl.attention(attended, key="other")
    with pytest.raises(KeyError, match=r"'hist2scrna_saliency_g2' not found .*genes="):
        pl.attention(attended, kind="saliency", gene="g2")
    del attended.uns["hist2scrna_attention"]["patch_side"]
    with pytest.raises(ValueError, match=r"read from files.*3 x 3 tokens"):
        pl.attention(attended, kind="patch")
    del attended.uns["hist2scrna_attention"]["grid"]
    with pytest.raises(ValueError, match="reads features, which have no place within a spot"):
        pl.attention(attended, kind="saliency", gene="g1")


def test_without_picture(attended) -> None:
    del attended.uns["spatial"], attended.obs["library_id"]
    assert not pl.attention(attended, spot="s9_12").get_images()
    assert len(pl.attention(attended, kind="patch").get_images()) == 1


def test_the_kernel_model_has_saliency_alone_by_way_of_its_encoder(make_section) -> None:
    encoder = replace(prepare_encoder("imagenet"), px=256)
    sections = [make_section(f"s{i}", seed=i, n_spots=12) for i in range(2)]
    train = ad.concat(sections, uns_merge="unique", merge="same")
    model = fit(train, encoder=encoder, library_key="library_id", progress=False)
    slide = make_section("new", seed=5, n_spots=6)
    with pytest.raises(ValueError, match=r"'kernel' has no attention.*Pass genes= for saliency"):
        attention(slide, model, progress=False)
    attention(slide, model, genes="g1", progress=False)
    assert "hist2scrna_attention" not in slide.obsp
    effects = slide.obsm["hist2scrna_saliency_g1"]
    assert effects.shape == (6, 16)
    # In one backward pass through everything, in place of two by way of the encoding.
    patches = torch.from_numpy(model.read(slide).patches.read(np.arange(6))).float() / 255
    patches.requires_grad_()
    batch = SpotBatch(6, torch.zeros(6, 2), torch.zeros(2, 0, dtype=torch.long), torch.zeros(6, dtype=torch.long))
    batch.features = encoder.encode(patches)
    (gradient,) = torch.autograd.grad(model.module(batch).log_mu[:, 1].sum(), patches)
    effect = (gradient * (patches - 127 / 255)).detach().sum(dim=1)
    by_token = effect.view(6, 4, 64, 4, 64).sum(dim=(2, 4)).flatten(1)
    np.testing.assert_allclose(effects, by_token, rtol=1e-3, atol=1e-4)
