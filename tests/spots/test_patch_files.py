"""Patches that are files: what they show of the tissue, and which pictures are read."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from builders import patches_of, spots_of
from PIL import Image

from hist2scrna.io import concat, read_patch_folder, write_patch_folder
from hist2scrna.spots.patch_files import PatchFiles, png_side, read_png


def test_the_middle_of_wide_patches_is_taken(make_section, tmp_path):
    adata = make_section(kind="irregular")
    wide = read_patch_folder(write_patch_folder(adata, tmp_path / "f", patch_px=64, patch_um=128))
    # 128 um are 64 px of the picture, and 32 um its middle 16.
    np.testing.assert_array_equal(patches_of(wide, 16, patch_um=32), patches_of(adata, 16, patch_um=32))
    spots = spots_of(wide, library_key=None, spatial_key="spatial", patch_px=16)
    assert (spots.geometry.um, spots.geometry.scale_from) == (128, "metadata")
    with pytest.raises(ValueError, match=r"show 128 um of tissue, and 200 um are needed.*patch_um=200"):
        patches_of(wide, 16, patch_um=200)
    with pytest.raises(ValueError, match="positive number, found -1"):
        patches_of(wide, 16, patch_um=-1)
    with pytest.raises(ValueError, match=r"`patch_um` is 60.*128 um"):
        read_patch_folder(tmp_path / "f", patch_um=60)
    narrow = read_patch_folder(write_patch_folder(wide, tmp_path / "g", patch_um=32))
    np.testing.assert_array_equal(patches_of(narrow, 16), patches_of(adata, 16, patch_um=32))
    assert json.loads((tmp_path / "g" / "metadata.json").read_text())["patch_px"] == 16
    # A picture that is passed wins.
    picture = adata.uns["spatial"]["s0"]["images"]["hires"]
    np.testing.assert_array_equal(
        patches_of(wide, 16, image=picture, patch_um=100), patches_of(adata, 16, patch_um=100)
    )


def test_files_are_averaged_down_and_enlarged_smoothly(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")

    def read(px):
        source = PatchFiles([tmp_path / "p.png"], [1.0], np.zeros((1, 2)), np.zeros(1, dtype=np.int64), px)
        return source.read(np.array([0]))[0].transpose(1, 2, 0).astype(float)

    np.testing.assert_array_equal(read(12), pixels)
    blocks = pixels.reshape(4, 3, 4, 3, 3).mean(axis=(1, 3))
    assert np.abs(read(4) - blocks).max() <= 1
    # Twice as large, bilinear: pixel centers fall a quarter from those of the file.
    expected = 0.75 * pixels[3].astype(float) + 0.25 * pixels[4]
    expected = 0.75 * expected[3] + 0.25 * expected[4]
    assert np.abs(read(24)[7, 7] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P"])
def test_kinds_of_png(mode, tmp_path):
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    Image.fromarray(gray).convert(mode).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_png(tmp_path / "p.png"), np.repeat(gray[:, :, None], 3, axis=2))
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    clear.save(tmp_path / "clear.png")
    assert (read_png(tmp_path / "clear.png") == 255).all()


def test_size_is_checked_before_decoding(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"bomb.png"):
        png_side(tmp_path / "bomb.png")
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="found 8 x 8 px in mode I;16"):
        png_side(tmp_path / "deep.png")


def test_files_and_pictures_do_not_mix(make_section, tmp_path):
    a, b = make_section("a"), make_section("b", seed=1)
    a = read_patch_folder(write_patch_folder(a, tmp_path / "f", patch_px=16))
    with pytest.warns(UserWarning, match="spatial_connectivities"):
        both = concat([a, b])
    with pytest.raises(ValueError, match=r"others have not: \['b'\]"):
        patches_of(both, library_key="library_id")
