"""Models: shapes, presets, sizes, and what they may and may not depend on."""

from __future__ import annotations

import pytest
import torch

from hist2scrna.models import SpotBatch, create_model

pytestmark = pytest.mark.numeric

EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])


def batch(n=6, n_core=4, px=48, width=20):
    generator = torch.Generator().manual_seed(0)
    return SpotBatch(
        n_core=n_core,
        xy=torch.randn(n, 2, generator=generator),
        edge_index=EDGES,
        section=torch.zeros(n, dtype=torch.long),
        patches=torch.randint(0, 256, (n, 3, px, px), generator=generator, dtype=torch.uint8),
        features=torch.randn(n, width, generator=generator),
    )


def model(name, **options):
    torch.manual_seed(0)
    extra = {"n_features": 20} if name.endswith("lightweight") else {}
    return create_model(name, n_genes=9, n_classes=3, preset="tiny", **extra, **options).eval()


NAMES = ["hist2scrna", "hist2scrna-lightweight"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("likelihood", "has"),
    [
        ("zinb", {"mean", "mu", "dispersion", "dropout"}),
        ("nb", {"mean", "mu", "dispersion"}),
        ("poisson", {"mean", "mu"}),
        ("mse", {"mean"}),
    ],
)
@pytest.mark.parametrize("dispersion", ["gene", "spot"])
@torch.no_grad()
def test_prediction_holds_what_the_likelihood_has(name, likelihood, has, dispersion):
    prediction = model(name, likelihood=likelihood, dispersion=dispersion)(batch())
    for field in ("mean", "mu", "dispersion", "dropout"):
        value = getattr(prediction, field)
        assert (value is not None) == (field in has), field
        if value is not None:
            assert value.shape == (4, 9)
            assert torch.isfinite(value).all()
    assert prediction.label_logits.shape == (4, 3)
    assert prediction.embedding.shape[0] == 4
    if likelihood == "zinb":
        torch.testing.assert_close(prediction.mean, (1 - prediction.dropout) * prediction.mu)
        torch.testing.assert_close(prediction.distribution.mean, prediction.mean)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_mean_is_library_size_times_rate(name):
    network = model(name)
    one, ten = batch(), batch()
    one.log_library, ten.log_library = torch.zeros(4), torch.full((4,), 10.0).log()
    torch.testing.assert_close(network(ten).mean, 10 * network(one).mean)
    own = network(batch())
    given = batch()
    given.log_library = own.log_library
    torch.testing.assert_close(network(given).mean, own.mean)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_reach_is_two_edges_and_no_further(name):
    """Seed 0 of the chain 0-1-2-3-4 sees spot 2, and does not see spot 3; without graph it sees only itself."""

    def changes(network, spot):
        moved = batch()
        moved.patches[spot] = 255 - moved.patches[spot]
        moved.features[spot] += 1
        return (network(moved).log_mu[0] - network(batch()).log_mu[0]).abs().max() > 1e-5

    network, alone = model(name), model(name, graph=False)
    assert (network.context.kind, network.context.hops) == ("hops", 2)
    assert alone.context.kind == "spot"
    assert [bool(changes(network, spot)) for spot in range(5)] == [True, True, True, False, False]
    assert [bool(changes(alone, spot)) for spot in range(5)] == [True, False, False, False, False]


@torch.no_grad()
def test_lightweight_tells_directions_apart():
    """Two neighbors on opposite sides that change places change the prediction."""
    network = model("hist2scrna-lightweight")
    here, there = batch(), batch()
    there.xy = -there.xy
    assert (network(here).log_mu - network(there).log_mu).abs().max() > 1e-3


def test_float_patches_equal_bytes():
    network = model("hist2scrna")
    as_bytes, as_floats = batch(), batch()
    as_floats.patches = as_floats.patches.float() / 255
    with torch.no_grad():
        torch.testing.assert_close(network(as_floats).log_mu, network(as_bytes).log_mu)


def test_every_weight_gets_a_gradient():
    for name in NAMES:
        for likelihood in ("zinb", "mse"):
            network = model(name, likelihood=likelihood)
            prediction = network(batch())
            total = prediction.mean.square().sum() + prediction.label_logits.square().sum()
            if likelihood == "zinb":
                total = total + prediction.log_library.sum() + prediction.dispersion.sum()
            total.backward()
            idle = [n for n, p in network.named_parameters() if p.grad is None]
            assert idle == [], (name, likelihood)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_sizes_are_as_published():
    """Without our residual term and library head, and with dispersion per spot, `small` is the first publication's."""
    small = create_model("hist2scrna", n_genes=2000, n_classes=10, dispersion="spot", residual=False)
    assert parameters(small) - parameters(small.heads.library) == 27_806_714
    light = create_model("hist2scrna-lightweight", n_genes=2000, n_classes=10, n_features=2048)
    assert 10e6 <= parameters(light) <= 20e6
    base = create_model("hist2scrna", n_genes=100, preset="base")
    assert (len(base.vit.blocks), base.vit.pos_embed.shape[-1], base.vit.blocks[0].attn.heads) == (12, 768, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "hist2scrna", "n_genes": 0}, "n_genes.*0"),
        ({"name": "hist2scrna", "n_genes": 3, "n_classes": -1}, "n_classes.*-1"),
        ({"name": "hist2scrna", "n_genes": 3, "patch_px": 100, "token_px": 16}, "multiple of `token_px`.*100 and 16"),
        ({"name": "hist2scrna", "n_genes": 3, "width": 100, "heads": 6}, "multiple of `heads`.*100 and 6"),
        ({"name": "hist2scrna", "n_genes": 3, "dispersion": "cell"}, "dispersion.*'cell'"),
        ({"name": "hist2scrna-lightweight", "n_genes": 3}, "n_features="),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)
