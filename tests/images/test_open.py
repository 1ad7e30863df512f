"""Which reader opens which file, and what is said where none can."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import tifffile
import zarr
from image_files import ome_zarr
from PIL import Image

from hist2scrna.images.open import open_file


def test_what_is_no_image_is_refused(marked_pixels, tmp_path):
    def tiff(name, pixels, **options):
        tifffile.imwrite(tmp_path / name, pixels, **options)
        return tmp_path / name

    cmyk = Image.fromarray(marked_pixels).convert("CMYK")
    cmyk.save(tmp_path / "cmyk.tif")
    Image.fromarray(marked_pixels).convert("P").save(tmp_path / "palette.tif")
    Image.fromarray(np.zeros((30, 40), np.float32)).save(tmp_path / "float.tif")
    zarr.save_array(tmp_path / "array.zarr", marked_pixels)
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    zarr.open_group(tmp_path / "nested.zarr", mode="w").create_group("images")
    ome_zarr(tmp_path / "nested.zarr" / "images" / "slide", marked_pixels)
    (tmp_path / "folder").mkdir()
    ome_zarr(tmp_path / "float.zarr", marked_pixels.astype(np.float32) / 255)
    ome_zarr(tmp_path / "lost.zarr", marked_pixels)
    (tmp_path / "lost.zarr" / "1" / "zarr.json").unlink()
    (tmp_path / "notes.scn").write_text("no slide")
    refused = {
        tmp_path / "cmyk.tif": "gray or RGB.*SEPARATED",
        tmp_path / "palette.tif": "gray or RGB.*PALETTE",
        tmp_path / "float.tif": "8 or 16 bits.*float32",
        tiff(
            "wide.tif", np.zeros((30, 40, 7), np.uint8), photometric="minisblack", planarconfig="contig"
        ): r"axes.*\(30, 40, 7\)",
        tmp_path / "array.zarr": r"Zarr array.*multiscales.*open_array",
        tmp_path / "empty.zarr": "without 'multiscales'",
        tmp_path / "nested.zarr": r"without 'multiscales'.*images/slide",
        tmp_path / "folder": "not an OME-Zarr.*zarr.json",
        tmp_path / "float.zarr": "8 or 16 bits.*float32",
        tmp_path / "lost.zarr": "not an OME-Zarr",
    }
    if importlib.util.find_spec("openslide"):
        refused[tmp_path / "notes.scn"] = "not a whole-slide image that OpenSlide can read"
    for path, message in refused.items():
        with pytest.raises(ValueError, match=message) as error:
            open_file(path)
        assert str(path) in str(error.value)


def test_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "p.ndpi").write_bytes(b"II*\0")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImportError, match=r"p\.ndpi.*hist2scrna\[openslide\]"):
        open_file(tmp_path / "p.ndpi")
