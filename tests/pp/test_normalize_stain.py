"""Stain normalization: two stains are found again, blank patches stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from hist2scrna.pp import normalize_stain


def stained(hematoxylin: tuple, eosin: tuple, strength: float, seed: int = 0) -> np.ndarray:
    """A patch of which every pixel is the sum of two stains."""
    amounts = np.random.default_rng(seed).uniform(0.1, 1.0, (2, 48 * 48)) * strength
    density = np.array([hematoxylin, eosin]).T @ amounts
    return (239 * 10**-density).T.reshape(48, 48, 3).astype(np.uint8)


def test_patches_of_other_stains_and_strengths_become_alike() -> None:
    one = stained((0.56, 0.72, 0.41), (0.22, 0.80, 0.56), 0.7)
    other = stained((0.65, 0.65, 0.39), (0.15, 0.85, 0.50), 0.5)
    before = np.abs(one.astype(float) - other).mean()
    after = np.abs(normalize_stain(one).astype(float) - normalize_stain(other)).mean()
    assert after < 0.4 * before


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_patch_without_two_stains_stays_as_it_is(value) -> None:
    patch = np.full((16, 16, 3), value, dtype=np.uint8)
    np.testing.assert_array_equal(normalize_stain(patch), patch)


def test_what_is_no_image_is_refused() -> None:
    for wrong in (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"RGB image of shape \(height, width, 3\), uint8"):
            normalize_stain(wrong)
