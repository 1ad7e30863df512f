"""The networks of published encoders: pooling, and weights in the layouts of transformers and DINOv2."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hist2scrna.encoders.networks import PooledEncoder, as_timm, build_network, pool_tokens
from hist2scrna.encoders.published import ENCODERS


def described(name: str, entry, **changes):
    """A table with one encoder that is small."""
    return {name: dataclasses.replace(entry, **changes)}


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
    timm, transformers, tmp_path, swiglu, registers, random_weights
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
