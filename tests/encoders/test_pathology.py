"""From a name to features: published encoders, models of timm, and what is said where something is missing."""

from __future__ import annotations

import dataclasses
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hist2scrna.encoders import encoder_from_card, prepare_encoder
from hist2scrna.encoders.published import ENCODERS
from hist2scrna.pp import extract_features


def small_uni(monkeypatch, **changes) -> None:
    monkeypatch.setitem(
        ENCODERS, "uni", dataclasses.replace(ENCODERS["uni"], architecture="vit_tiny_patch16_224", width=192, **changes)
    )


def test_a_published_encoder_gives_what_timm_gives_from_the_same_file(
    timm, make_section, monkeypatch, tmp_path, random_weights
) -> None:
    small_uni(monkeypatch)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, init_values=1e-5).eval()
    state = random_weights(model)
    model.load_state_dict(state)
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "model.safetensors")
    model.load_state_dict({name: value.half().float() for name, value in state.items()})
    adata = make_section(n_spots=6)
    extract_features(adata, "UNI", weights=tmp_path, progress=False)
    seen: list[torch.Tensor] = []
    extract_features(
        adata, lambda p: seen.append(p) or p.mean(dim=(2, 3)), key_added="raw", patch_um=112, progress=False
    )
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = model((seen[0] - mean) / std)
    np.testing.assert_allclose(adata.obsm["X_uni"], expected.numpy(), rtol=1e-3, atol=1e-4)
    about = adata.uns["X_uni"]
    assert (about["patch_um"], about["patch_px"], about["um_per_px"]) == (112.0, 224, 0.5)
    assert about["license"] == "CC-BY-NC-ND-4.0"
    assert about["hub_id"] == "MahmoodLab/UNI"
    assert about["pooling"] == "class"


def test_a_card_finds_the_weights_again_or_says_that_they_are_others(
    timm, monkeypatch, tmp_path, random_weights
) -> None:
    small_uni(monkeypatch)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, init_values=1e-5)
    save_file(random_weights(model), tmp_path / "model.safetensors")
    encoder = prepare_encoder("uni", tmp_path)
    card = encoder.card()
    patches = torch.rand(2, 3, 224, 224, requires_grad=True)
    features = encoder_from_card(card).encode(patches)
    torch.testing.assert_close(features, encoder.encode(patches))
    features.sum().backward()
    assert (patches.grad.abs() > 0).any()
    moved = (tmp_path / "model.safetensors").rename(tmp_path / "moved.safetensors")
    assert encoder_from_card(card, moved).sha256 == card["sha256"]
    save_file(random_weights(model, 1), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="whose sha256 is"):
        encoder_from_card(card, tmp_path / "other.safetensors")


def test_another_size_must_be_whole_tokens(timm, make_section, monkeypatch, tmp_path, random_weights) -> None:
    small_uni(monkeypatch)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, init_values=1e-5)
    save_file(random_weights(model), tmp_path / "model.safetensors")
    adata = make_section(n_spots=6)
    extract_features(adata, "uni", weights=tmp_path, patch_px=64, patch_um=80.0, progress=False)
    assert adata.obsm["X_uni"].shape == (6, 192)
    assert adata.uns["X_uni"]["um_per_px"] == 1.25
    with pytest.raises(ValueError, match="multiple of the 16 px of its tokens, found 60"):
        extract_features(adata, "uni", weights=tmp_path, patch_px=60, progress=False)


def test_weights_of_another_encoder_are_refused(timm, make_section, tmp_path) -> None:
    save_file({"fc.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing.*; 1 not of this network \(fc\.weight\)"):
        extract_features(make_section(n_spots=6), "hibou-b", weights=tmp_path, progress=False)


def test_a_model_of_timm_by_name_and_file(timm, make_section, tmp_path) -> None:
    model = timm.create_model("resnet18", num_classes=1000).eval()
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    adata = make_section(n_spots=6)
    extract_features(adata, "resnet18", weights=tmp_path / "resnet18.pth", progress=False)
    about = adata.uns["X_resnet18"]
    assert (about["patch_px"], about["patch_um"]) == (224, 108.0)
    np.testing.assert_allclose(about["mean"], (0.485, 0.456, 0.406))
    assert about["license"] == "apache-2.0"
    model.reset_classifier(0)
    extract_features(
        adata, model, key_added="module", normalize=(about["mean"], about["std"]), patch_um=108.0, progress=False
    )
    np.testing.assert_allclose(adata.obsm["X_resnet18"], adata.obsm["module"], rtol=1e-5)
    assert adata.obsm["module"].shape == (6, 512)


def test_a_transformer_of_timm_reads_its_own_size(timm, make_section, tmp_path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="reads patches of 224 px only, found patch_px=96"):
        extract_features(make_section(n_spots=6), "vit_tiny_patch16_224", weights=tmp_path, patch_px=96, progress=False)


@pytest.mark.parametrize(("name", "near"), [("virchow-2", "virchow2"), ("resnet_18", "resnet18")])
def test_an_unknown_name_is_answered_by_the_nearest(timm, make_section, name, near) -> None:
    with pytest.raises(ValueError, match=f"Unknown encoder '{name}'. Did you mean '{near}'"):
        extract_features(make_section(), name, progress=False)


# -- what is missing --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["uni", "resnet18"])
def test_without_timm_its_extra_is_named(make_section, monkeypatch, name) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"needs timm.*pip install 'hist2scrna\[encoders\]'"):
        extract_features(make_section(), name, progress=False)


def test_a_torchvision_of_another_torch_is_named(make_section, monkeypatch, tmp_path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ImportError, match=rf"does not fit torch {re.escape(torch.__version__)}.*nms"):
        extract_features(make_section(), "uni", progress=False)


def test_conch_needs_its_own_package(make_section, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "conch", None)
    with pytest.raises(ImportError, match=r"CONCH.*pip install git\+https://github\.com/mahmoodlab/CONCH"):
        extract_features(make_section(), "conch", progress=False)


class Conch(nn.Module):
    """Stands for the model of the package: a picture half, and a flag that tells how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Linear(3, 512)
        self.called: set[tuple[bool, bool]] = set()

    def encode_image(self, patches, *, proj_contrast, normalize):
        self.called.add((proj_contrast, normalize))
        return self.visual(patches.mean(dim=(2, 3)))


def test_conch_is_built_by_its_package_from_a_file_read_as_weights_only(make_section, monkeypatch, tmp_path) -> None:
    model = Conch()
    package = ModuleType("conch.open_clip_custom")

    def create(architecture, *, checkpoint_path, return_transform):
        assert (architecture, return_transform) == ("conch_ViT-B-16", False)
        model.load_state_dict(torch.load(checkpoint_path, weights_only=True))
        return model

    package.create_model_from_pretrained = create
    monkeypatch.setitem(sys.modules, "conch", ModuleType("conch"))
    monkeypatch.setitem(sys.modules, "conch.open_clip_custom", package)
    torch.save(Conch().state_dict(), tmp_path / "pytorch_model.bin")
    adata = make_section(n_spots=3)
    extract_features(adata, "conch", weights=tmp_path, progress=False)
    assert adata.obsm["X_conch"].shape == (3, 512)
    assert (adata.uns["X_conch"]["patch_px"], adata.uns["X_conch"]["patch_um"]) == (448, 224.0)
    assert adata.uns["X_conch"]["pooling"] == "the encoder's own"
    assert model.called == {(False, False)}
    monkeypatch.setattr(model, "visual", nn.Linear(1, 1))
    torch.save({"visual.bias": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    model.load_state_dict = lambda state: None
    with pytest.raises(ValueError, match=r"not those of CONCH: 1 are missing \(visual\.weight\)"):
        extract_features(adata, "conch", weights=tmp_path, progress=False)
