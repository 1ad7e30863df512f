"""Nuclei: those that were drawn are found, whole and once, whatever the tile; real tissue; a prediction."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from builders import fast
from scipy.spatial import cKDTree
from skimage.color import hed2rgb, rgb2hed

import hist2scrna as h2s
from hist2scrna.images.base import ArrayImage, cut_patches
from hist2scrna.images.nuclei import HALO, NucleusSegmenter, ResampledImage, hematoxylin_density
from hist2scrna.images.tissue import tissue_mask

MPP = 0.5
DENSITY = 0.16


def painted(
    width: int,
    height: int,
    nuclei: list[tuple[float, float, float, float, float]],
    mpp: float = MPP,
    noise: float = 3.0,
) -> np.ndarray:
    """Eosin all over but for a rim of glass, and ellipses of hematoxylin (x, y, two radii in um, degrees), in um."""
    y, x = (np.mgrid[:height, :width] + 0.5) * mpp
    hematoxylin = np.full((height, width), 0.01)
    for a, b, long, short, angle in nuclei:
        t = np.radians(angle)
        u, v = (x - a) * np.cos(t) + (y - b) * np.sin(t), -(x - a) * np.sin(t) + (y - b) * np.cos(t)
        hematoxylin[(u / long) ** 2 + (v / short) ** 2 < 1] = DENSITY
    eosin = np.full((height, width), 0.05)
    rim = int(10 / mpp)
    glass = np.ones((height, width), dtype=bool)
    glass[rim:-rim, rim:-rim] = False
    hematoxylin[glass] = eosin[glass] = 0
    pixels = 245 * hed2rgb(np.stack([hematoxylin, eosin, np.zeros_like(eosin)], axis=-1))
    pixels += np.random.default_rng(0).normal(0, noise, pixels.shape)
    return np.round(pixels.clip(0, 255)).astype(np.uint8)


def scattered(width_um: float, height_um: float, number: int, seed: int = 0) -> list[tuple[float, ...]]:
    """Nuclei of 3 to 6 um radius at random places that do not touch."""
    rng = np.random.default_rng(seed)
    placed: list[tuple[float, ...]] = []
    while len(placed) < number:
        x, y = rng.uniform(20, width_um - 20), rng.uniform(20, height_um - 20)
        long = rng.uniform(3, 6)
        if all(np.hypot(x - p[0], y - p[1]) > long + p[2] + 2.5 for p in placed):
            placed.append((x, y, long, long * rng.uniform(0.7, 1), rng.uniform(0, 180)))
    return placed


def segment(pixels, **options) -> ad.AnnData:
    return h2s.pp.segment_nuclei(pixels, **({"mpp": MPP, "progress": False} | options))


def matched(found_um: np.ndarray, truth_um: np.ndarray, within: float = 3.0) -> tuple[float, float, np.ndarray]:
    """Recall, precision, and the distances of the nuclei that were found."""
    to_found = cKDTree(found_um).query(truth_um)[0]
    to_truth = cKDTree(truth_um).query(found_um)[0]
    return (to_found < within).mean(), (to_truth < within).mean(), to_found[to_found < within]


@pytest.fixture(scope="module")
def drawn() -> tuple[list[tuple[float, ...]], np.ndarray]:
    # Wider than high: 340 x 210 um.
    nuclei = scattered(340, 210, 110)
    return nuclei, painted(680, 420, nuclei)


def test_drawn_nuclei_are_found_where_and_as_large_as_they_are(drawn) -> None:
    nuclei, pixels = drawn
    truth = np.array(nuclei)
    found = segment(pixels)
    recall, precision, distance = matched(found.obsm["spatial"] * MPP, truth[:, :2])
    assert recall >= 0.97
    assert precision >= 0.97
    assert distance.mean() < 0.35
    own = cKDTree(truth[:, :2]).query(found.obsm["spatial"] * MPP)[1]
    area = np.pi * truth[own, 2] * truth[own, 3]
    assert np.median(found.obs["area_um2"] / area) == pytest.approx(1, abs=0.1)
    assert np.corrcoef(found.obs["area_um2"], area)[0, 1] > 0.97


def test_shapes_are_measured() -> None:
    truth = [(60.0, 60.0, 9.0, 4.5, 30.0), (130.0, 60.0, 9.0, 4.5, 120.0), (60.0, 130.0, 6.0, 6.0, 0.0)]
    nuclei = segment(painted(400, 340, truth, noise=0))
    found = nuclei.obs.iloc[cKDTree(nuclei.obsm["spatial"] * MPP).query(np.array(truth)[:, :2])[1]]
    assert len(nuclei) == 3
    np.testing.assert_allclose(found["major_axis_um"], [18, 18, 12], rtol=0.06)
    np.testing.assert_allclose(found["minor_axis_um"], [9, 9, 12], rtol=0.08)
    np.testing.assert_allclose(found["orientation_deg"][:2], [30, 120], atol=3)
    np.testing.assert_allclose(found["eccentricity"][:2], np.sqrt(0.75), atol=0.03)
    assert found["eccentricity"].iloc[2] < 0.3
    assert found["perimeter_um"].iloc[2] == pytest.approx(2 * np.pi * 6, rel=0.08)
    assert (found["solidity"] > 0.95).all()
    # The rim of a nucleus is blurred, its middle is not.
    assert (found["hematoxylin"] > 0.8 * DENSITY).all()
    assert (found["hematoxylin"] < 1.05 * DENSITY).all()


@pytest.mark.parametrize("distance", [7.0, 8.0, 9.0])
@pytest.mark.parametrize("angle", [0.0, 40.0])
def test_touching_nuclei_are_parted(distance, angle) -> None:
    shift = distance / 2 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    pairs = [(c + s * shift) for c in np.array([[50.0, 50], [100, 50], [150, 50]]) for s in (-1, 1)]
    found = segment(painted(400, 200, [(x, y, 4.5, 4.5, 0) for x, y in pairs]))
    recall, precision, _ = matched(found.obsm["spatial"] * MPP, np.array(pairs), 1.5)
    assert found.n_obs == 6
    assert recall == precision == 1


def test_no_nucleus_has_its_middle_beyond_the_image() -> None:
    # Of 401 x 203 pixels, cut through nuclei on all sides: beyond, the image goes on with its last color.
    rim = [(x, y, 5.0, 5.0, 0.0) for x in (0.0, 60.0, 120.0, 200.4) for y in (0.0, 101.4)]
    found = segment(painted(401, 203, [*rim, (30.0, 50.0, 5.0, 5.0, 0.0)]))
    assert (found.obsm["spatial"] >= 0).all() and (found.obsm["spatial"] < (401, 203)).all()
    assert len(found) > 0


def test_a_long_nucleus_is_one() -> None:
    found = segment(painted(400, 200, [(60, 50, 10, 4, 20), (140, 50, 8, 5, 75)]))
    assert found.n_obs == 2


@pytest.mark.parametrize("mpp", [0.25, 0.4, 0.5, 0.735])
def test_microns_do_not_depend_on_the_pixels_of_the_image(mpp) -> None:
    nuclei = scattered(150, 110, 25, seed=3)
    found = segment(painted(round(150 / mpp), round(110 / mpp), nuclei, mpp=mpp), mpp=mpp)
    truth = np.array(nuclei)
    recall, precision, distance = matched(found.obsm["spatial"] * mpp, truth[:, :2])
    assert recall >= 0.95
    assert precision >= 0.95
    assert distance.mean() < 0.4
    expected = np.median(np.pi * truth[:, 2] * truth[:, 3])
    assert found.obs["area_um2"].median() == pytest.approx(expected, rel=0.12)


# -- tiles ------------------------------------------------------------------------------------------------------------


def same(first: ad.AnnData, second: ad.AnnData) -> None:
    assert first.n_obs == second.n_obs
    np.testing.assert_allclose(first.obsm["spatial"], second.obsm["spatial"], rtol=0, atol=1e-6)
    columns = [c for c in first.obs if c != "library_id"]
    # Sums over the same pixels of another window may be added up in another order.
    np.testing.assert_allclose(
        first.obs[columns].to_numpy(dtype=float), second.obs[columns].to_numpy(dtype=float), rtol=1e-6, atol=1e-6
    )


def test_tiles_leave_no_seam_in_a_crowd() -> None:
    # Nuclei that touch without end, at a scale that is no whole ratio: the hardest for a border.
    rng = np.random.default_rng(5)
    places = rng.uniform(12, (238, 188), (600, 2))
    pixels = painted(500, 400, [(x, y, *rng.uniform(3, 6, 2), rng.uniform(0, 180)) for x, y in places])
    whole = segment(pixels, mpp=0.47, tile_px=2048)
    assert whole.n_obs > 150
    for tile in (128, 256):
        same(segment(pixels, mpp=0.47, tile_px=tile), whole)


def test_tiles_leave_no_seam_on_a_real_slide(shared_data) -> None:
    import tifffile

    slide = tifffile.imread(shared_data / "wsi" / "CMU-1-Small-Region.svs")[900:1500, 900:1600]
    whole = segment(slide, mpp=0.499, tile_px=2048)
    assert whole.n_obs > 200
    same(segment(slide, mpp=0.499, tile_px=256), whole)


def test_a_nucleus_on_the_border_of_four_tiles_is_found_once_and_whole() -> None:
    pixels = painted(400, 360, [(64, 64, 6, 6, 0)], noise=0)
    found = segment(pixels, tile_px=128)
    assert found.n_obs == 1
    np.testing.assert_allclose(found.obsm["spatial"][0], [128, 128], atol=0.6)
    assert found.obs["area_um2"].iloc[0] == pytest.approx(36 * np.pi, rel=0.13)


def test_no_window_is_larger_than_a_tile_and_its_margin(monkeypatch) -> None:
    windows = []
    read = ArrayImage.read

    def spy(self, level, x, y, width, height):
        windows.append((width, height))
        return read(self, level, x, y, width, height)

    monkeypatch.setattr(ArrayImage, "read", spy)
    segment(painted(800, 300, [(60, 60, 5, 5, 0), (300, 100, 5, 5, 0)], noise=0), tile_px=128)
    assert len(windows) > 20
    assert max(max(w) for w in windows) <= max(128 + 2 * HALO, 256) + 4


def test_tiles_without_tissue_are_left_out() -> None:
    pixels = painted(600, 300, scattered(150, 130, 20))
    pixels[:, 320:] = 245
    image = ArrayImage(pixels, 1.0, "half")
    tiles = NucleusSegmenter(image, MPP, tissue_mask(image, MPP)).tiles(100)
    assert {x for x, _, _, _ in tiles} == {0, 100, 200, 300}
    assert {(w, h) for _, _, w, h in tiles} == {(100, 100)}


@pytest.mark.parametrize("um", [0.3, 0.5, 0.94, 1.7])
def test_windows_agree_with_the_whole_and_with_patches(um) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (90, 140, 3)).astype(np.uint8)
    image = ArrayImage(pixels, 1.0, "noise")
    resampled = ResampledImage(image, 0.47, um)
    width, height = resampled.size
    assert (width, height) == (round(140 * 0.47 / um), round(90 * 0.47 / um))
    whole = resampled.read(0, 0, width, height)
    for x, y, w, h in [(3, 5, 20, 10), (width - 9, height - 7, 9, 7), (1, 0, 1, 2)]:
        np.testing.assert_array_equal(resampled.read(x, y, w, h), whole[y : y + h, x : x + w])
    side = 12
    center = np.array([[10 + side / 2, 8 + side / 2]]) * um / 0.47
    patch = cut_patches(image, center, side * um / 0.47, side)[0].transpose(1, 2, 0)
    assert np.abs(patch.astype(int) - whole[8 : 8 + side, 10 : 10 + side]).max() <= 1
    beyond = resampled.read(-4, -3, 10, 10)
    np.testing.assert_array_equal(beyond[0], beyond[1])
    np.testing.assert_array_equal(beyond[:, 0], beyond[:, 1])


def test_densities_are_those_of_scikit_image() -> None:
    pixels = np.random.default_rng(2).integers(1, 256, (40, 50, 3)).astype(np.uint8)
    expected = rgb2hed(pixels / 255)[..., 0]
    density = hematoxylin_density(pixels, np.full(3, 255.0))
    od = -np.log10(pixels / 255)
    ink = od[..., 0] > 1.4 * od[..., 1] + 0.05
    assert ink.any()
    np.testing.assert_allclose(density[~ink], expected[~ink], atol=1e-6)
    assert (density[ink] == 0).all()


# -- AnnData ----------------------------------------------------------------------------------------------------------


def test_what_is_written(drawn, tmp_path) -> None:
    pixels = drawn[1]
    found = segment(pixels, library_id="s3", min_area_um2=40, max_area_um2=80)
    assert found.X is None
    assert found.n_vars == 0
    assert found.obs["area_um2"].between(40, 80).all()
    assert list(found.obs["library_id"].cat.categories) == ["s3"]
    entry = found.uns["spatial"]["s3"]
    assert entry["images"]["hires"] is pixels
    # Without spots, as of a single-cell assay: patches take the width for cells.
    assert entry["scalefactors"] == {"mpp": 0.5, "tissue_hires_scalef": 1.0}
    assert found.obs_names.is_unique
    found.write_h5ad(tmp_path / "nuclei.h5ad")
    again = ad.read_h5ad(tmp_path / "nuclei.h5ad")
    pd.testing.assert_frame_equal(again.obs, found.obs)


def test_a_real_slide_has_the_nuclei_that_are_seen(shared_data) -> None:
    import tifffile

    # 250 x 225 um of dermis and epidermis: some 190 nuclei by eye.
    slide = tifffile.imread(shared_data / "wsi" / "CMU-1-Small-Region.svs")[2300:2800, 700:1150]
    found = segment(slide, mpp=0.499)
    assert 120 < found.n_obs < 260
    assert 25 < found.obs["area_um2"].median() < 60
    assert found.obs["solidity"].median() > 0.88


def test_squidpy_draws_it(drawn) -> None:
    import squidpy as sq

    found = segment(drawn[1])
    axis = sq.pl.spatial_scatter(found, shape=None, color="area_um2", return_ax=True)
    assert axis.collections
    plt.close("all")


def test_a_model_predicts_on_it_with_no_further_argument(drawn) -> None:
    train = h2s.datasets.simulate(seed=0)[0]
    model = h2s.tl.fit(train, **fast(library_key="library_id"))
    found = segment(drawn[1])
    predicted = h2s.tl.predict(found, model, progress=False)
    assert predicted.shape == (found.n_obs, len(model.genes))
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()
    assert "area_um2" in predicted.obs


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mpp": None}, ValueError, r"microns per pixel.*mpp="),
        ({"mpp": -1.0}, ValueError, r"`mpp`.*-1"),
        ({"mpp": 2.0}, ValueError, r"2 um wide.*1\.5 um.*full-resolution"),
        ({"min_area_um2": 0}, ValueError, r"`min_area_um2`"),
        ({"min_area_um2": 50, "max_area_um2": 40}, ValueError, r"`min_area_um2` to be below.*50 and 40"),
        ({"min_area_um2": 399}, ValueError, r"No nucleus of 399 to 400 um2"),
        ({"tile_px": 10}, ValueError, r"`tile_px`.*at least 64, found 10"),
        ({"image": np.full((300, 400, 3), 240, np.uint8)}, ValueError, r"No tissue found"),
        ({"image": np.zeros((400, 300, 70), np.uint8)}, ValueError, r"shape \(400, 300, 70\)"),
        ({"image": np.zeros((400, 300, 3), np.int32)}, ValueError, r"uint8.*int32"),
        ({"image": "no/such/slide.svs"}, FileNotFoundError, r"no/such/slide\.svs"),
    ],
)
def test_errors_say_what_to_do(drawn, options, error, message) -> None:
    with pytest.raises(error, match=message):
        segment(**({"pixels": drawn[1]} if "image" not in options else {"pixels": options.pop("image")}), **options)
