"""Networks compiled for a CPU return what torch returns, and only where that is safe."""

from __future__ import annotations

import sys

import pytest
import torch

from hist2scrna.encoders import compiled, prepare_encoder
from hist2scrna.encoders.compiled import WORTHWHILE, compiled_on
from hist2scrna.encoders.encoder import Encoder
from hist2scrna.encoders.imagenet import imagenet_encoder

CPU = torch.device("cpu")
PX = 256
MANY = WORTHWHILE // PX**2 + 1


@pytest.fixture(autouse=True)
def _nothing_compiled(monkeypatch):
    monkeypatch.setattr(compiled, "_COMPILED", {})


def _patches(n: int, px: int = PX) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, px, px), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("px", [PX, 320])
def test_features_are_those_of_torch(px):
    encoder = imagenet_encoder()
    fast = compiled_on(encoder, CPU, "32-true", px=px, n_patches=MANY)
    assert fast.network is not encoder.network
    patches = _patches(5, px)
    with encoder.on(CPU, "32-true"), torch.no_grad():
        expected, found = encoder.encode(patches), fast.encode(patches)
    # Of features up to 16, float32 in another order of summing.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4)


def test_each_patch_keeps_its_place():
    fast = compiled_on(imagenet_encoder(), CPU, "32-true", px=PX, n_patches=MANY)
    patches = _patches(7)
    torch.testing.assert_close(fast.encode(patches).flip(0), fast.encode(patches.flip(0)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("device", "precision", "n"),
    [("cpu", "32-true", WORTHWHILE // PX**2), ("cpu", "bf16-mixed", 1000), ("cuda", "32-true", 1000)],
)
def test_a_few_patches_half_precision_and_gpus_stay_in_torch(device, precision, n):
    encoder = imagenet_encoder()
    assert compiled_on(encoder, torch.device(device), precision, px=PX, n_patches=n) is encoder


def test_a_module_of_the_user_stays_in_torch():
    """Its weights may change, or it may do more than a graph of tensors can."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    encoder = prepare_encoder(network)
    assert compiled_on(encoder, CPU, "32-true", px=PX, n_patches=1000) is encoder


@pytest.mark.parametrize("broken", ["not installed", "other numbers"])
def test_what_openvino_cannot_do_stays_in_torch(broken, monkeypatch):
    encoder = imagenet_encoder()
    if broken == "not installed":
        monkeypatch.setitem(sys.modules, "openvino", None)
    else:
        monkeypatch.setattr(compiled.CompiledNetwork, "__call__", lambda self, patches: torch.zeros(len(patches), 1200))
    assert compiled_on(encoder, CPU, "32-true", px=PX, n_patches=1000) is encoder


def test_another_encoder_is_not_taken_for_one_that_was_compiled():
    imagenet = imagenet_encoder()
    compiled_on(imagenet, CPU, "32-true", px=PX, n_patches=MANY)
    other = Encoder("other", torch.nn.Flatten(), by_name=True, sha256="1")
    assert compiled_on(other, CPU, "32-true", px=PX, n_patches=1) is other
