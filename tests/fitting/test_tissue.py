"""The limit between like and unlike tissue: distances as SciPy has them, calibrated for few spots and few sections."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from hist2scrna.fitting.tissue import FEATURES, NEAREST, Tissue, tolerance_factor

WIDTH = 60


def tissue_like(rng: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    """Features of spots of a section: a few directions in which tissue varies, noise, and what a section has alone."""
    directions = np.random.default_rng(7).normal(size=(4, WIDTH))
    section = 0.2 * rng.normal(size=WIDTH)
    return (rng.normal(size=(n, 4)) @ directions + rng.normal(size=(n, WIDTH)) + section + shift).astype(np.float32)


def learned(features: np.ndarray, group: np.ndarray, **more) -> Tissue:
    return Tissue.of(FEATURES, [features], group, np.random.default_rng(0), **more)


# Of normal distributions: Hahn and Meeker, Statistical Intervals, 1991, table A.12d.
@pytest.mark.parametrize(("n", "factor"), [(10, 3.981), (20, 3.295), (50, 2.862), (100, 2.684)])
def test_the_tolerance_factor_is_the_tabulated_one(n, factor) -> None:
    assert tolerance_factor(n) == pytest.approx(factor, abs=2e-3)


def test_distances_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    train, other = tissue_like(rng, 90), tissue_like(rng, 30, shift=1.0)
    tissue = learned(train, np.repeat([0, 1, 2], 30))
    mean, scale = train.mean(axis=0), train.std(axis=0)
    standard = [np.clip((x - mean) / scale, -5, 5) for x in (other, train)]
    squares = np.sort(cdist(*standard, "sqeuclidean"), axis=1)[:, :NEAREST]
    np.testing.assert_allclose(tissue.distance(other), np.sqrt(squares.mean(axis=1)) / tissue.limit, rtol=1e-2)


@pytest.mark.parametrize("n_sections", [1, 2, 4])
def test_few_spots_do_not_call_their_own_kind_unlike(n_sections) -> None:
    """Forty-eight spots in all: of new sections of the same kind few are flagged, of another kind nearly all."""
    same, other = [], []
    for seed in range(12):
        rng = np.random.default_rng([seed, n_sections])
        own = 48 // n_sections
        train = np.concatenate([tissue_like(rng, own) for _ in range(n_sections)])
        group = np.arange(48) // own if n_sections > 1 else np.arange(48) * 5 // 48
        tissue = learned(train, group)
        same.append((tissue.distance(tissue_like(rng, 100)) > 1).mean())
        other.append((tissue.distance(tissue_like(rng, 100, shift=3.0)) > 1).mean())
    assert np.mean(same) < 0.05
    assert np.mean(other) > 0.95


def test_no_section_left_out_has_more_than_its_share_beyond_the_limit() -> None:
    """One section in which a kind of tissue lies that the others lack: it is not unlike a training that has it."""
    rng = np.random.default_rng(3)
    train = np.concatenate([tissue_like(rng, 100) for _ in range(4)])
    train[:30] += 3
    tissue = learned(train, np.repeat(np.arange(4), 100))
    fresh = tissue_like(rng, 100)
    fresh[:50] += 3
    assert (tissue.distance(fresh) > 1).mean() < 0.02


def test_a_feature_that_hardly_varied_does_not_decide() -> None:
    rng = np.random.default_rng(4)
    train, fresh = tissue_like(rng, 60), tissue_like(rng, 60)
    train[:, 0], fresh[:, 0] = 1e-3 * train[:, 0], fresh[:, 0] + 100
    assert (learned(train, np.repeat([0, 1], 30)).distance(fresh) > 1).mean() < 0.05


def test_blur_is_a_coordinate_of_its_own() -> None:
    rng = np.random.default_rng(5)
    train, fresh = tissue_like(rng, 100), tissue_like(rng, 4)
    sharp = rng.normal(-2.3, 0.4, 100).astype(np.float32)
    tissue = learned(train, np.repeat([0, 1], 50), sharpness=sharp, view=4, side=100)
    assert tissue.blurred <= np.quantile(sharp, 0.01)
    far = tissue.distance(fresh, np.array([-2.3, tissue.blurred, -4.7, np.nan], dtype=np.float32))
    plain = tissue.distance(fresh)
    np.testing.assert_allclose(far[[0, 3]], plain[[0, 3]])
    assert far[1] == pytest.approx(1, abs=1e-5) and far[2] > 1.5


def test_it_is_kept_as_arrays() -> None:
    rng = np.random.default_rng(6)
    tissue = learned(tissue_like(rng, 400), np.repeat([0, 1], 200))
    arrays = tissue.to_arrays()
    assert arrays["kept"].shape == (256, WIDTH) and arrays["kept"].dtype == np.float16
    again = Tissue.from_arrays(arrays)
    fresh = tissue_like(rng, 20)
    np.testing.assert_array_equal(again.distance(fresh), tissue.distance(fresh))
    with pytest.raises(TypeError, match="do not go together"):
        Tissue.from_arrays({**arrays, "scale": arrays["scale"][:3]})
    with pytest.raises(KeyError):
        Tissue.from_arrays({name: value for name, value in arrays.items() if name != "kept"})
