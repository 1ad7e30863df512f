"""An encoder of patches: normalization, fields of view, devices and modes, sizes, its card; and from a name to it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hist2scrna.encoders import Encoder, encoder_from_card, prepare_encoder
from hist2scrna.encoders.prepare import DEFAULT_ENCODER

CPU = torch.device("cpu")


def mean_color(patches: torch.Tensor) -> torch.Tensor:
    return patches.mean(dim=(2, 3))


class Linear(nn.Module):
    """All pixels of the patch to four numbers."""

    def __init__(self, px: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * px * px, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.drop(self.layer(patches.flatten(1)))


def noise(n: int, px: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, px, px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# -- encode ------------------------------------------------------------------------------------------------------------
def test_patches_are_normalized_whatever_their_type() -> None:
    patches = noise(3, 6)
    encoder = Encoder("mine", lambda p: p.flatten(1), colors=((0.1, 0.2, 0.3), (0.5, 2.0, 4.0)))
    expected = (patches.numpy() / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([0.5, 2, 4])[:, None, None]
    for pixels in (patches, patches.float() / 255):
        np.testing.assert_allclose(encoder.encode(pixels).numpy(), expected.reshape(3, -1), atol=1e-5)


def test_fields_of_view_are_the_middle_and_more_at_fewer_pixels() -> None:
    patches = noise(2, 24)
    encoder = Encoder("mine", lambda p: p.flatten(1), fields_of_view=(1, 2, 3))
    views = encoder.encode(patches).reshape(2, 3, 3, 8, 8).numpy()
    pixels = patches.numpy() / 255
    np.testing.assert_allclose(views[:, 0], pixels[..., 8:16, 8:16], atol=1e-6)
    np.testing.assert_allclose(
        views[:, 1], pixels[..., 4:20, 4:20].reshape(2, 3, 8, 2, 8, 2).mean(axis=(3, 5)), atol=1e-6
    )
    np.testing.assert_allclose(views[:, 2], pixels.reshape(2, 3, 8, 3, 8, 3).mean(axis=(3, 5)), atol=1e-6)


def test_gradients_reach_float_patches() -> None:
    pixels = torch.rand(2, 3, 4, 4, requires_grad=True)
    module = Linear()
    with Encoder("mine", module).on(CPU):
        Encoder("mine", module).encode(pixels).sum().backward()
    expected = module.layer.weight.sum(dim=0).reshape(3, 4, 4)
    torch.testing.assert_close(pixels.grad, expected.expand(2, -1, -1, -1))


def test_no_more_than_so_many_pass_at_once() -> None:
    sizes: list[int] = []
    encoder = Encoder("mine", lambda p: sizes.append(len(p)) or mean_color(p), at_once=4)
    assert encoder.encode(noise(10, 4)).shape == (10, 3)
    assert sizes == [4, 4, 2]


def test_the_module_is_in_eval_mode_within_and_as_it_was_afterwards() -> None:
    module = Linear()
    encoder = prepare_encoder(module)
    with encoder.on(CPU):
        assert not any(part.training for part in module.modules())
        torch.testing.assert_close(encoder.encode(noise(3, 4)), encoder.encode(noise(3, 4)))
    assert all(part.training for part in module.modules())


def test_half_precision_is_entered_and_left_and_features_are_float32() -> None:
    encoder = prepare_encoder(Linear())
    with encoder.on(CPU, "32-true"):
        full = encoder.encode(noise(3, 4))
    with encoder.on(CPU, "bf16-mixed"):
        assert torch.is_autocast_enabled("cpu")
        half = encoder.encode(noise(3, 4))
    assert not torch.is_autocast_enabled("cpu")
    assert half.dtype == full.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.05
    with pytest.raises(ValueError, match="`precision` to be one of.*'half'"), encoder.on(CPU, "half"):
        pass


def test_a_width_that_was_promised_is_held_to() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\) for 2 patches, found \(2, 3\)"):
        Encoder("mine", mean_color, width=10, fields_of_view=(1, 2)).encode(noise(2, 8))


# -- sizes -------------------------------------------------------------------------------------------------------------
def test_a_side_is_that_of_the_encoder_or_follows_from_microns() -> None:
    assert Encoder("mine", mean_color).side(50.0) == 224
    by_pixel = Encoder("mine", mean_color, um_per_px=0.5, token_px=16, fields_of_view=(1, 2), least_tokens=2)
    assert by_pixel.side(112.0) == 224
    assert by_pixel.side(1.0) == 64
    assert by_pixel.token_grid(224) == (7, 7)
    assert Encoder("mine", mean_color).token_grid() is None


@pytest.mark.parametrize(
    ("options", "px", "message"),
    [
        ({"fixed": True}, 96, "reads patches of 224 px only, found patch_px=96"),
        ({"token_px": 14}, 30, "a multiple of the 14 px of its tokens, found 30"),
        ({"token_px": 16, "fields_of_view": (1, 2), "least_tokens": 4}, 96, "of the 32 px of its tokens, 128 or more"),
        ({}, 0, "positive, found 0"),
    ],
)
def test_a_side_that_it_cannot_read_is_refused(options, px, message) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder("mine", mean_color, **options).check_side(px)
    Encoder("mine", mean_color, **options).check_side(224)


# -- from a name, and from a card --------------------------------------------------------------------------------------
def test_what_is_an_encoder_already_stays() -> None:
    encoder = Encoder("mine", mean_color, px=32, um=64.0)
    assert prepare_encoder(encoder) is encoder
    assert prepare_encoder(DEFAULT_ENCODER).name == "imagenet"
    assert prepare_encoder("Morphology").name == "morphology"
    assert prepare_encoder(mean_color).name == "mean_color"
    assert prepare_encoder(lambda p: p).name == "encoder"


@pytest.mark.parametrize("encoder", ["imagenet", "morphology", mean_color, Encoder("mine", mean_color)])
def test_weights_are_refused_where_there_is_nothing_to_fill(encoder) -> None:
    with pytest.raises(ValueError, match="`weights` are for modules and for published encoders by name"):
        prepare_encoder(encoder, "weights.safetensors")


@pytest.mark.parametrize("name", ["imagenet", "morphology"])
def test_a_card_is_plain_and_gives_the_encoder_again(name) -> None:
    encoder = prepare_encoder(name)
    card = json.loads(json.dumps(encoder.card()))
    again = encoder_from_card(card)
    assert again.card() == encoder.card() == card
    patches = noise(2, 4 * 64 if name == "imagenet" else 96)
    torch.testing.assert_close(again.encode(patches), encoder.encode(patches))


def test_a_card_keeps_the_colors_that_the_user_chose() -> None:
    colors = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    encoder = dataclasses.replace(prepare_encoder("morphology"), colors=colors)
    assert encoder_from_card(json.loads(json.dumps(encoder.card()))).colors == colors


@pytest.mark.parametrize(("field", "value"), [("version", "0"), ("sha256", "12ab")])
def test_another_encoder_of_the_same_name_is_refused(field, value) -> None:
    card = prepare_encoder("imagenet").card() | {field: value}
    with pytest.raises(ValueError, match=rf"whose {field} is '{value}'; here it is.*Pass the encoder of the training"):
        encoder_from_card(card)


@pytest.mark.parametrize(("encoder", "name"), [(mean_color, "mean_color"), (Linear(), "Linear")])
def test_a_function_or_module_must_be_passed_again(encoder, name) -> None:
    with pytest.raises(ValueError, match=f"encoder '{name}', a function or module.*Pass it again: encoder="):
        encoder_from_card(prepare_encoder(encoder).card())


def test_a_module_is_told_from_another_by_its_weights(tmp_path) -> None:
    module = Linear()
    save_file(module.state_dict(), tmp_path / "a.safetensors")
    assert prepare_encoder(module).sha256 == prepare_encoder(module).sha256 != prepare_encoder(Linear()).sha256
    filled = prepare_encoder(Linear(), tmp_path / "a.safetensors")
    torch.testing.assert_close(filled.module.layer.weight, module.layer.weight)
    assert filled.weights == str(tmp_path / "a.safetensors")
    assert len(filled.sha256) == 64
