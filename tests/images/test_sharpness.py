"""Sharpness is the variance of SciPy's Laplacian relative to that of the luminance, and blur takes it away."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, laplace

from hist2scrna.images.sharpness import sharpness


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(4, 3, 48, 48)), 0.7, axes=(2, 3))
    return np.clip(130 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def expected(luminance: np.ndarray) -> np.ndarray:
    edges = np.array([laplace(each)[1:-1, 1:-1].var() for each in luminance])
    return np.log((edges + 1) / (luminance.var(axis=(1, 2)) + 1))


def test_it_is_that_of_scipy(patches) -> None:
    luminance = np.einsum("c,nchw->nhw", [0.299, 0.587, 0.114], patches.astype(float))
    np.testing.assert_allclose(sharpness(patches, 48), expected(luminance), rtol=1e-4)
    one_channel = patches[:, :1]
    np.testing.assert_allclose(sharpness(one_channel, 48), expected(one_channel[:, 0].astype(float)), rtol=1e-4)


def test_wider_pixels_are_the_means_of_areas(patches) -> None:
    gray = patches[:, :1]
    halves = gray[:, 0].astype(float).reshape(4, 24, 2, 24, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(sharpness(gray, 24), expected(halves), rtol=1e-4)
    # Three pixels to two: the middle one lies half in each.
    thirds = gray[:, 0].astype(float).reshape(4, 16, 3, 16, 3)
    weights = np.array([[2, 1, 0], [0, 1, 2]]) / 3
    shrunk = np.einsum("ai,nhiwj,bj->nhawb", weights, thirds, weights).reshape(4, 32, 32)
    np.testing.assert_allclose(sharpness(gray, 32), expected(shrunk), rtol=1e-4)


def test_blur_lowers_it_and_contrast_does_not(patches) -> None:
    levels = [patches] + [
        np.round(gaussian_filter(patches.astype(float), sigma, axes=(2, 3))).astype(np.uint8) for sigma in (1, 2)
    ]
    sharp, soft, softer = (sharpness(level, 48) for level in levels)
    assert (sharp - soft > 0.5).all() and (soft - softer > 0.5).all()
    pale = (patches // 2 + 100).astype(np.uint8)
    np.testing.assert_allclose(sharpness(pale, 48), sharp, atol=0.05)


def test_what_is_of_one_color_has_a_number() -> None:
    np.testing.assert_array_equal(sharpness(np.full((2, 3, 16, 16), 200, dtype=np.uint8), 16), [0, 0])
