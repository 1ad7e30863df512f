"""Features by hand: closed forms, symmetry, scikit-image, and the same numbers as an encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import hed2rgb, rgb2hed
from skimage.feature import graycomatrix, graycoprops

from hist2scrna.encoders import prepare_encoder
from hist2scrna.encoders.patch_statistics import BLOB_HEIGHT, DENSEST, LEVELS, feature_names, patch_statistics


def stained(hematoxylin: np.ndarray, eosin: np.ndarray | float = 0.0) -> np.ndarray:
    """One patch of these densities, eight bits a color."""
    densities = np.stack(np.broadcast_arrays(hematoxylin, eosin, 0.0), axis=-1)
    return np.round(hed2rgb(densities) * 255).astype(np.uint8).transpose(2, 0, 1)[None]


def described(patch: np.ndarray) -> dict[str, float]:
    return {name: float(value[0]) for name, value in patch_statistics(patch).items()}


@given(st.floats(0.01, 0.12), st.floats(0.01, 0.12))
def test_densities_of_a_stain_that_was_mixed_are_found(hematoxylin, eosin) -> None:
    found = described(stained(np.full((16, 16), hematoxylin), eosin))
    for name, density in (("hematoxylin", hematoxylin), ("eosin", eosin)):
        for what in ("mean", "q05", "q50", "q95"):
            # Half a step of eight bits, on the darkest of the three colors.
            assert found[f"{name}_{what}"] == pytest.approx(density, abs=0.004)


def test_half_a_stained_patch_has_the_moments_of_two_values() -> None:
    density = np.zeros((32, 32))
    density[:, :16] = 0.1
    found = described(stained(density))
    assert found["hematoxylin_mean"] == pytest.approx(0.05, abs=0.002)
    assert found["hematoxylin_sd"] == pytest.approx(0.05, abs=0.002)
    assert found["hematoxylin_q25"] == pytest.approx(0, abs=0.002)
    assert found["hematoxylin_q75"] == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize("other", [1.0, -1.0])
def test_correlation_of_the_stains(other) -> None:
    wave = 0.03 * np.random.default_rng(0).uniform(-1, 1, (48, 48))
    found = described(stained(0.08 + wave, 0.08 + other * wave))
    assert found["stain_correlation"] == pytest.approx(other, abs=0.03)


@pytest.mark.parametrize("gray", [0, 1, 128, 255])
def test_a_flat_patch_has_no_texture(gray) -> None:
    found = described(np.full((1, 3, 24, 24), gray, dtype=np.uint8))
    assert np.isfinite(list(found.values())).all()
    assert found["red_mean"] == pytest.approx(gray / 255)
    flat = {"_sd": 0, "_skew": 0, "_blobs": 0, "stain_correlation": 0, "contrast": 0, "homogeneity": 1, "entropy": 0}
    for name, value in found.items():
        for ending, expected in flat.items():
            if name.endswith("_sd") and "_band" in name:
                assert value == pytest.approx(-3, abs=1e-3), name
            elif ending in name:
                assert value == pytest.approx(expected, abs=1e-4), name


@pytest.mark.parametrize(("cycles", "band"), [(12, 0), (6, 1), (3, 2), (1, 3)])
def test_the_energy_of_a_wave_lies_in_the_bands_of_its_length(cycles, band) -> None:
    # A half-sample cosine keeps its shape under a blur with reflected borders, and loses exp(-w^2 sigma^2 / 2).
    size, amplitude = 96, 0.08
    frequency = 2 * np.pi * cycles / size
    wave = amplitude * np.cos(frequency * (np.arange(size) + 0.5))
    found = described(stained(np.broadcast_to(0.1 + wave, (size, size))))
    left = [np.exp(-((frequency * sigma) ** 2) / 2) for sigma in (1, 2, 4, 8)] + [0.0]
    expected = [amplitude / np.sqrt(2) * (left[i] - left[i + 1]) for i in range(4)]
    assert int(np.argmax(expected)) == band
    for number, energy in enumerate(expected):
        assert 10 ** found[f"hematoxylin_band{number}_sd"] - 1e-3 == pytest.approx(energy, rel=0.05, abs=1e-3)


@pytest.mark.parametrize("n_nuclei", [0, 1, 9])
def test_blobs_are_the_nuclei_that_were_drawn(n_nuclei) -> None:
    y, x = np.mgrid[:90, :90]
    density = np.full((90, 90), 0.02)
    for number in range(n_nuclei):
        row, column = divmod(number, 3)
        density += 0.15 * np.exp(-((y - 15.3 - 28 * row) ** 2 + (x - 16.4 - 28 * column) ** 2) / (2 * 3.0**2))
    found = described(stained(density, 0.03))["hematoxylin_blobs"]
    assert found * 90 * 90 / 1000 == pytest.approx(n_nuclei, abs=1e-3)
    assert BLOB_HEIGHT > 0


@pytest.mark.parametrize("distance", [1, 3])
def test_co_occurrence_is_that_of_scikit_image(distance) -> None:
    rng = np.random.default_rng(4)
    density = rng.uniform(0, 0.25, (30, 41)) * np.linspace(0.3, 1, 41)
    patch = stained(density)
    found = described(patch)
    held = rgb2hed(np.maximum(np.moveaxis(patch[0], 0, -1).astype(np.float32) / 255, 1 / 255))[..., 0]
    level = np.clip(held * (LEVELS / DENSEST), 0, LEVELS - 1).astype(np.uint8)
    angles = {distance: [0, np.pi / 2], distance * np.sqrt(2): [np.pi / 4, 3 * np.pi / 4]}
    total = sum(
        graycomatrix(level, [d], a, levels=LEVELS, symmetric=True).sum(axis=3, keepdims=True) for d, a in angles.items()
    )
    for what in ("contrast", "homogeneity", "ASM", "entropy", "correlation"):
        expected = graycoprops(total.astype(float), what)[0, 0]
        assert found[f"hematoxylin_{what}_{distance}"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def _views(patch: np.ndarray) -> np.ndarray:
    turned = [np.rot90(patch, k, axes=(2, 3)) for k in range(4)]
    return np.concatenate(turned + [view[..., ::-1] for view in turned])


@settings(max_examples=25)
@given(arrays(np.uint8, (1, 3, 5, 5)), st.integers(0, 2**16))
def test_flips_and_turns_change_nothing(coarse, seed) -> None:
    patch = np.kron(coarse, np.ones((1, 1, 4, 4), dtype=np.uint8))
    noise = np.random.default_rng(seed).integers(0, 20, patch.shape)
    patch = np.clip(patch + noise, 0, 255).astype(np.uint8)
    for name, values in patch_statistics(_views(patch)).items():
        # A peak, of which a patch has few, is one or none: rounding may decide between two equal ones.
        slack = 1000 / 400 if name == "hematoxylin_blobs" else 2e-3 * max(1.0, float(np.abs(values).max()))
        assert np.ptp(values) <= slack, name


def test_flips_and_turns_of_tissue_change_nothing_at_all() -> None:
    rng = np.random.default_rng(5)
    density = np.kron(rng.uniform(0, 0.15, (10, 10)), np.ones((6, 6))) + rng.uniform(0, 0.03, (60, 60))
    for name, values in patch_statistics(_views(stained(density, 0.1 - density[::-1] / 3))).items():
        assert np.ptp(values) <= 1e-4 * max(1.0, float(np.abs(values).max())), name
        assert np.isfinite(values).all()


def test_patches_do_not_change_each_other() -> None:
    patches = np.random.default_rng(6).integers(0, 256, (5, 3, 20, 20)).astype(np.uint8)
    together = patch_statistics(patches)
    for i in range(5):
        for name, value in patch_statistics(patches[i : i + 1]).items():
            np.testing.assert_allclose(value[0], together[name][i], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "patches",
    [
        np.zeros((2, 20, 20, 3), dtype=np.uint8),
        np.zeros((2, 3, 7, 20), dtype=np.uint8),
        np.zeros((3, 20, 20), dtype=np.uint8),
        np.zeros((2, 3, 20, 20)),
    ],
)
def test_what_is_no_patch_is_refused(patches) -> None:
    with pytest.raises(ValueError, match=r"\(n, 3, h, w\), uint8 or float32"):
        patch_statistics(patches)


# -- as an encoder -----------------------------------------------------------------------------------------------------
def test_the_encoder_describes_the_middle_and_all_of_a_patch() -> None:
    encoder = prepare_encoder("morphology")
    patches = np.random.default_rng(8).integers(0, 256, (3, 3, 96, 96)).astype(np.uint8)
    features = encoder.encode(torch.from_numpy(patches))
    assert features.shape == (3, 104) == (3, encoder.width)
    middle = patch_statistics(patches[:, :, 32:64, 32:64])
    # Three by three pixels are one of the wide field of view.
    shrunk = (patches / 255).reshape(3, 3, 32, 3, 32, 3).mean(axis=(3, 5)).astype(np.float32)
    expected = [*middle.values(), *patch_statistics(shrunk).values()]
    np.testing.assert_allclose(features, np.stack(expected, axis=1), rtol=1e-3, atol=1e-4)
    assert list(feature_names()) == [f"{view}_{name}" for view in ("spot", "wide") for name in middle]


def test_the_encoder_is_given_pixels_of_one_micron() -> None:
    encoder = prepare_encoder("morphology")
    assert encoder.side(450.0) == 450
    assert encoder.side(292.5) == 3 * round(292.5 / 3)
    assert encoder.side(60.0) == 96


def test_varied_patches_are_floats_and_have_features_of_the_same_kind() -> None:
    encoder = prepare_encoder("morphology")
    patches = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder.encode(patches.float() / 255), encoder.encode(patches))
    assert torch.isfinite(encoder.encode((patches.float() / 255).mul(0.9))).all()


def test_pixels_have_no_gradient() -> None:
    with pytest.raises(ValueError, match="'morphology' have no gradient"):
        prepare_encoder("morphology").encode(torch.rand(1, 3, 96, 96, requires_grad=True))
