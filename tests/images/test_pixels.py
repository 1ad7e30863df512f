"""Pixels become 8-bit RGB; files that are turned or too large are refused."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from image_files import HEIGHT, WIDTH, ome_zarr, pyramid_tiff
from PIL import Image

from hist2scrna.images.open import open_file
from hist2scrna.images.pixels import as_rgb


def test_sixteen_bits_in_either_order():
    sixteen = as_rgb(np.array([[[65535, 257 * 7, 0]]], dtype=">u2"))
    assert sixteen.tolist() == [[[255, 7, 0]]]


@pytest.mark.parametrize("kind", ["tiff", "jpeg"])
def test_images_that_are_stored_turned_are_refused(kind, marked_pixels, tmp_path):
    path = tmp_path / "p.tif" if kind == "tiff" else tmp_path / "p.jpg"
    if kind == "tiff":
        tifffile.imwrite(path, marked_pixels, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    else:
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(marked_pixels).save(path, exif=exif)
    with pytest.raises(ValueError, match=rf"{path.name}.*upright.*orientation 6"):
        open_file(path)
    exif = Image.Exif()
    exif[274] = 1
    Image.fromarray(marked_pixels).save(tmp_path / "upright.jpg", exif=exif)
    assert open_file(tmp_path / "upright.jpg").size() == (WIDTH, HEIGHT)


def test_sizes_are_checked_before_decoding(marked_pixels, tmp_path, monkeypatch):
    whole, tiled = tmp_path / "whole.tif", pyramid_tiff(tmp_path / "tiled.tif", marked_pixels)
    tifffile.imwrite(whole, marked_pixels, photometric="rgb")
    chunk = ome_zarr(tmp_path / "p.zarr", marked_pixels, version="0.4")
    monkeypatch.setattr("hist2scrna.images.pixels.MAX_DECODED_PIXELS", 128 * 128)
    assert open_file(tiled).read(0, 0, 0, WIDTH, HEIGHT).shape == marked_pixels.shape
    assert open_file(chunk).size() == (WIDTH, HEIGHT)
    with pytest.raises(ValueError, match=r"whole\.tif.*531 x 347.*tiled, pyramidal"):
        open_file(whole)
    monkeypatch.setattr("hist2scrna.images.pixels.MAX_SIDE", 500)
    for path in (tiled, chunk):
        with pytest.raises(ValueError, match=rf"{path.name}.*1 to 500 pixels.*531 x 347"):
            open_file(path)
