"""Tiles with nuclei: who shows where, who predicts whom, and masks that are read or drawn."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from hist2scrna.fitting.tile_batches import make_tile_batch, tiles_of
from hist2scrna.images.base import ArrayImage
from hist2scrna.images.nuclei import ResampledImage
from hist2scrna.images.nucleus_masks import DrawnMask, LabelMask
from hist2scrna.spots.nuclei_in_spots import NucleiBySpot
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source
from hist2scrna.spots.tiles import TileSize, TileSource, tile_starts

PX = 32
SHAPE = (70, 100)


def squares(*places: tuple[int, int, int, int]) -> np.ndarray:
    """Labels 1, 2, ... of rectangles: first row and column, height and width."""
    labels = np.zeros(SHAPE, dtype=np.int32)
    for number, (y, x, height, width) in enumerate(places, 1):
        labels[y : y + height, x : x + width] = number
    return labels


def tiles_of_labels(labels: np.ndarray, n: int, *, overlap: int = 0) -> TileSource:
    picture = np.random.default_rng(0).integers(0, 255, (*labels.shape, 3)).astype(np.uint8)
    image = ResampledImage(ArrayImage(picture, 1.0, "a test"), 0.5, 0.5)
    mask = LabelMask(labels, 1.0, np.arange(1, n + 1), np.arange(n))
    return TileSource([image], [mask], n, TileSize(PX, 16.0, overlap))


def test_nuclei_of_spots_are_also_shown_by_tiles_side_by_side() -> None:
    corners = [(2, 3, 4, 5), (26, 40, 5, 4), (33, 52, 4, 4), (60, 90, 6, 6), (40, 45, 3, 3)]
    labels = squares(*corners)
    picture = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3)).astype(np.uint8)
    image = ResampledImage(ArrayImage(picture, 1.0, "a test"), 0.5, 0.5)
    # The last lies in no spot.
    spot, centers = np.array([0, 1, 1, 2, -1]), np.array([[6.0, 5.0], [47.0, 34.0], [92.0, 62.0]])
    by_spot = NucleiBySpot(spot, [(np.arange(3), centers)], 3)
    mask = LabelMask(labels, 1.0, np.arange(1, 6), np.arange(5))
    tiles = TileSource([image], [mask], 5, TileSize(PX, 16.0), by_spot=by_spot)
    places, tile = tiles.side_by_side(np.array([1, 2]))
    expected = {}
    for nucleus in (1, 2, 3):
        top, left, height, width = corners[nucleus]
        x, y = left + width / 2, top + height / 2
        nearest = min(
            ((c, r) for c in tile_starts(SHAPE[1], PX, 0) for r in tile_starts(SHAPE[0], PX, 0)),
            key=lambda start: (start[0] + PX / 2 - x) ** 2 + (start[1] + PX / 2 - y) ** 2,
        )
        expected[(0, *nearest)] = spot[nucleus]
    assert dict(zip(map(tuple, places.tolist()), tiles.spot[tile].tolist(), strict=True)) == expected
    assert len(expected) == 3
    for _, x, y in places.tolist():
        window = tiles.picture(0, x, y)
        inside = picture[y : y + PX, x : x + PX].transpose(2, 0, 1)
        np.testing.assert_array_equal(window[:, : inside.shape[1], : inside.shape[2]], inside)


def section_of(labels: np.ndarray, n: int) -> ad.AnnData:
    xy = np.array(
        [np.argwhere(labels == i + 1).mean(axis=0)[::-1] if (labels == i + 1).any() else (5, 5) for i in range(n)]
    )
    picture = np.random.default_rng(0).integers(0, 255, (*labels.shape, 3)).astype(np.uint8)
    return ad.AnnData(
        obs=pd.DataFrame({"nucleus": np.arange(1, n + 1)}, index=[f"c{i}" for i in range(n)]),
        obsm={"spatial": xy.astype(float)},
        uns={
            "spatial": {"s": {"images": {"level0": picture}, "scalefactors": {"tissue_level0_scalef": 1.0, "mpp": 0.5}}}
        },
    )


def opened_tiles(adata: ad.AnnData, nuclei: object = None, *, px: int = PX, um: float = PX / 2) -> TileSource:
    return read_spots(open_sections(adata, Source(nuclei=nuclei)), tile=TileSize(px, um)).tiles


# The first four as in the stored outputs of GHIST, but for its duplicates.
@pytest.mark.parametrize(
    ("length", "overlap", "expected"),
    [
        (700, 0, [0, 256, 444]),
        (700, 30, [0, 226, 444]),
        (1024, 0, [0, 256, 512, 768]),
        (256, 0, [0]),
        (100, 0, [0]),
    ],
)
def test_tiles_cover_the_image(length, overlap, expected) -> None:
    assert tile_starts(length, 256, overlap) == expected
    covered = np.concatenate([np.arange(start, start + 256) for start in expected])
    assert set(range(length)) <= set(covered)


@pytest.mark.parametrize("overlap", [0, 6])
def test_a_nucleus_is_owned_by_the_tile_where_it_shows_the_most_pixels(overlap) -> None:
    rng = np.random.default_rng(1)
    places = [(y, x, *rng.integers(3, 9, 2)) for y in range(1, 60, 10) for x in range(1, 90, 10)]
    labels = squares(*places)
    tiles = tiles_of_labels(labels, len(places), overlap=overlap)
    # The truth, tile by tile, from the whole label image.
    expected = {}
    for y in tile_starts(SHAPE[0], PX, overlap):
        for x in tile_starts(SHAPE[1], PX, overlap):
            window = labels[y : y + PX, x : x + PX]
            expected[x, y] = np.bincount(window.ravel(), minlength=len(places) + 1)[1:]
    seen = np.stack([expected[x, y] for _, x, y in tiles.place.tolist()])
    np.testing.assert_array_equal(tiles.owner, seen.argmax(axis=0))
    np.testing.assert_array_equal(tiles.pixels, seen.max(axis=0))
    for number in range(len(tiles)):
        np.testing.assert_array_equal(tiles.rows(number), np.flatnonzero(seen[number]))


def test_tiles_without_nuclei_are_skipped() -> None:
    tiles = tiles_of_labels(squares((2, 2, 5, 5), (40, 80, 5, 5)), 2)
    assert sorted(map(tuple, tiles.place[:, 1:].tolist())) == [(0, 0), (64, 32), (64, 38), (68, 32), (68, 38)]
    assert tiles.owner[0] == 0


def test_a_batch_shows_every_nucleus_once_a_tile_with_its_own_pixels() -> None:
    # One across the border of two tiles, one that a second touches, one with a hole, and a tile that one fills.
    labels = squares((10, 28, 6, 10), (20, 5, 4, 4), (20, 9, 4, 4), (2, 2, 7, 7), (32, 64, 32, 36))
    labels[5, 5] = 0
    adata = section_of(labels, 5)
    spots = read_spots(open_sections(adata, Source(nuclei=labels)), tile=TileSize(PX, PX / 2))
    everyone = np.ones(5, dtype=bool)
    tiles = tiles_of(spots, everyone, owned=True)
    batch, core = make_tile_batch(spots, tiles, everyone, owned=True, supervised=False)
    assert sorted(core.tolist()) == [0, 1, 2, 3, 4]
    assert batch.n_core == 5 < len(batch.tile)
    for row in range(len(batch.tile)):
        tile = int(batch.tile[row])
        elsewhere = np.delete(batch.masks.numpy(), tile, axis=0)
        assert not (elsewhere == row + 1).any()
        _, x, y = spots.tiles.place[tiles[tile]].tolist()
        here = batch.masks[tile].numpy() == row + 1
        window = labels[y : y + PX, x : x + PX]
        number = np.unique(window[here[: window.shape[0], : window.shape[1]]])
        assert len(number) == 1 and here.sum() == (window == number[0]).sum()
        if row < 5:
            assert number[0] == core[row] + 1
    filled = batch.masks[int(batch.tile[core.tolist().index(4)])]
    assert (filled > 0).float().mean() > 0.99
    shown, numbers = make_tile_batch(spots, tiles, everyone, owned=False, supervised=False)
    assert shown.n_core == len(batch.tile) and set(numbers.tolist()) == {0, 1, 2, 3, 4}


def test_more_than_a_hundred_nuclei_show_in_one_tile() -> None:
    labels = np.arange(1, 145).reshape(12, 12).repeat(8, axis=0).repeat(8, axis=1).astype(np.int32)
    adata = section_of(labels, 144)
    spots = read_spots(open_sections(adata, Source(nuclei=labels)), tile=TileSize(96, 48.0))
    batch, core = make_tile_batch(spots, np.array([0]), np.ones(144, dtype=bool), owned=True, supervised=False)
    np.testing.assert_array_equal(core, np.arange(144))
    np.testing.assert_array_equal(batch.masks[0].numpy(), labels)


def test_pixels_are_those_of_the_image() -> None:
    labels = squares((2, 2, 5, 5), (40, 80, 5, 5))
    adata = section_of(labels, 2)
    tiles = opened_tiles(adata, labels)
    picture = adata.uns["spatial"]["s"]["images"]["level0"]
    for number in range(len(tiles)):
        _, x, y = tiles.place[number].tolist()
        seen = tiles.read(number)[0].transpose(1, 2, 0)
        inside = picture[y : y + PX, x : x + PX]
        np.testing.assert_array_equal(seen[: inside.shape[0], : inside.shape[1]], inside)


@pytest.mark.parametrize("kind", ["array", "tiff", "pyramid", "zarr", "by section", "half"])
def test_label_images_of_all_kinds_are_read_alike(tmp_path, kind) -> None:
    labels = squares((4, 4, 6, 8), (40, 70, 10, 12), (20, 20, 4, 4))
    given: object = labels
    if kind == "tiff":
        given = tmp_path / "nuclei.tif"
        tifffile.imwrite(given, labels, tile=(16, 16), compression="zlib")
    elif kind == "pyramid":
        given = tmp_path / "nuclei.tif"
        with tifffile.TiffWriter(given) as file:
            file.write(labels, subifds=1)
            file.write(labels[::2, ::2], subfiletype=1)
    elif kind == "zarr":
        given = tmp_path / "nuclei.zarr"
        zarr.save_array(given, labels)
    elif kind == "by section":
        given = {"s": labels}
    elif kind == "half":
        given = labels[::2, ::2]
    adata = section_of(labels, 3)
    if kind == "by section":
        adata.obs["library_id"] = pd.Categorical(["s"] * 3)
    tiles = opened_tiles(adata, given)
    np.testing.assert_array_equal(tiles.pixels, np.bincount(labels.ravel())[1:])


def test_tiles_of_coarser_pixels_than_the_image() -> None:
    labels = squares((8, 8, 12, 16), (40, 64, 12, 12))
    tiles = opened_tiles(section_of(labels, 2), labels, px=32, um=32.0)
    np.testing.assert_array_equal(tiles.pixels, [6 * 8, 6 * 6])


def test_cells_without_nucleus_and_nuclei_without_cell() -> None:
    labels = squares((4, 4, 6, 8), (40, 70, 10, 12), (20, 20, 4, 4))
    adata = section_of(labels, 3)
    adata.obs["nucleus"] = [3, np.nan, 7]
    tiles = opened_tiles(adata, labels)
    np.testing.assert_array_equal(tiles.pixels, [16, 0, 0])
    np.testing.assert_array_equal(tiles.owner >= 0, [True, False, False])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda adata, labels: labels[:-20], ValueError, "label image is 100 x 50 px, the image 100 x 70"),
        (lambda adata, labels: labels.repeat(2, 0).repeat(2, 1), ValueError, "label image is 200 x 140"),
        (lambda adata, labels: labels.astype(float), ValueError, "whole numbers, 0 outside of nuclei; found float64"),
        (lambda adata, labels: "nowhere.tif", FileNotFoundError, "No label image at 'nowhere.tif'"),
        (lambda adata, labels: {"other": labels}, KeyError, "for section 's' in `nuclei`"),
        (lambda adata, labels: np.zeros_like(labels), ValueError, "No tile of the image shows a nucleus"),
        (
            lambda adata, labels: adata.obs.drop(columns="nucleus", inplace=True) or labels,
            KeyError,
            "label of each row",
        ),
        (
            lambda adata, labels: adata.obs.__setitem__("nucleus", [1, 1]) or labels,
            ValueError,
            "Label 1 .*more than one row",
        ),
    ],
)
def test_wrong_label_images_are_refused(change, error, message) -> None:
    labels = squares((4, 4, 6, 8), (40, 70, 10, 12))
    adata = section_of(labels, 2)
    with pytest.raises(error, match=message):
        opened_tiles(adata, change(adata, labels))


def test_ellipses_have_the_area_and_axes_that_were_measured() -> None:
    xy, axes = np.array([[40.0, 30.0], [80.0, 60.0]]), np.array([[30.0, 12.0], [16.0, 16.0]])
    mask = DrawnMask(xy, axes, np.array([30.0, 0.0]), np.array([4, 9]))
    whole = mask.read(0, 0, 120, 100)
    assert set(np.unique(whole)) == {0, 5, 10}
    from skimage.measure import regionprops

    for region, (long, short) in zip(regionprops(whole.astype(int)), axes, strict=True):
        assert region.area == pytest.approx(np.pi * long * short / 4, rel=0.05)
        assert region.axis_major_length == pytest.approx(long, rel=0.03)
        assert region.axis_minor_length == pytest.approx(short, rel=0.05)
    tilted = regionprops(whole.astype(int))[0]
    # Clockwise from the right; scikit-image measures from the rows.
    assert np.mod(90 - np.degrees(tilted.orientation), 180) == pytest.approx(30, abs=1)
    # Windows agree with the whole.
    np.testing.assert_array_equal(mask.read(33, 21, 20, 30), whole[21:51, 33:53])
    np.testing.assert_array_equal(mask.read(-10, -5, 60, 40)[5:, 10:], whole[:35, :50])


def test_where_drawn_nuclei_overlap_the_nearer_center_wins() -> None:
    mask = DrawnMask(np.array([[10.0, 10.0], [18.0, 10.0]]), np.full((2, 2), 12.0), np.zeros(2), np.arange(2))
    row = mask.read(0, 9, 30, 1)[0]
    np.testing.assert_array_equal(row[5:14], 1)
    np.testing.assert_array_equal(row[14:23], 2)


def test_what_obs_says_of_the_size_is_drawn() -> None:
    labels = squares((20, 20, 6, 8), (40, 70, 10, 12))
    adata = section_of(labels, 2)
    np.testing.assert_allclose(opened_tiles(adata).pixels, np.pi * 64, rtol=0.06)  # 8 um are 16 px across
    adata.obs["nucleus_area"] = [30.0, np.nan]
    np.testing.assert_allclose(opened_tiles(adata).pixels, [30 / 0.25, np.pi * 64], rtol=0.06)
    adata.obs[["major_axis_um", "minor_axis_um", "orientation_deg"]] = [[9.0, 4.0, 45.0], [6.0, 6.0, 0.0]]
    np.testing.assert_allclose(opened_tiles(adata).pixels, [np.pi * 36, np.pi * 36], rtol=0.05)
