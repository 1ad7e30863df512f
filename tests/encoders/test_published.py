"""The pathology encoders by name: the table, the networks, the weights, and what is said where something is missing."""

from __future__ import annotations

import dataclasses
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hist2scrna.encoders.networks import PooledEncoder, as_timm, build_network, pool_tokens
from hist2scrna.encoders.published import ENCODERS
from hist2scrna.pp import extract_features

# Of the model cards and papers, rounded as these are.
MILLIONS = {
    "uni": 303,
    "uni2-h": 681,
    "virchow": 631,
    "virchow2": 631,
    "h-optimus-0": 1135,
    "h-optimus-1": 1135,
    "prov-gigapath": 1135,
    "phikon-v2": 303,
    "midnight-12k": 1135,
    "hibou-b": 86,
    "hibou-l": 304,
}


@pytest.fixture
def timm():
    """The library timm, or a skip: it is an extra, and its torchvision must be that of torch."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported: {error}")
    return timm


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def described(name: str, entry, **changes):
    """A table with one encoder that is small."""
    return {name: dataclasses.replace(entry, **changes)}


def random_weights(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(value.shape, generator=rng) for name, value in model.state_dict().items()}


# -- the table --------------------------------------------------------------------------------------------------------
def test_the_table_agrees_with_what_the_field_knows(shared_data) -> None:
    text = (shared_data.parent / "FIELD.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.partition("## Encoders")[2].splitlines()
        if line.startswith("|")
    ][2:]
    known = {"ImageNet": (0.485, 0.456, 0.406), "CLIP": (0.481, 0.458, 0.408), ".5 / .5": (0.5, 0.5, 0.5)}
    seen, previous = [], ""
    for names, hub, widths, read, license, colors in rows:
        for number, name in enumerate(names.split(", ")):
            entry = ENCODERS[name.lower()]
            seen.append(entry.name)
            owner_and_name = hub.partition(",")[0].lower()
            assert entry.hub_id.lower().startswith(owner_and_name[:-1])
            assert entry.width == int(widths.partition(" ")[0] if "(" in widths else widths.split(", ")[number])
            assert (entry.pooling == "class+mean") == ("class + mean" in widths)
            assert license.partition(",")[0].startswith(entry.license.removesuffix("-4.0"))
            assert entry.gated or "gated" not in license
            if read != "-":
                assert entry.px == int(read.partition(" ")[0])
            if colors == "same":
                colors = previous
            found = re.findall(r"\.\d+", colors)
            mean = known.get(colors) or tuple(float(number) for number in found[:3])
            np.testing.assert_allclose(entry.colors[0], mean, atol=1e-3)
            if len(found) == 6:
                assert entry.colors[1] == tuple(float(number) for number in found[3:])
        previous = colors
    assert sorted(seen) == sorted(ENCODERS)
    assert ENCODERS["virchow2"].registers == 4


def test_every_entry_reads_whole_tokens() -> None:
    assert all(entry.px % entry.token_px == 0 for entry in ENCODERS.values())
    assert all(name == entry.name == name.lower() for name, entry in ENCODERS.items())
    assert {entry.package for entry in ENCODERS.values()} == {"timm", "conch"}


@pytest.mark.parametrize("name", [name for name, entry in ENCODERS.items() if entry.package == "timm"])
def test_networks_are_those_that_were_published(timm, name) -> None:
    entry = ENCODERS[name]
    network = build_network(entry)
    parameters = dict(network.named_parameters())
    assert all(value.is_meta for value in parameters.values())
    assert list(network.buffers()) == []
    assert round(sum(value.numel() for value in parameters.values()) / 1e6) == MILLIONS[name]
    backbone = network.backbone
    assert backbone.num_prefix_tokens == 1 + entry.registers
    assert backbone.patch_embed.patch_size == (entry.token_px, entry.token_px)
    assert backbone.num_features * (2 if entry.pooling == "class+mean" else 1) == entry.width
    assert backbone.norm.eps == 1e-6


# -- pooling and the names of weights ---------------------------------------------------------------------------------
def test_tokens_are_pooled_without_the_registers() -> None:
    tokens = torch.tensor([[[1.0, 2.0], [90.0, 90.0], [80.0, 80.0], [3.0, 5.0], [5.0, 9.0]]])
    assert pool_tokens(tokens, "class", 2).tolist() == [[1.0, 2.0]]
    assert pool_tokens(tokens, "class+mean", 2).tolist() == [[1.0, 2.0, 4.0, 7.0]]
    assert pool_tokens(tokens, "class+mean", 0).tolist() == [[1.0, 2.0, 44.5, 46.0]]


def test_the_encoder_pools_what_the_backbone_gives() -> None:
    class Backbone(nn.Module):
        def forward_features(self, patches):
            return patches.flatten(2).transpose(1, 2)

    patches = torch.arange(24.0).reshape(1, 3, 2, 4)
    found = PooledEncoder(Backbone(), "class+mean", 3)(patches)
    assert found.tolist() == [[0.0, 8.0, 16.0, 5.5, 13.5, 21.5]]


def test_names_of_timm_stay() -> None:
    state = {
        "cls_token": torch.ones(1, 1, 2),
        "pos_embed": torch.ones(1, 5, 2),
        "blocks.0.attn.qkv.bias": torch.ones(6),
    }
    assert as_timm(state, 4).keys() == state.keys()
    assert all(as_timm(state, 4)[name] is value for name, value in state.items())


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("registers", [0, 4])
def test_weights_of_transformers_give_the_tokens_of_transformers(
    timm, transformers, tmp_path, swiglu, registers
) -> None:
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    options = {"num_register_tokens": registers} if registers else {}
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, use_swiglu_ffn=swiglu,
        **options,
    )  # fmt: skip
    reference = getattr(transformers, f"{kind}Model")(config).eval()
    reference.load_state_dict(random_weights(reference))
    reference.save_pretrained(tmp_path)
    # Its files have other names than its modules have.
    state = load_file(tmp_path / "model.safetensors")
    small = described(
        "hibou-b" if registers else "midnight-12k",
        ENCODERS["hibou-b" if registers else "midnight-12k"],
        architecture="vit_tiny_patch16_224",
        arguments={
            **{"patch_size": 14, "embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 1.0},
            **{"mlp_ratio": 2 * 64 / 24 if swiglu else 4, "no_embed_class": registers > 0},
        },
        swiglu=swiglu,
        px=28,
    )
    network = build_network(*small.values())
    network.backbone.load_state_dict(as_timm(state, registers), assign=True)
    patches = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(patches).last_hidden_state
        found = network.eval().backbone.forward_features(patches)
        pooled = network(patches)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled[:, :24], expected[:, 0], rtol=1e-4, atol=1e-5)
    if not registers:
        torch.testing.assert_close(pooled[:, 24:], expected[:, 1:].mean(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("registers", [0, 4])
def test_weights_of_the_dinov2_repository_are_named_as_timm_names_them(timm, registers) -> None:
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = {
        "cls_token": torch.randn(1, 1, 8),
        "pos_embed": torch.randn(1, 5, 8),
        "mask_token": torch.randn(1, 8),
        "patch_embed.proj.weight": torch.randn(8, 3, 14, 14),
        "blocks.0.attn.qkv.weight": torch.randn(24, 8),
        "blocks.0.ls1.gamma": torch.randn(8),
        "blocks.0.mlp.w12.weight": torch.randn(32, 8),
        "blocks.0.mlp.w3.bias": torch.randn(8),
        "norm.weight": torch.randn(8),
    }
    if registers:
        state["register_tokens"] = torch.randn(1, registers, 8)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=28, patch_size=14, embed_dim=8, depth=1, num_heads=2, reg_tokens=registers,
        no_embed_class=registers > 0, num_classes=0,
    )  # fmt: skip
    expected = checkpoint_filter_fn(dict(state), model)
    found = as_timm(state, registers)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


# -- from a name to features ------------------------------------------------------------------------------------------
def small_uni(monkeypatch, **changes) -> None:
    monkeypatch.setitem(
        ENCODERS, "uni", dataclasses.replace(ENCODERS["uni"], architecture="vit_tiny_patch16_224", width=192, **changes)
    )


def test_a_published_encoder_gives_what_timm_gives_from_the_same_file(
    timm, make_section, monkeypatch, tmp_path
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


def test_another_size_must_be_whole_tokens(timm, make_section, monkeypatch, tmp_path) -> None:
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


# -- the hub ----------------------------------------------------------------------------------------------------------
class HubError(OSError):
    """Stands for the errors of huggingface_hub."""


class EntryNotFoundError(Exception):
    pass


class RepositoryNotFoundError(HubError):
    pass


def hub(monkeypatch, *, cached=None, answer=None) -> list[tuple[str, str]]:
    """Put a stand-in for huggingface_hub in place; returns what it will have been asked to download."""
    asked: list[tuple[str, str]] = []

    def download(repository, name):
        asked.append((repository, name))
        return answer(name)

    module, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    module.hf_hub_download = download
    module.try_to_load_from_cache = lambda repository, name: (cached or {}).get(name)
    errors.HfHubHTTPError = HubError
    errors.EntryNotFoundError = EntryNotFoundError
    errors.RepositoryNotFoundError = RepositoryNotFoundError
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def fails(error):
    def answer(name):
        raise error

    return answer


def test_weights_in_the_cache_need_no_connection(monkeypatch, tmp_path) -> None:
    from hist2scrna.encoders.weights import hub_file

    file = tmp_path / "snapshots" / "abc123" / "pytorch_model.bin"
    asked = hub(monkeypatch, cached={"pytorch_model.bin": str(file)})
    assert hub_file(ENCODERS["uni"]) == (file, "hf://MahmoodLab/UNI@abc123/pytorch_model.bin")
    assert asked == []


def test_weights_are_looked_for_under_both_names(monkeypatch, tmp_path) -> None:
    from hist2scrna.encoders.weights import hub_file

    def answer(name):
        if name == "model.safetensors":
            raise EntryNotFoundError("404")
        return str(tmp_path / name)

    asked = hub(monkeypatch, answer=answer)
    assert hub_file(ENCODERS["uni"])[0] == tmp_path / "pytorch_model.bin"
    assert asked == [("MahmoodLab/UNI", "model.safetensors"), ("MahmoodLab/UNI", "pytorch_model.bin")]


def test_gated_weights_say_how_they_are_had(monkeypatch) -> None:
    from hist2scrna.encoders.weights import hub_file

    hub(monkeypatch, answer=fails(RepositoryNotFoundError("401")))
    with pytest.raises(PermissionError, match=r"https://huggingface\.co/MahmoodLab/UNI.*CC-BY-NC-ND.*hf auth login"):
        hub_file(ENCODERS["uni"])


@pytest.mark.parametrize("error", [EntryNotFoundError("not cached"), HubError("503"), ConnectionError("no network")])
def test_weights_that_cannot_be_reached_are_named(monkeypatch, error) -> None:
    from hist2scrna.encoders.weights import hub_file

    hub(monkeypatch, answer=fails(error))
    with pytest.raises(FileNotFoundError, match=rf"kaiko-ai/midnight: {error}.*pass weights="):
        hub_file(ENCODERS["midnight-12k"])


def test_without_the_hub_its_extra_is_named(monkeypatch) -> None:
    from hist2scrna.encoders.weights import hub_file

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"hist2scrna\[encoders\].*or pass weights="):
        hub_file(ENCODERS["uni"])


def test_a_real_cache_is_read_without_a_connection(monkeypatch, tmp_path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    from hist2scrna.encoders.weights import hub_file

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="pass weights="):
        hub_file(ENCODERS["uni"])
    repository = tmp_path / "models--MahmoodLab--UNI"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "pytorch_model.bin").write_bytes(b"weights")
    file, origin = hub_file(ENCODERS["uni"])
    assert file.read_bytes() == b"weights"
    assert origin == f"hf://MahmoodLab/UNI@{'0' * 40}/pytorch_model.bin"
