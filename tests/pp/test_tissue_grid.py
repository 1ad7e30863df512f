"""Spots laid over the tissue: drawn tissue is found, the lattice is measured, real sections and a prediction."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from builders import fast
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial import cKDTree

import hist2scrna as h2s
from hist2scrna.images.base import ArrayImage, to_image_pixels
from hist2scrna.images.tissue import lattice_points, stained_ground, tissue_mask
from hist2scrna.spots.lattice import find_lattice

GLASS, PINK, PURPLE = (240, 238, 241), (225, 150, 190), (120, 80, 160)
MPP = 2.0


def drawn(width: int = 700, height: int = 500, glass: tuple[int, int, int] = GLASS) -> tuple[np.ndarray, np.ndarray]:
    """An image wider than high, 2 um a pixel, and its tissue: an ellipse at the left, a marker at the top right."""
    y, x = np.mgrid[:height, :width]
    tissue = ((x - 220) / 180) ** 2 + ((y - 260) / 150) ** 2 < 1
    tissue |= (abs(x - 640) < 30) & (abs(y - 50) < 30)
    # A lumen 240 um across stays a hole.
    tissue &= (x - 220) ** 2 + (y - 260) ** 2 > 60**2
    pixels = np.where(tissue[..., None], PINK, glass).astype(float)
    nuclei = tissue & (x % 9 < 4) & (y % 11 < 4)
    pixels[nuclei] = PURPLE
    pixels += np.random.default_rng(0).normal(0, 4, pixels.shape)
    return np.round(pixels.clip(0, 255)).astype(np.uint8), tissue


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (234, 217, 233), (150, 148, 151)])
def test_drawn_tissue_is_found_on_any_glass(glass) -> None:
    pixels, tissue = drawn(glass=glass)
    if max(glass) < 200:
        pixels = np.where(tissue[..., None], pixels // 2, pixels)
    found = tissue_mask(ArrayImage(pixels, 1.0, "drawn"), MPP)
    assert found.scale == 1.0
    assert found.mask.mean() == pytest.approx(tissue.mean(), rel=0.06)
    assert overlap(found.mask, tissue) > 0.94


@pytest.mark.parametrize(
    ("ink", "radius"),
    [
        ((60, 60, 62), 40),  # dust, black ink
        ((30, 60, 190), 40),  # blue ink
        ((30, 150, 70), 40),  # green ink
        ((215, 40, 45), 40),  # red ink
        (PURPLE, 12),  # a crumb 48 um across
    ],
)
def test_what_is_no_tissue_is_left_out(ink, radius) -> None:
    pixels, tissue = drawn()
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    stain = (x - 500) ** 2 + (y - 400) ** 2 < radius**2
    pixels[stain] = ink
    found = tissue_mask(ArrayImage(pixels, 1.0, "drawn"), MPP).mask
    assert (found & stain).sum() < 0.1 * stain.sum()
    assert overlap(found, tissue) > 0.95


def test_eosin_that_ran_onto_the_glass_is_left_out() -> None:
    pixels, tissue = drawn()
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    faint = np.exp(-((x - 430) ** 2 + (y - 300) ** 2) / (2 * 70.0**2))[..., None]
    run = np.where(tissue[..., None], pixels, pixels - faint * (2, 28, 10)).clip(0, 255).astype(np.uint8)
    assert overlap(tissue_mask(ArrayImage(run, 1.0, "drawn"), MPP).mask, tissue) > 0.95


def test_an_image_that_is_tissue_all_over_is_all_tissue() -> None:
    rng = np.random.default_rng(1)
    pixels = (np.array(PINK) + rng.normal(0, 8, (200, 300, 1))).clip(0, 255).astype(np.uint8)
    assert stained_ground(pixels, 3.0).all()


def test_small_holes_are_filled() -> None:
    pixels, tissue = drawn()
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    hole = (x - 120) ** 2 + (y - 260) ** 2 < 14**2
    assert tissue[hole].all()
    pixels[hole] = GLASS
    assert tissue_mask(ArrayImage(pixels, 1.0, "drawn"), MPP).mask[hole].all()


def test_the_fraction_of_a_disc_is_that_of_the_mask() -> None:
    pixels, _ = drawn()
    mask = tissue_mask(ArrayImage(pixels, 1.0, "drawn"), MPP)
    xy = np.random.default_rng(2).uniform((0, 0), (700, 500), (200, 2))
    y, x = np.mgrid[:500, :700] + 0.5
    expected = [mask.mask[(x - a) ** 2 + (y - b) ** 2 < 20**2].sum() / (np.pi * 20**2) for a, b in xy]
    np.testing.assert_allclose(mask.fraction(xy, 40.0), expected, atol=0.08)
    assert np.abs(mask.fraction(xy, 40.0) - expected).mean() < 0.01


@settings(max_examples=40)
@given(st.floats(200, 2000), st.floats(200, 2000), st.floats(17, 90), st.sampled_from(["hexagonal", "square"]))
def test_neighbors_are_one_spacing_apart(width, height, spacing, lattice) -> None:
    xy, place = lattice_points(width, height, spacing, lattice)
    assert (xy >= -1e-9).all()
    assert (xy <= np.array([width, height]) + 1e-9).all()
    nearest = cKDTree(xy).query(xy, k=2)[0][:, 1]
    np.testing.assert_allclose(nearest, spacing, rtol=1e-9)
    # As dense as this lattice can be, but for the rims.
    area = spacing**2 * (np.sqrt(3) / 2 if lattice == "hexagonal" else 1)
    assert len(xy) == pytest.approx(width * height / area, rel=2.5 * spacing / min(width, height))
    assert len(np.unique(place, axis=0)) == len(place)
    if lattice == "hexagonal":
        assert (place.sum(axis=1) % 2 == 0).all()


@pytest.mark.parametrize("lattice", ["hexagonal", "square"])
def test_spots_cover_the_tissue_at_the_spacing_asked_for(lattice) -> None:
    pixels, tissue = drawn()
    slide = h2s.pp.tissue_grid(pixels, spacing_um=50, lattice=lattice, mpp=MPP, library_id="drawn")
    xy = slide.obsm["spatial"]
    assert slide.X is None
    assert slide.n_vars == 0
    # 50 um are 25 px of 2 um.
    assert np.median(cKDTree(xy).query(xy, k=2)[0][:, 1]) == pytest.approx(25)
    assert find_lattice(xy) == lattice
    column, row = xy.astype(int).T
    assert tissue[row, column].mean() > 0.9
    cell = 25**2 * (np.sqrt(3) / 2 if lattice == "hexagonal" else 1)
    assert slide.n_obs == pytest.approx(tissue.sum() / cell, rel=0.08)
    # The marker is at the top right: x is to the right, y down, on a pixels that is wider than high.
    assert ((abs(xy[:, 0] - 640) < 30) & (abs(xy[:, 1] - 50) < 30)).any()
    assert (slide.obs["tissue_fraction"] >= 0.5).all()
    steps = (25 / 2, 25 * np.sqrt(3) / 2) if lattice == "hexagonal" else (25, 25)
    np.testing.assert_allclose(np.ptp(xy - slide.obs[["array_col", "array_row"]] * steps, axis=0), 0, atol=1e-9)


def test_what_is_written(tmp_path) -> None:
    pixels, _ = drawn()
    slide = h2s.pp.tissue_grid(pixels, spacing_um=60, spot_um=40, mpp=MPP, library_id="s7", min_tissue=0)
    entry = slide.uns["spatial"]["s7"]
    assert entry["images"]["hires"] is pixels
    assert entry["scalefactors"] == {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 20.0, "mpp": 2.0}
    assert list(slide.obs["library_id"].cat.categories) == ["s7"]
    assert slide.obs["tissue_fraction"].dtype == np.float32
    assert slide.obs["tissue_fraction"].min() == 0
    assert slide.obs_names.is_unique
    slide.write_h5ad(tmp_path / "slide.h5ad")
    again = ad.read_h5ad(tmp_path / "slide.h5ad")
    np.testing.assert_array_equal(again.obsm["spatial"], slide.obsm["spatial"])


def test_a_file_is_named_and_has_previews(tmp_path) -> None:
    pixels, _ = drawn()
    Image.fromarray(np.kron(pixels, np.ones((4, 4, 1), dtype=np.uint8))).save(tmp_path / "slide.png")
    slide = h2s.pp.tissue_grid(str(tmp_path / "slide.png"), mpp=MPP / 4)
    entry = slide.uns["spatial"]["section"]
    assert entry["metadata"]["source_image_path"] == str((tmp_path / "slide.png").resolve())
    for name, longest in (("hires", 2000), ("lowres", 600)):
        small = entry["images"][name]
        assert max(small.shape) == pytest.approx(longest, rel=0.3)
        assert max(small.shape) <= longest
        scale = entry["scalefactors"][f"tissue_{name}_scalef"]
        assert scale == pytest.approx(small.shape[1] / 2800, rel=0.01)
        # The marker is purple and pink there too.
        column, row = to_image_pixels(np.array([640.0, 50.0]) * 4, scale).astype(int)
        assert small[row, column, 1] < 170 < small[row, -3, 1]
    array = h2s.pp.tissue_grid(np.asarray(Image.open(tmp_path / "slide.png")), mpp=MPP / 4)
    assert slide.n_obs == array.n_obs
    np.testing.assert_array_equal(slide.obsm["spatial"], array.obsm["spatial"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spacing_um": 0}, ValueError, r"`spacing_um` to be a positive number, found 0"),
        ({"spacing_um": -5.0}, ValueError, r"`spacing_um`.*-5"),
        ({"spacing_um": float("nan")}, ValueError, r"`spacing_um`.*nan"),
        ({"spot_um": 0}, ValueError, r"`spot_um`"),
        ({"mpp": 0}, ValueError, r"`mpp` to be a positive number"),
        ({"mpp": None}, ValueError, r"microns per pixel.*mpp="),
        ({"lattice": "round"}, ValueError, r"`lattice`.*hexagonal.*square.*'round'"),
        ({"min_tissue": 1.5}, ValueError, r"`min_tissue`.*1\.5"),
        ({"spacing_um": 5000, "min_tissue": 1.0}, ValueError, r"None of .* spots.*spacing_um="),
        ({"image": np.full((300, 400, 3), 240, np.uint8)}, ValueError, r"No tissue found.*mpp="),
        ({"image": np.zeros((3, 400, 300), np.uint8)}, ValueError, r"shape \(3, 400, 300\).*channels last"),
        ({"image": np.zeros((400, 300, 3), np.int64)}, ValueError, r"uint8.*int64"),
        ({"image": ad.AnnData(np.ones((3, 3)))}, TypeError, r"path.*array.*AnnData"),
        ({"image": [1, 2]}, TypeError, r"path.*array.*list"),
        ({"image": "no/such/slide.svs"}, FileNotFoundError, r"no/such/slide\.svs"),
    ],
)
def test_errors_say_what_to_do(options, error, message) -> None:
    with pytest.raises(error, match=message):
        h2s.pp.tissue_grid(**({"image": drawn()[0], "mpp": MPP} | options))


def test_squidpy_draws_it() -> None:
    import squidpy as sq

    slide = h2s.pp.tissue_grid(drawn()[0], mpp=MPP)
    axis = sq.pl.spatial_scatter(slide, color="tissue_fraction", return_ax=True)
    assert axis.images
    assert axis.collections
    plt.close("all")


@pytest.fixture(scope="module")
def model() -> h2s.TrainedModel:
    train = h2s.datasets.simulate(seed=0)[0]
    return h2s.tl.fit(train, **fast(library_key="library_id"))


@pytest.mark.parametrize("spacing_um", [100.0, 50.0])
def test_a_model_predicts_on_it_with_no_further_argument(model, spacing_um) -> None:
    pixels, _ = drawn()
    slide = h2s.pp.tissue_grid(pixels, spacing_um=spacing_um, mpp=MPP)
    predicted = h2s.tl.predict(slide, model, progress=False)
    assert predicted.shape == (slide.n_obs, len(model.genes))
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()
    assert list(predicted.uns["hist2scrna"]["graph"]) == ["hexagonal"]
    # The patch stays that of the model, whatever the spacing.
    spots = model.read(slide)
    assert spots.geometry.um == model.geometry.um
    np.testing.assert_allclose(spots.patches.side, model.geometry.um / MPP)
    # And so does the distance to the neighbors, which on the finer lattice are every second spot.
    assert model.training["pitch_um"] == pytest.approx(100, rel=0.01)
    np.testing.assert_allclose(spots.graph.pitch, 100 / MPP)


@pytest.mark.parametrize("section", ["C2", "C6"])
def test_spots_of_real_sections_lie_on_the_tissue_found(shared_data, section) -> None:
    from hist2scrna.spots.library import open_given

    pixels = open_given(shared_data / "her2st" / f"{section}.jpg")
    mask = tissue_mask(pixels, 100 / 136)
    spots = pd.read_csv(shared_data / "her2st" / f"{section}_selection.tsv", sep="\t").query("selected == 1")
    xy = spots[["pixel_x", "pixel_y"]].to_numpy(dtype=float)
    assert (mask.fraction(xy, 136) >= 0.5).mean() >= 0.95
    assert mask.at(xy).mean() >= 0.95
    # 180 spots, one in each square of 200 um, and no more tissue than that.
    assert mask.mask.sum() * (100 / 136 / mask.scale) ** 2 == pytest.approx(len(xy) * 200**2, rel=0.25)


def test_a_real_slide(shared_data) -> None:
    slide = h2s.pp.tissue_grid(shared_data / "wsi" / "CMU-1-Small-Region.svs", spacing_um=25)
    assert slide.uns["spatial"]["section"]["scalefactors"]["mpp"] == pytest.approx(0.499)
    # By eye: tissue covers about two fifths of 1.64 mm2.
    assert slide.n_obs * 25**2 * np.sqrt(3) / 2 / 1e6 == pytest.approx(0.4 * 1.64, rel=0.1)
    xy = slide.obsm["spatial"]
    for x, y, expected in [(1000, 1100, True), (900, 2600, True), (300, 2000, False), (2000, 300, False)]:
        assert (np.linalg.norm(xy - (x, y), axis=1).min() < 30) == expected, (x, y)
