"""TIFF files: colors, levels, and files that are damaged or hold no image."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tifffile
import zarr
from image_files import APERIO, HEIGHT, WIDTH, damaged, needs_openslide, ome_zarr, pyramid_tiff, shrink
from PIL import Image

from hist2scrna.images.open import open_file


def test_colors_are_rgb_whatever_the_file_holds(marked_pixels, tmp_path):
    rng = np.random.default_rng(1)
    opacity = rng.integers(0, 256, (HEIGHT, WIDTH, 1)).astype(np.uint8)
    rgba = np.concatenate([marked_pixels, opacity], axis=2)
    over_white = marked_pixels * (opacity / 255) + 255 * (1 - opacity / 255)
    gray = marked_pixels[:, :, 0]
    multiplied = np.concatenate([np.round(marked_pixels * (opacity / 255)).astype(np.uint8), opacity], axis=2)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "gray16.png")
    options = {"tile": (64, 64)}

    def tiff(name, pixels, photometric="rgb", **more):
        tifffile.imwrite(tmp_path / name, pixels, photometric=photometric, **options | more)
        return tmp_path / name

    three = np.repeat(gray[:, :, None], 3, axis=2)
    bilevel = gray > 200
    expected = {
        tmp_path / "rgba.png": over_white,
        tmp_path / "gray16.png": three,
        tiff("rgba.tif", rgba, extrasamples=["unassalpha"]): over_white,
        tiff("multiplied.tif", multiplied, extrasamples=["assocalpha"]): over_white,
        tiff("fourth.tif", rgba, extrasamples=["unspecified"]): marked_pixels,
        tiff("gray.tif", gray, "minisblack"): three,
        tiff("gray16.tif", gray.astype(np.uint16) * 257, "minisblack"): three,
        tiff("inverted.tif", 255 - gray, "miniswhite"): three,
        tiff("bilevel.tif", bilevel, "minisblack"): np.repeat(bilevel[:, :, None] * 255, 3, axis=2),
        ome_zarr(tmp_path / "gray.zarr", gray[:, :, None].repeat(3, 2), axes="yxc"): three,
    }
    for path, pixels in expected.items():
        found = open_file(path).read(0, 0, 0, WIDTH, HEIGHT)
        assert found.dtype == np.uint8, path
        assert np.abs(found - pixels.astype(float)).max() <= 1, path


def test_jpeg_tiles_keep_their_colors(marked_pixels, tmp_path):
    small = Image.fromarray(marked_pixels).resize((40, 30), Image.Resampling.BOX)
    smooth = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "pillow.tif", compression="jpeg", quality=95)
    pyramid_tiff(tmp_path / "tifffile.tif", smooth, compression="jpeg", compressionargs={"level": 95})
    for name in ("pillow.tif", "tifffile.tif"):
        found = open_file(tmp_path / name).read(0, 0, 0, WIDTH, HEIGHT)
        assert np.abs(found.astype(int) - smooth).max() < 20, name
        assert np.abs(found.mean(axis=(0, 1)) - smooth.mean(axis=(0, 1))).max() < 1, name


@needs_openslide
def test_aperio_jpeg_2000_in_ycbcr_goes_to_openslide(marked_pixels, tmp_path, monkeypatch):
    """tifffile gives its pixels as they are stored, and calls them RGB."""
    small = Image.fromarray(marked_pixels).resize((40, 30), Image.Resampling.BOX)
    smooth = small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    options = {"compression": 33003, "compressionargs": {"mct": False, "codecformat": "j2k"}, "tile": (240, 240)}
    path = tmp_path / "p.svs"
    pixels = np.asarray(smooth.convert("YCbCr"))
    tifffile.imwrite(path, pixels, photometric="rgb", description=APERIO, metadata=None, **options)
    image = open_file(path)
    assert image.mpp == pytest.approx(0.251)
    assert np.abs(image.read(0, 0, 0, WIDTH, HEIGHT).astype(int) - np.asarray(smooth)).max() < 8
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImportError, match=r"p\.svs.*hist2scrna\[openslide\]"):
        open_file(path)


def test_tiles_that_were_not_stored_are_white(tmp_path):
    def some():
        yield np.full((64, 64, 3), 90, np.uint8)
        yield None
        yield np.full((64, 64, 3), 30, np.uint8)
        yield None

    options = {"shape": (100, 128, 3), "dtype": "uint8", "photometric": "rgb", "tile": (64, 64)}
    tifffile.imwrite(tmp_path / "p.tif", some(), compression="deflate", **options)
    found = open_file(tmp_path / "p.tif").read(0, 0, 0, 128, 100)
    assert (found[:64, :64] == 90).all() and (found[64:, :64] == 30).all() and (found[:, 64:] == 255).all()


def test_the_largest_of_several_images_is_read_and_said(marked_pixels, tmp_path, caplog):
    with tifffile.TiffWriter(tmp_path / "p.ome.tif") as writer:
        options = {"photometric": "rgb", "tile": (64, 64)}
        writer.write(np.zeros((80, 100, 3), np.uint8), metadata={"axes": "YXS", "Name": "label"}, **options)
        writer.write(marked_pixels, subifds=1, metadata={"axes": "YXS", "Name": "tissue"}, **options)
        writer.write(shrink(marked_pixels, 2), subfiletype=1, **options)
        writer.write(np.zeros((200, 90, 3), np.uint8), metadata={"axes": "YXS", "Name": "macro"}, **options)
    group = zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    ome_zarr(tmp_path / "b.zarr" / "0", marked_pixels[:100, :100], version="0.4")
    ome_zarr(tmp_path / "b.zarr" / "1", marked_pixels, version="0.4")
    with caplog.at_level("INFO", logger="hist2scrna"):
        for name, levels in (("p.ome.tif", 2), ("b.zarr", 3)):
            image = open_file(tmp_path / name)
            assert (image.size(), len(image.scales)) == ((WIDTH, HEIGHT), levels)
            np.testing.assert_array_equal(image.read(0, 376, 66, 40, 24), marked_pixels[66:90, 376:416])
            open_file(tmp_path / name)
    assert "tissue" in caplog.text and "label" in caplog.text
    # Each function that reads a file opens it: what it holds is said once.
    assert [record.message.partition(": ")[0] for record in caplog.records] == [
        str(tmp_path / name) for name in ("p.ome.tif", "b.zarr")
    ]


def test_files_that_are_cut_off_or_damaged_are_named(marked_pixels, tmp_path):
    whole = pyramid_tiff(tmp_path / "whole.tif", marked_pixels, compression="deflate")
    data = whole.read_bytes()
    for part in (4, 9, 200, len(data) // 3, len(data) - 400):
        (tmp_path / "cut.tif").write_bytes(data[:part])
        with pytest.raises(ValueError, match=r"cut\.tif"):
            open_file(tmp_path / "cut.tif").read(0, 0, 0, WIDTH, HEIGHT)
    with tifffile.TiffFile(whole) as file:
        offset = file.pages[0].dataoffsets[3]
    broken = open_file(damaged(whole, offset, offset + 500))
    broken.read(0, 0, 0, 64, 64)
    with pytest.raises(ValueError, match=r"whole\.tif.*damaged in row 0, column 3.*Copy or download"):
        broken.read(0, 0, 0, WIDTH, 20)


def test_damage_anywhere_in_a_header_is_never_an_error_from_deep_inside(marked_pixels, tmp_path, caplog):
    """Bytes of the header are replaced at random: what comes is an image, or a ValueError that names the file."""
    caplog.set_level("CRITICAL", logger="tifffile")
    path = pyramid_tiff(
        tmp_path / "p.tif", marked_pixels[:150, :200], (2,), description="x" * 40, compression="deflate"
    )
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        first = file.pages[0].offset
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        changed = bytearray(data)
        for place in rng.integers(first, first + 260, 3):
            changed[place % len(changed)] = rng.integers(256)
        path.write_bytes(changed)
        try:
            image = open_file(path)
            width, height = image.size()
            image.read(0, 0, 0, min(width, 300), min(height, 300))
        except ValueError as error:
            refused += 1
            assert "p.tif" in str(error)
    assert refused > 20
