"""Pixels: the right ones, in the right orientation and scale, whatever they are read from."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from hist2scrna.images.base import ArrayImage, cut_patches
from hist2scrna.images.open import open_file

WIDTH, HEIGHT = 260, 180


RED, GREEN = (200, 30, 40), (20, 180, 60)


@pytest.fixture
def marked_pixels():
    """White, with a red marker centered on (200, 40) and a green one on (60, 130); x right, y down."""
    pixels = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    pixels[30:50, 190:210] = RED
    pixels[120:140, 50:70] = GREEN
    return pixels


def sources(marked_pixels, folder):
    Image.fromarray(marked_pixels).save(folder / "p.png")
    tifffile.imwrite(folder / "flat.tif", marked_pixels, photometric="rgb")
    with tifffile.TiffWriter(folder / "pyramid.tif") as writer:
        options = {"photometric": "rgb", "tile": (64, 64)}
        writer.write(marked_pixels, subifds=2, **options)
        writer.write(marked_pixels[::2, ::2], subfiletype=1, **options)
        writer.write(marked_pixels[::4, ::4], subfiletype=1, **options)
    zarr.save_array(folder / "p.zarr", marked_pixels)
    alpha = np.concatenate([marked_pixels, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=2)
    return {
        "array": ArrayImage(marked_pixels, 1.0, "test"),
        "float": ArrayImage(marked_pixels.astype(np.float32) / 255, 1.0, "test"),
        "uint16": ArrayImage(marked_pixels.astype(np.uint16) * 257, 1.0, "test"),
        "rgba": ArrayImage(alpha, 1.0, "test"),
        "dask": ArrayImage(da.from_array(marked_pixels, chunks=(50, 50, 3)), 1.0, "test"),
        "zarr": ArrayImage(zarr.open_array(folder / "p.zarr", mode="r"), 1.0, "test"),
        "png": open_file(folder / "p.png"),
        "tiff": open_file(folder / "flat.tif"),
        "pyramid": open_file(folder / "pyramid.tif"),
    }


def test_markers_are_found_in_every_source(marked_pixels, tmp_path):
    expected = np.stack([np.broadcast_to(np.array(c, np.uint8)[:, None, None], (3, 10, 10)) for c in (RED, GREEN)])
    for name, image in sources(marked_pixels, tmp_path).items():
        assert image.size() == (WIDTH, HEIGHT), name
        patches = cut_patches(image, np.array([[200.0, 40.0], [60.0, 130.0]]), 10, 10)
        np.testing.assert_array_equal(patches, expected, err_msg=name)


def test_patch_is_centered_to_a_fraction_of_a_pixel(marked_pixels):
    """The share of marker on either side of the center tells where the center is."""
    image = ArrayImage(marked_pixels, 1.0, "test")
    for shift in (0.0, 0.25, 0.5, 3.0):
        red = 255 - cut_patches(image, np.array([[200.0 + shift, 40.0]]), 40, 40)[0, 1].astype(float)
        center = (red.sum(axis=0) * (np.arange(40) + 0.5)).sum() / red.sum()
        assert center == pytest.approx(20 - shift, abs=0.02)


def test_same_tissue_at_any_image_scale(marked_pixels):
    """An image at half the scale gives the same patch, resampling aside."""
    full = cut_patches(ArrayImage(marked_pixels, 1.0, "a"), np.array([[200.0, 40.0]]), 80, 20)
    half = np.asarray(Image.fromarray(marked_pixels).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX))
    small = cut_patches(ArrayImage(half, 0.5, "b"), np.array([[200.0, 40.0]]), 80, 20)
    assert np.abs(full.astype(int) - small).mean() < 3


def test_pyramid_reads_the_level_that_the_patch_needs(marked_pixels, tmp_path):
    image = sources(marked_pixels, tmp_path)["pyramid"]
    assert image.scales == pytest.approx((1.0, 0.5, 0.25))
    assert [image.level_for(scale) for scale in (2.0, 1.0, 0.6, 0.5, 0.3, 0.25, 0.01)] == [0, 0, 0, 1, 1, 2, 2]
    coarse = cut_patches(image, np.array([[200.0, 40.0]]), 80, 20)
    fine = cut_patches(ArrayImage(marked_pixels, 1.0, "test"), np.array([[200.0, 40.0]]), 80, 20)
    assert np.abs(coarse.astype(int) - fine).mean() < 6


def test_borders_are_padded_with_white(marked_pixels):
    black = ArrayImage(np.zeros_like(marked_pixels), 1.0, "test")
    patch = cut_patches(black, np.array([[0.0, 0.0]]), 20, 20)[0]
    assert (patch[:, 11:, 11:] == 0).all()
    assert (patch[:, :9] == 255).all() and (patch[:, :, :9] == 255).all()
    away = cut_patches(black, np.array([[-500.0, 900.0]]), 20, 20)
    assert (away == 255).all()


def test_real_whole_slide_matches_an_independent_reader(shared_data):
    path = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    image = open_file(path)
    whole = tifffile.imread(path)
    assert image.size() == (whole.shape[1], whole.shape[0]) == (2220, 2967)
    patch = cut_patches(image, np.array([[1000.0, 2000.0]]), 64, 64)[0]
    np.testing.assert_array_equal(patch.transpose(1, 2, 0), whole[1968:2032, 968:1032])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 6, 7), np.uint8), r"shape \(5, 6, 7\).*channels last"),
        (np.zeros((5, 6, 3), np.int64), "uint8, uint16 or float, found int64"),
        (np.full((5, 6, 3), 200.0), "0..1.*200"),
    ],
)
def test_arrays_that_are_no_image_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        ArrayImage(array, 1.0, "test")


def test_files_that_are_no_image_are_refused(marked_pixels, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.png"):
        open_file(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png.*not an image"):
        open_file(tmp_path / "text.png")
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.tif.*not a TIFF"):
        open_file(tmp_path / "text.tif")
    Image.fromarray(marked_pixels).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"cut\.png.*damaged"):
        open_file(tmp_path / "cut.png").read(0, 0, 0, 5, 5)
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((4, 30, 40), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match=r"stack\.tif.*axes"):
        open_file(tmp_path / "stack.tif")


def test_size_is_checked_before_decoding(tmp_path, monkeypatch):
    Image.new("RGB", (400, 300)).save(tmp_path / "large.png")
    monkeypatch.setattr("hist2scrna.images.pixels.MAX_DECODED_PIXELS", 10_000)
    with pytest.raises(ValueError, match=r"400 x 300.*tiled"):
        open_file(tmp_path / "large.png")
