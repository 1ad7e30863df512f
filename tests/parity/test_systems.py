"""TransformerST and hist2RNA, number for number: every stored run of theirs in the folder `systems`.

`HIST2SCRNA_FIXTURES` names the folder above it; without it, `../shared/fixtures` is read where it is there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_rule import unit, weight_by_rule
from torch.nn import functional as F

from hist2scrna.fitting.lightning_module import make_optimizer
from hist2scrna.fitting.objective import expression_loss
from hist2scrna.models import SpotBatch, section_transformer
from hist2scrna.models.contract import Prediction
from hist2scrna.models.hist2rna import Hist2RNA
from hist2scrna.models.registry import model_entry
from hist2scrna.models.transformerst import TransformerST
from hist2scrna.pp import normalize_stain

pytestmark = pytest.mark.parity
NAMED = os.environ.get("HIST2SCRNA_FIXTURES")
FOLDER = (Path(NAMED) if NAMED else Path(__file__).parents[3] / "shared" / "fixtures") / "systems"
RUNS = sorted(FOLDER.glob("*.pt"))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
GRADIENTS = {"rtol": 1e-3, "atol": 1e-6}
BAG = 6


def shapes_of_transformerst(*, patch_size: int, n_layers: int, n_genes: int, dim: int, n_pos: int) -> dict[str, tuple]:
    shapes: dict[str, tuple] = {
        "x_embed.weight": (n_pos, dim),
        "y_embed.weight": (n_pos, dim),
        "patch_embedding.weight": (dim, 3 * patch_size**2),
        "patch_embedding.bias": (dim,),
        "gene_head.0.weight": (dim,),
        "gene_head.0.bias": (dim,),
        "gene_head.1.weight": (n_genes, dim),
        "gene_head.1.bias": (n_genes,),
    }
    for layer in range(n_layers):
        block = f"vit.transformer.layers.{layer}"
        shapes |= {f"{block}.{part}.norm.{kind}": (dim,) for part in (0, 1) for kind in ("weight", "bias")}
        shapes |= {
            f"{block}.0.fn.to_qkv.weight": (3072, dim),
            f"{block}.0.fn.to_out.0.weight": (dim, 1024),
            f"{block}.0.fn.to_out.0.bias": (dim,),
            f"{block}.1.fn.net.0.weight": (2 * dim, dim),
            f"{block}.1.fn.net.0.bias": (2 * dim,),
            f"{block}.1.fn.net.3.weight": (dim, 2 * dim),
            f"{block}.1.fn.net.3.bias": (dim,),
        }
    return shapes


def shapes_of_hist2rna(*, n_features: int, n_genes: int) -> dict[str, tuple]:
    return {
        "c1.0.weight": (256, n_features, 5),
        "c1.0.bias": (256,),
        "c2.0.weight": (512, 256, 1),
        "c2.0.bias": (512,),
        "c3.0.weight": (512, 512, 1),
        "c3.0.bias": (512,),
        "output.0.weight": (n_genes, 512),
        "output.0.bias": (n_genes,),
    }


def ours_by_published_name(names: list[tuple[str, str]], published: list[str]) -> dict[str, str]:
    renamed = {}
    for name in published:
        pattern, new = next(pair for pair in names if re.fullmatch(pair[0], name))
        renamed[re.sub(pattern, new, name)] = name
    return renamed


def runs_of(system: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in RUNS if path.stem.startswith(system)]


def stored_of(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.fixture(params=runs_of("transformerst"))
def transformerst(request) -> dict:
    return stored_of(request.param)


@pytest.fixture(params=runs_of("hist2rna"))
def hist2rna(request) -> dict:
    stored = stored_of(request.param)
    if "init_args" not in stored:
        pytest.skip("no network stored")
    return stored


@pytest.fixture(params=[*runs_of("transformerst"), *runs_of("hist2rna")])
def stored(request) -> dict:
    return stored_of(request.param)


def restored_transformerst(stored: dict, trained: str = "all") -> TransformerST:
    arguments = stored["init_args"]
    network = TransformerST(**{"dropout": 0.1, **arguments}, trained=trained)
    state = stored.get("state_dict")
    if state is None:
        shapes = shapes_of_transformerst(**{k: v for k, v in arguments.items() if k != "dropout"})
        state = {name: weight_by_rule(name, shape) for name, shape in shapes.items()}
    network.load_reference_state_dict(state)
    return network.eval()


def section_of(stored: dict) -> SpotBatch:
    """The stored section: patches scaled by the range of its image, and array positions (row, column)."""
    inputs, side = stored["inputs"], stored["init_args"]["patch_size"]
    positions = inputs["positions"][0].float()
    n = len(positions)
    if "patches" in inputs:
        patches = inputs["patches"][0].view(n, side, side, 3)
    else:
        low, high = inputs["pixel_range"].tolist()
        pixels = np.floor(256 * unit("pixels", n * side * side * 3)).reshape(n, side, side, 3)
        patches = torch.from_numpy(((pixels - low) / (high - low)).astype(np.float32))
    return slides_or_spots(n, patches=patches.permute(0, 3, 1, 2), grid=positions.flip(1))


def slides_or_spots(n: int, **inputs: Any) -> SpotBatch:
    return SpotBatch(
        n_core=n,
        xy=torch.zeros(n, 2),
        edge_index=torch.empty(2, 0, dtype=torch.long),
        section=torch.zeros(n, dtype=torch.long),
        **inputs,
    )


def outputs_of(network: torch.nn.Module, batch: SpotBatch) -> tuple[Prediction, dict[str, torch.Tensor]]:
    """The prediction, and what every module inside put out."""
    seen: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    return network(batch), seen


def test_there_are_reference_outputs() -> None:
    if not FOLDER.is_dir():
        pytest.skip("no folder 'systems' next to the reference outputs")
    assert RUNS, f"no *.pt in '{FOLDER}'"


@torch.no_grad()
def test_transformerst_outputs(transformerst) -> None:
    network, batch = restored_transformerst(transformerst), section_of(transformerst)
    prediction, seen = outputs_of(network, batch)
    expected = transformerst["outputs"]["expression"][0]
    torch.testing.assert_close(prediction.value, expected, **CLOSE)
    torch.testing.assert_close(prediction.mean, expected, **CLOSE)
    if "n_parameters" in transformerst:
        assert sum(p.numel() for p in network.parameters()) == transformerst["n_parameters"]
    between = transformerst["intermediates"]
    places = {"patch_embedding": "patch_embedding", "embedded": "drop", "vit": f"blocks.{len(network.blocks) - 1}"}
    for i in range(len(network.blocks)):
        places |= {f"attention.{i}": f"blocks.{i}.attn", f"mlp.{i}": f"blocks.{i}.mlp"}
    assert between.keys() <= places.keys()
    for name, value in between.items():
        ours = seen[places[name]]
        torch.testing.assert_close(ours, value.reshape(ours.shape), **CLOSE)
    torch.testing.assert_close(prediction.embedding, between["vit"][0], **CLOSE)


@torch.no_grad()
def test_transformerst_reads_pixels_of_the_whole_range(transformerst) -> None:
    pixels = transformerst["inputs"].get("pixels")
    if pixels is None or (int(pixels.min()), int(pixels.max())) != (0, 255):
        pytest.skip("no pixels stored, or not from 0 to 255: the original divides by another range")
    batch = section_of(transformerst)
    batch.patches = pixels.permute(0, 3, 1, 2)
    value = restored_transformerst(transformerst)(batch).value
    torch.testing.assert_close(value, transformerst["outputs"]["expression"][0], **CLOSE)


@pytest.mark.parametrize("trained", ["all", "head"])
def test_transformerst_loss_and_gradients(transformerst, trained) -> None:
    if "losses" not in transformerst:
        pytest.skip("no losses stored")
    network = restored_transformerst(transformerst, trained)
    value = network(section_of(transformerst)).value
    loss = F.mse_loss(value, transformerst["inputs"]["target"][0])
    assert loss.item() == pytest.approx(transformerst["losses"]["mse"].item(), rel=1e-4)
    loss.backward()
    norms = transformerst["grad_norms"]
    published = ours_by_published_name(section_transformer.NAMES, list(norms))
    learning = set(transformerst["optimised"] if trained == "head" else norms)
    for name, parameter in network.named_parameters():
        if published[name] in learning:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad.norm(), norms[published[name]], **GRADIENTS)
        else:
            assert parameter.grad is None, name
            assert not parameter.requires_grad


def restored_hist2rna(stored: dict) -> Hist2RNA:
    arguments = stored["init_args"]
    network = Hist2RNA(arguments["n_genes"], n_features=arguments["n_features"])
    state = stored.get("state_dict")
    if state is None:
        state = {name: weight_by_rule(name, shape) for name, shape in shapes_of_hist2rna(**arguments).items()}
        assert sum(value.numel() for value in state.values()) == stored["n_parameters"]
    network.load_reference_state_dict(state)
    return network.eval()


def pooled_slides(stored: dict) -> SpotBatch:
    """One row of mean features a slide; with the stored target, counts of which it is log2(1 + x)."""
    inputs = stored.get("inputs")
    if inputs is None:
        n, width = len(stored["outputs"]["expression"]), stored["init_args"]["n_features"]
        bags = torch.from_numpy(unit("bags", n * BAG * width).astype(np.float32)).view(n, BAG, width)
        return slides_or_spots(n, features=bags.mean(dim=1))
    features = torch.stack([bag.mean(dim=0) for bag in inputs["bags"]])
    torch.testing.assert_close(features, inputs["pooled"][:, 0], **CLOSE)
    return slides_or_spots(len(features), features=features, counts=torch.exp2(inputs["target"]) - 1)


@torch.no_grad()
def test_hist2rna_outputs(hist2rna) -> None:
    outputs = hist2rna["outputs"]
    prediction, seen = outputs_of(restored_hist2rna(hist2rna), pooled_slides(hist2rna))
    torch.testing.assert_close(prediction.value, outputs.get("pooled_output", outputs.get("expression")), **CLOSE)
    torch.testing.assert_close(prediction.mean, (torch.exp2(prediction.value) - 1).clamp(min=0), **CLOSE)
    between = {name: value.squeeze(-1) for name, value in hist2rna.get("intermediates", {}).items()}
    for layer in (1, 2, 3):
        if f"c{layer}" in between:
            torch.testing.assert_close(F.relu(seen[f"hidden.{layer}"]), between[f"c{layer}"], **CLOSE)
    if "global_avg_pool" in between:
        torch.testing.assert_close(prediction.embedding, between["global_avg_pool"], **CLOSE)


def test_hist2rna_loss_and_gradients(hist2rna) -> None:
    if "grad_norms" not in hist2rna:
        pytest.skip("no gradients stored")
    network, batch = restored_hist2rna(hist2rna), pooled_slides(hist2rna)
    loss = expression_loss(network(batch), batch)
    assert loss.item() == pytest.approx(hist2rna["outputs"]["mse"].item(), rel=1e-4)
    loss.backward()
    published = {
        **{f"hidden.{i}.{kind}": f"c{i}.0.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")},
        **{f"heads.expression.{kind}": f"output.0.{kind}" for kind in ("weight", "bias")},
    }
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad.norm(), hist2rna["grad_norms"][published[name]], **GRADIENTS)
    by_tap = hist2rna["first_conv_gradient_by_tap"]
    middle = network.hidden["1"].weight.grad.abs().max()
    torch.testing.assert_close(by_tap, F.one_hot(torch.tensor(2), 5) * middle, **GRADIENTS)


def test_hist2rna_five_steps(hist2rna) -> None:
    if "five_adam_losses" not in hist2rna["outputs"]:
        pytest.skip("no steps stored")
    network, batch = restored_hist2rna(hist2rna).train(), pooled_slides(hist2rna)
    optimizer = make_optimizer(network, model_entry("hist2rna").defaults)
    losses = []
    for _ in range(5):
        loss = expression_loss(network(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(torch.stack(losses), hist2rna["outputs"]["five_adam_losses"], **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(network(batch).value, hist2rna["outputs"]["after_five_steps"], **CLOSE)


@torch.no_grad()
def test_hist2rna_from_images(hist2rna) -> None:
    if "images" not in hist2rna:
        pytest.skip("no images stored")
    side = round((hist2rna["init_args"]["n_features"] / 3) ** 0.5)
    features = [F.adaptive_avg_pool2d(images, side).flatten(1).mean(dim=0) for images in hist2rna["images"]]
    batch = slides_or_spots(len(features), features=torch.stack(features))
    expected = hist2rna["outputs"]["from_images"]
    torch.testing.assert_close(restored_hist2rna(hist2rna)(batch).value, expected, **CLOSE)


@pytest.mark.parametrize("path", runs_of("hist2rna_macenko"))
def test_stain_normalization(path) -> None:
    stored = stored_of(path)
    ours = normalize_stain(stored["image"].numpy())
    assert ours.dtype == np.uint8
    difference = np.abs(ours.astype(int) - stored["normalised"].numpy().astype(int))
    assert difference.max() <= 1


def test_weights_of_another_model_are_refused(stored) -> None:
    if "state_dict" not in stored:
        pytest.skip("no weights stored")
    restored = restored_transformerst if "n_pos" in stored["init_args"] else restored_hist2rna
    network = restored(stored)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = stored["state_dict"]
    for broken in (dict(list(weights.items())[1:]), {**weights, "more": torch.zeros(1)}):
        with pytest.raises(ValueError, match="does not fit"):
            network.load_reference_state_dict(broken)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_encoder_in_a_checkpoint_of_hist2rna_is_left_out(hist2rna, caplog) -> None:
    if "state_dict" not in hist2rna:
        pytest.skip("no weights stored")
    network = restored_hist2rna(hist2rna)
    with_encoder = {"base_model.conv1.weight": torch.zeros(64, 3, 7, 7), **hist2rna["state_dict"]}
    with caplog.at_level("WARNING", logger="hist2scrna"):
        network.load_reference_state_dict(with_encoder)
    assert "base_model." in caplog.text
