"""The built-in encoder: three fields of view through two networks, and the same features wherever they are made."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from builders import spots_of
from torch import nn

from hist2scrna.encoders import Encoder, imagenet, prepare_encoder
from hist2scrna.encoders.efficientnet import VARIANTS, EfficientNetLite
from hist2scrna.fitting.augment import StainVariation
from hist2scrna.models import SpotBatch
from hist2scrna.pp import extract_features

PX = 256
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return prepare_encoder("imagenet")


@pytest.fixture(scope="module")
def patches() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, PX, PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def features_of(encoder: Encoder, patches: torch.Tensor, precision: str | None = "32-true") -> torch.Tensor:
    with torch.no_grad(), encoder.on(CPU, precision):
        return encoder.encode(patches)


def by_hand(patches: torch.Tensor) -> np.ndarray:
    """The features by the networks alone: what is cropped, shrunk and summarized is done by NumPy."""
    columns = []
    for wider in (1, 2, 4):
        width = wider * PX // 4
        start = (PX - width) // 2
        view = patches.numpy()[:, :, start : start + width, start : start + width].astype(np.float64)
        view = view.reshape(len(view), 3, PX // 4, wider, PX // 4, wider).mean(axis=(3, 5))
        for size in ("lite0", "lite2"):
            network = EfficientNetLite(size).eval()
            network.load_imagenet()
            with torch.no_grad():
                stages = network(torch.from_numpy((view - 127) / 128).float())
            for maps in (stage.double().numpy() for stage in stages):
                middle = maps[:, :, 1:3, 1:3]
                columns += [maps.mean(axis=(2, 3)), middle.mean(axis=(2, 3)), maps.std(axis=(2, 3))]
    return np.concatenate(columns, axis=1)


def test_features_are_statistics_of_the_maps_of_three_fields_of_view(encoder, patches) -> None:
    features = features_of(encoder, patches)
    assert features.shape == (2, 3600) == (2, encoder.width)
    assert features.dtype == torch.float32
    np.testing.assert_allclose(features.numpy(), by_hand(patches), rtol=1e-3, atol=1e-3)


def test_inner_fields_of_view_do_not_see_the_rim(encoder, patches) -> None:
    edited = patches.clone()
    # The upper quarter is out of both inner fields of view.
    edited[:, :, :64] = 0
    before, after = (features_of(encoder, p).reshape(2, 3, -1) for p in (patches, edited))
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert (after[:, 2] - before[:, 2]).abs().max() > 0.1


def test_a_patch_has_its_features_in_any_batch(encoder, patches) -> None:
    many = patches.repeat(10, 1, 1, 1)
    features = features_of(encoder, many)
    torch.testing.assert_close(features, features_of(encoder, patches).repeat(10, 1), rtol=1e-4, atol=1e-4)


def test_float_patches_give_the_features_of_uint8_and_pixels_have_a_gradient(encoder, patches) -> None:
    pixels = (patches.float() / 255).requires_grad_()
    with encoder.on(CPU, "32-true"):
        features = encoder.encode(pixels)
    torch.testing.assert_close(features.detach(), features_of(encoder, patches))
    features.sum().backward()
    # All of the patch is in the widest field of view.
    assert (pixels.grad.abs().sum(dim=1) > 0).float().mean() > 0.95


def test_varied_patches_give_features_that_differ_but_are_of_the_same_kind(encoder, patches) -> None:
    torch.manual_seed(0)
    nowhere = torch.zeros(2, dtype=torch.long)
    batch = SpotBatch(2, torch.zeros(2, 2), torch.zeros(2, 0, dtype=torch.long), nowhere, patches=patches)
    before, after = features_of(encoder, patches), features_of(encoder, StainVariation()(batch).patches)
    assert after.shape == before.shape
    assert torch.isfinite(after).all()
    assert 0 < (after - before).abs().mean() < before.std()


def test_half_precision_changes_features_far_less_than_spots_differ(encoder, make_section) -> None:
    spots = spots_of(make_section(n_spots=16), patch_px=PX, patch_per_spot=6.0)
    patches = torch.from_numpy(spots.patches.read(np.arange(16)))
    full, half = (features_of(encoder, patches, precision) for precision in ("32-true", "bf16-mixed"))
    change = (half - full).std(dim=0)
    assert 0 < change.max()
    assert (change / full.std(dim=0)).median() < 0.1


def test_a_cpu_computes_in_float32_whatever_it_has(encoder) -> None:
    assert encoder.precision_on(CPU) == Encoder("mine", nn.Identity()).precision_on(CPU) == "32-true"


def test_features_in_anndata_are_those_of_the_patches(encoder, make_section) -> None:
    adata = make_section(n_spots=5)
    extract_features(adata, patch_px=PX, batch_size=2, progress=False)
    spots = spots_of(adata, patch_px=PX, patch_per_spot=6.0)
    expected = features_of(encoder, torch.from_numpy(spots.patches.read(np.arange(5))), None)
    np.testing.assert_allclose(adata.obsm["X_imagenet"], expected.numpy(), rtol=1e-2, atol=2e-2)
    about = adata.uns["X_imagenet"]
    assert (about["patch_um"], about["patch_px"], list(about["fields_of_view"])) == (432.0, PX, [1, 2, 4])
    assert about["weights_sha256"] == encoder.sha256
    assert about["license"] == "Apache-2.0"
    assert about["precision"] == "32-true"


def test_one_sha256_stands_for_both_files(encoder, monkeypatch) -> None:
    files = "".join(VARIANTS[size].sha256 for size in ("lite0", "lite2"))
    assert encoder.sha256 == hashlib.sha256(files.encode()).hexdigest()
    monkeypatch.setattr(imagenet, "NETWORKS", ("lite2", "lite0"))
    assert imagenet.weights_sha256() != encoder.sha256


def test_random_weights_are_another_encoder(encoder, patches) -> None:
    untrained = imagenet.imagenet_encoder(pretrained=False)
    assert untrained.name != encoder.name
    assert not untrained.by_name
    assert not torch.allclose(features_of(untrained, patches), features_of(encoder, patches), atol=0.1)


@pytest.mark.parametrize("px", [192, 300])
def test_a_side_that_does_not_fill_the_fields_of_view_is_refused(encoder, make_section, px) -> None:
    with pytest.raises(ValueError, match=f"multiple of the 64 px of its tokens, 256 or more, found {px}"):
        extract_features(make_section(n_spots=3), patch_px=px, progress=False)
    assert encoder.token_grid() == (14, 14)
    assert encoder.token_grid(PX) == (4, 4)
