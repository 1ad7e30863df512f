"""The published implementations, number for number: every stored run in the folder of reference outputs.

`HIST2SCRNA_FIXTURES` names the folder; without it, `../shared/fixtures` is read where it is there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hist2scrna.fitting.objective import Objective
from hist2scrna.models import SpotBatch, create_model
from hist2scrna.models.contract import Prediction

pytestmark = [pytest.mark.parity, pytest.mark.numeric]
NAMED = os.environ.get("HIST2SCRNA_FIXTURES")
FOLDER = Path(NAMED) if NAMED else Path(__file__).parents[3] / "shared" / "fixtures"
RUNS = sorted(FOLDER.glob("*.pt"))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
GRADIENTS = {"rtol": 1e-3, "atol": 1e-6}

# What the constructors of the originals take where a stored run does not say.
HIST2ST = {
    **{"n_genes": 785, "fig_size": 112, "dropout": 0.2, "n_pos": 64, "kernel_size": 5, "patch_size": 7, "depth1": 2},
    **{"depth2": 8, "depth3": 4, "heads": 16, "channel": 32, "zinb": 0, "nb": False, "bake": 0, "lamb": 0},
    "policy": "mean",
}
HISTOGENE = {"patch_size": 112, "n_layers": 4, "n_genes": 1000, "dim": 1024, "dropout": 0.1, "n_pos": 64}
FULL = {
    "n_genes": ("n_genes", 2000),
    "n_cell_types": ("n_classes", 0),
    "dropout": ("dropout", 0.1),
    "img_size": ("patch_px", 224),
    "patch_size": ("token_px", 16),
    "embed_dim": ("width", 384),
    "vit_depth": ("depth", 6),
    "vit_heads": ("heads", 6),
    "gnn_hidden": ("graph_width", 512),
    "gnn_heads": ("graph_heads", 4),
}


def known(arguments: dict, defaults: dict) -> dict:
    return {**defaults, **{k: v for k, v in arguments.items() if k in defaults}}


def model_of(stored: dict) -> str:
    arguments = stored["init_args"]
    if "gnn_hidden" in arguments or "embed_dim" in arguments or "spatial_gnn.gat1.att_src" in weights_of(stored):
        return "hist2scrna"
    return "hist2st" if "vit.transformer.jknet.0.weight_ih_l0" in weights_of(stored) else "histogene"


def weights_of(stored: dict) -> dict:
    if "state_dict" in stored:
        return stored["state_dict"]
    weights = dict(stored["state_dict_without_decoder4"])
    weights["decoder.4.weight"] = stored["decoder4_weight_int8"].float() / 127 * 0.03125
    return weights


def restored(stored: dict) -> nn.Module:
    name, arguments = model_of(stored), stored["init_args"]
    if name == "hist2scrna":
        options = {ours: arguments.get(theirs, default) for theirs, (ours, default) in FULL.items()}
        network = create_model(name, dispersion="spot", residual=False, **options)
        network.normalize = nn.Identity()
    else:
        network = create_model(name, **known(arguments, HIST2ST if name == "hist2st" else HISTOGENE))
        network.pixels = nn.Identity()
    network.load_reference_state_dict(weights_of(stored))
    return network.eval()


def batch_of(stored: dict) -> SpotBatch:
    """The stored inputs; their patches have the axes that the networks read, so they go past `pixels`."""
    inputs = stored["inputs"]
    if "images" in inputs:
        patches, grid = inputs["images"], None
    else:
        patches, grid = inputs["patches"][0], inputs["centers"][0].float()
        if patches.ndim == 2:
            side = round((patches.shape[1] / 3) ** 0.5)
            patches = patches.view(-1, side, side, 3).permute(0, 3, 1, 2)
    n = len(patches)
    edges = inputs["adj"].nonzero().T.flip(0) if "adj" in inputs else torch.empty(2, 0, dtype=torch.long)
    return SpotBatch(
        n_core=n,
        xy=torch.zeros(n, 2),
        edge_index=inputs.get("edge_index", edges),
        section=torch.zeros(n, dtype=torch.long),
        patches=patches,
        grid=grid,
        counts=inputs.get("oris"),
        log_library=torch.zeros(n),
    )


def squared_error(prediction: Prediction, stored: dict) -> torch.Tensor:
    return F.mse_loss(prediction.value, stored["inputs"]["exp"].reshape(prediction.value.shape))


@pytest.fixture(params=RUNS, ids=lambda path: path.stem)
def stored(request) -> dict:
    return torch.load(request.param, weights_only=True)


@pytest.fixture
def hist2st(stored) -> nn.Module:
    if model_of(stored) != "hist2st":
        pytest.skip("another model")
    return restored(stored)


def test_there_are_reference_outputs() -> None:
    if not NAMED and not FOLDER.is_dir():
        pytest.skip("reference outputs not found in ../shared/fixtures; name their folder in HIST2SCRNA_FIXTURES")
    assert RUNS, f"no *.pt in '{FOLDER}'"


@torch.no_grad()
def test_outputs(stored) -> None:
    prediction, outputs = restored(stored)(batch_of(stored)), stored["outputs"]
    if "mu" in outputs:
        torch.testing.assert_close(prediction.mu, outputs["mu"], **CLOSE)
        torch.testing.assert_close(prediction.dispersion, outputs["theta"], **CLOSE)
        torch.testing.assert_close(prediction.dropout, outputs["pi"], **CLOSE)
        if "cell_type_logits" in outputs:
            torch.testing.assert_close(prediction.label_logits, outputs["cell_type_logits"], **CLOSE)
        return
    torch.testing.assert_close(prediction.value, outputs["x"].reshape(prediction.value.shape), **CLOSE)
    extra = outputs.get("extra")
    if extra is None or len(extra) == 0:
        assert prediction.distribution is None
    elif len(extra) == 3:
        for ours, theirs in zip((prediction.mu, prediction.dispersion, prediction.dropout), extra, strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)
    else:
        torch.testing.assert_close(prediction.log_dispersion, extra[0], **CLOSE)
        torch.testing.assert_close(prediction.log_mu - prediction.log_dispersion, extra[1], **CLOSE)
    if "h" in outputs:
        torch.testing.assert_close(prediction.embedding, outputs["h"], **CLOSE)
    if outputs.get("coef") is not None:
        torch.testing.assert_close(prediction.view_score, outputs["coef"], **CLOSE)


@torch.no_grad()
def test_intermediates(stored) -> None:
    network, batch, between = restored(stored), batch_of(stored), stored.get("intermediates", {})
    if model_of(stored) == "hist2scrna":
        places = {"gat": lambda seen: seen["spatial_gnn"]}
    else:
        places = {
            "patch_embedding": lambda seen: seen["patch_embedding"],
            "down": lambda seen: seen["reduce"].flatten(1),
            "jknet": lambda seen: seen["jumping"][0],
            **{f"layer3.{i}": lambda seen, i=i: seen[f"level {i}"] for i in range(32)},
        }
        if hasattr(network, "blocks") and len(network.blocks):
            places["layer2"] = places["vit"] = lambda seen: seen[f"blocks.{len(network.blocks) - 1}"]
    seen: dict = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    if hasattr(network, "graph_layers"):
        for i, layer in enumerate(network.graph_layers):
            layer.register_forward_hook(lambda _, __, out, i=i: seen.update({f"level {i}": F.normalize(F.relu(out))}))
    network(batch)
    compared = [name for name in between if name in places]
    for name in compared:
        ours = places[name](seen)
        torch.testing.assert_close(ours, between[name].reshape(ours.shape), **CLOSE)
    assert compared or not between


def test_losses_and_gradients(stored) -> None:
    losses = stored.get("losses", {})
    if model_of(stored) == "hist2scrna" or not losses:
        pytest.skip("no losses stored")
    network = restored(stored)
    prediction = network(batch_of(stored))
    total = squared_error(prediction, stored)
    assert total.item() == pytest.approx(losses["mse"], rel=1e-4)
    if "zinb" in losses and prediction.distribution is not None:
        counts = network.negative_log_likelihood(prediction, stored["inputs"]["oris"], stored["inputs"]["sfs"])
        assert counts.item() == pytest.approx(losses["zinb"], rel=1e-4)
        total = total + network.zinb * counts
    if "total" in losses:
        assert total.item() == pytest.approx(losses["total"], rel=1e-4)
    total.backward()
    norms = sorted(float(p.grad.norm()) for p in network.parameters() if p.grad is not None)
    expected = sorted(v for v in stored.get("grad_norms", {}).values() if v is not None)
    if expected:
        torch.testing.assert_close(torch.tensor(norms), torch.tensor(expected), **GRADIENTS)


def test_self_distillation(stored, hist2st) -> None:
    if "distilled" not in stored:
        pytest.skip("no views stored")
    batch = batch_of(stored)
    own, *views = (hist2st(batch) for _ in range(3))
    batch.patches = stored["inputs"]["patches"][0].flip(-1)
    views[0] = hist2st(batch)
    batch.patches = stored["inputs"]["patches"][0].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    views[1] = hist2st(batch)
    own.views = views
    loss = Objective(losses={"distillation": 1.0}).extra["distillation"][0](own, batch)
    assert loss.item() == pytest.approx(stored["losses"]["bake_two_views"], rel=1e-3)
    weights = torch.stack([view.view_score for view in views]).softmax(dim=0)
    distilled = (torch.stack([view.value for view in views]) * weights).sum(dim=0)
    torch.testing.assert_close(distilled, stored["distilled"], **CLOSE)


@torch.no_grad()
def test_training_mode(stored, hist2st) -> None:
    if "train_mode_x" not in stored or hist2st.drop.p > 0:
        pytest.skip("no run in training mode stored, or one with dropout")
    prediction = hist2st.train()(batch_of(stored))
    torch.testing.assert_close(prediction.value, stored["train_mode_x"], **CLOSE)
    fresh = restored(stored)
    fresh.load_reference_state_dict({**weights_of(stored), **stored["bn_after_train_forward"]})
    for name, value in fresh.named_buffers():
        torch.testing.assert_close(dict(hist2st.named_buffers())[name], value, **CLOSE)


def test_weights_of_another_model_are_refused(stored) -> None:
    network = restored(stored)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = weights_of(stored)
    for broken in (dict(list(weights.items())[1:]), {**weights, "more": torch.zeros(1)}):
        with pytest.raises(ValueError, match="does not fit"):
            network.load_reference_state_dict(broken)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
