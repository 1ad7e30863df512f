"""Augmentation: all eight views of a patch and no other, colors near the true ones, nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hist2scrna.fitting.augment import ImageVariation, PatchAugmentation, StainVariation
from hist2scrna.fitting.lightning_module import learning_rate_factor
from hist2scrna.models import SpotBatch


def batch(n=200, px=6):
    one = torch.arange(3 * px * px, dtype=torch.uint8).view(1, 3, px, px)
    return SpotBatch(
        n_core=n,
        xy=torch.randn(n, 2),
        edge_index=torch.zeros(2, 0, dtype=torch.long),
        section=torch.zeros(n, dtype=torch.long),
        patches=one.repeat(n, 1, 1, 1),
        label=torch.arange(n),
    )


def test_flips_and_quarter_turns_give_all_eight_views():
    torch.manual_seed(0)
    given = batch()
    turned = PatchAugmentation().places(given.patches.float())
    original = given.patches[0].numpy().astype(float)
    views = [np.rot90(flipped, k, axes=(1, 2)) for flipped in (original, original[:, :, ::-1]) for k in range(4)]
    for patches in (turned, 255 * ImageVariation(amount=0.0, blur=0.0)(given).patches):
        seen = [next(i for i, v in enumerate(views) if np.abs(v - patch).max() < 1e-3) for patch in patches.numpy()]
        assert set(seen) == set(range(8))
        assert np.bincount(seen).min() > 5


def test_colors_stay_near_and_all_else_stays():
    torch.manual_seed(0)
    given = batch()
    given.patches = torch.full_like(given.patches, 128)
    given.patches[:, 0] = 200
    out = PatchAugmentation()(given)
    assert out.patches.dtype == torch.float32
    assert 0 <= out.patches.min() and out.patches.max() <= 1
    spread = out.patches.mean(dim=(2, 3)) - given.patches.float().mean(dim=(2, 3)) / 255
    assert 0.01 < spread.std() < 0.15
    assert spread.abs().max() < 0.4
    assert out.label is given.label and out.xy is given.xy
    assert (given.patches[:, 1] == 128).all()


@pytest.mark.parametrize("augmentation", [PatchAugmentation, ImageVariation, StainVariation])
def test_features_pass_unchanged(augmentation):
    given = batch()
    given.patches, given.features = None, torch.randn(200, 4)
    assert augmentation()(given) is given


def test_stains_are_those_of_scikit_image():
    """Pictures made of known amounts of each stain; scaled and shifted, they are what the new amounts make."""
    from skimage.color import rgb_from_hed

    rng = np.random.default_rng(0)
    amounts, scale, shift = (
        rng.uniform(0.05, 0.6, (4, 5, 5, 3)),
        rng.uniform(0.7, 1.3, (4, 3)),
        rng.uniform(0, 0.05, (4, 3)),
    )

    def picture(stains):
        return torch.from_numpy((256 * np.exp(-stains @ rgb_from_hed) - 1) / 255).permute(0, 3, 1, 2).float()

    found = StainVariation().stain(picture(amounts), torch.tensor(scale).float(), torch.tensor(shift).float())
    expected = picture(amounts * scale[:, None, None] + shift[:, None, None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_stains_vary_by_patch_within_bounds_and_nothing_else_does():
    torch.manual_seed(0)
    given = batch()
    given.patches = torch.randint(120, 256, given.patches.shape, dtype=torch.uint8)
    same = StainVariation(amount=0.0)(given)
    torch.testing.assert_close(same.patches, given.patches.float() / 255, atol=1e-5, rtol=0)
    out = StainVariation()(given)
    assert out.patches.dtype == torch.float32 and 0 <= out.patches.min() and out.patches.max() <= 1
    assert out.label is given.label and out.xy is given.xy
    change = (out.patches - given.patches.float() / 255).mean(dim=(1, 2, 3))
    assert 0.01 < change.std() < 0.15
    # The same for a whole patch: what is equal within it stays so.
    given.patches = given.patches[:, :, :1, :1].expand_as(given.patches)
    flat = StainVariation()(given).patches
    assert flat.flatten(2).std(dim=2).max() < 1e-6


def test_every_other_patch_is_out_of_focus():
    """What a Gaussian leaves of the variance of white noise is 1 / (4 pi deviation^2)."""
    torch.manual_seed(0)
    given = batch(n=300)
    given.patches = torch.rand(300, 3, 64, 64)
    before = given.patches.clone()
    out = ImageVariation(amount=0.0, blur=2.5)(given).patches
    assert torch.equal(given.patches, before)
    left = out[..., 8:-8, 8:-8].var(dim=(1, 2, 3)) / before[..., 8:-8, 8:-8].var(dim=(1, 2, 3))
    assert 0.4 < (left < 0.9).float().mean() < 0.6
    assert left.min() > 1 / (4 * np.pi * 2.5**2) / 1.3
    assert left[left < 0.06].numel() > 20


def test_learning_rate_rises_then_falls_along_a_cosine():
    steps = 200
    factors = np.array([learning_rate_factor(step, steps) for step in range(steps + 1)])
    assert factors.argmax() in (9, 10)
    assert factors.max() == pytest.approx(1, abs=1e-6)
    assert (np.diff(factors[:10]) > 0).all() and (np.diff(factors[11:]) < 0).all()
    assert factors[10 + 95] == pytest.approx(0.505, abs=1e-3)
    assert factors[-1] == pytest.approx(0.01, abs=1e-6)
