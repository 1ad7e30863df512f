"""Tiles: decoded where they are needed, kept up to a bound, the same in threads and other processes."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_files import MARKER, WAYS, WRITERS, pyramid_tiff
from PIL import Image

from hist2scrna.images import tiles
from hist2scrna.images.base import ArrayImage, cut_patches
from hist2scrna.images.open import open_file
from hist2scrna.images.patches import PatchSource
from hist2scrna.images.tiles import TileCache, fitting_levels, level_scale


@pytest.mark.parametrize("factors", [(3, 5), (3, 7, 20), (2, 4, 8, 16)])
def test_levels_of_any_factor_and_of_sizes_that_do_not_divide(factors, tmp_path):
    """A point near the far corner, where an error of the scale is largest, is found to a tenth of a level's pixel."""
    pixels = np.full((1009, 2003, 3), 240, np.uint8)
    pixels[960:1000, 1920:1980] = (200, 20, 40)
    image = open_file(pyramid_tiff(tmp_path / "p.tif", pixels, factors))
    assert image.scales == pytest.approx([1, *(1 / f for f in factors)], rel=1e-12)
    for factor in factors:
        assert image.scales[image.level_for(1 / factor)] == pytest.approx(1 / factor)
        assert image.scales[image.level_for(1.02 / factor)] > 1.02 / factor
        patch = cut_patches(image, np.array([[1950.0, 980.0]]), 40 * factor, 40)[0]
        inside = patch[1].astype(float) < 130
        inside &= patch[0] > 100
        mark = np.argwhere(inside).mean(axis=0) + 0.5
        np.testing.assert_allclose(mark, [20, 20], atol=0.75)
        assert inside.sum() == pytest.approx(60 * 40 / factor**2, rel=0.35, abs=4)


def test_scale_of_levels_that_were_resized():
    assert level_scale((1000, 800), (400, 320)) == 0.4
    assert level_scale((1001, 801), (500, 400)) == 0.5
    assert level_scale((1001, 801), (501, 401)) == 0.5
    assert level_scale((1001, 801), (701, 561)) == pytest.approx(0.7, abs=1e-3)
    # A padded level and a label are left out; so is one of the same size.
    assert fitting_levels([(1000, 800), (512, 512), (500, 400), (500, 400), (250, 200), (125, 128)]) == [0, 2, 4]


def test_only_the_tiles_under_a_window_are_decoded(marked_pixels, tmp_path, monkeypatch):
    image = open_file(pyramid_tiff(tmp_path / "p.tif", marked_pixels))
    decoded = []
    own = type(image)._decode
    monkeypatch.setattr(type(image), "_decode", lambda self, *tile: decoded.append(tile) or own(self, *tile))
    image.read(0, 70, 70, 100, 20)
    assert decoded == [(0, 1, 1), (0, 1, 2)]
    image.read(0, 100, 70, 60, 70)
    assert decoded[2:] == [(0, 2, 1), (0, 2, 2)]
    decoded.clear()
    cut_patches(image, MARKER, 80, 20)
    assert decoded and {level for level, _, _ in decoded} == {2}


def test_cache_holds_what_was_used_last_and_no_more_than_its_bound():
    cache, made = TileCache(limit=100), []

    def tile(key, size=40):
        return cache.get((key,), lambda: made.append(key) or np.zeros(size, np.uint8))

    for key in "abacab":
        tile(key)
        assert cache.nbytes <= 100
    assert made == ["a", "b", "c", "b"]
    tile("whole", 500)
    assert cache.nbytes == 500
    tile("whole", 500)
    assert made.count("whole") == 1
    assert not tile("d").flags.writeable
    assert cache.nbytes == 40
    cache.forget("d")
    assert cache.nbytes == 0


def read_corner(image):
    return image.read(0, 380, 70, 40, 30)


@pytest.mark.parametrize("way", [w for w in WAYS if w.values[0] in ("pyramid", "ome-zarr 0.5", "openslide", "png")])
def test_threads_and_other_processes_read_the_same(way, marked_pixels, tmp_path, monkeypatch):
    """As the workers of a DataLoader do, be they forked or spawned."""
    image = open_file(WRITERS[way](tmp_path, marked_pixels))
    read_corner(image)
    expected = marked_pixels[70:100, 380:420]
    monkeypatch.setattr(tiles.CACHE, "limit", 4 * 64 * 64 * 3)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read_corner, [image] * 64):
            np.testing.assert_array_equal(found, expected)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map_async(read_corner, [image] * 4).get(timeout=60):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_corner(pickle.loads(pickle.dumps(image))), expected)


def test_memory_of_an_image_is_given_back_when_its_patches_are_cut(marked_pixels, tmp_path):
    tiles.CACHE.clear()
    Image.fromarray(marked_pixels).save(tmp_path / "a.png")
    images = [open_file(tmp_path / "a.png"), open_file(pyramid_tiff(tmp_path / "b.tif", marked_pixels, ()))]
    xy = np.random.default_rng(0).uniform(50, 300, (40, 2))
    section = np.arange(40) % 2
    source = PatchSource(images, [40, 40], xy, section, 20)
    source.read(np.array([0]))
    assert tiles.CACHE.nbytes == 0, "an image in one piece gives all patches of its section at once"
    source.read(np.array([1, 3]))
    assert 0 < tiles.CACHE.nbytes < marked_pixels.nbytes
    patches = source.read(np.arange(40))
    assert tiles.CACHE.nbytes == 0
    np.testing.assert_array_equal(patches, cut_patches(ArrayImage(marked_pixels, 1.0, "test"), xy, 40, 20))


def test_of_threads_that_miss_the_same_tile_one_decodes_it():
    """An image in one piece would else be decoded, and held, once for each thread."""
    cache, made, together = TileCache(), [], threading.Barrier(4)

    def decode():
        made.append(1)
        time.sleep(0.05)
        return np.zeros(10, np.uint8)

    def get(_):
        together.wait()
        return cache.get(("whole",), decode)

    with ThreadPoolExecutor(4) as pool:
        tiles_found = list(pool.map(get, range(4)))
    assert made == [1] and cache.nbytes == 10
    assert all(tile is tiles_found[0] for tile in tiles_found)

    def fail():
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.get(("broken",), fail)
