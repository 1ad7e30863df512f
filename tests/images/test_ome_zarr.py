"""OME-Zarr: damaged chunks."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from image_files import HEIGHT, WIDTH, ome_zarr

from hist2scrna.images.open import open_file


def test_damaged_chunks_of_ome_zarr_are_named(marked_pixels, tmp_path):
    image = open_file(ome_zarr(tmp_path / "p.zarr", marked_pixels))
    chunk = next(p for p in (tmp_path / "p.zarr" / "0" / "c").rglob("*") if p.parts[-3:] == ("0", "1", "2"))
    chunk.write_bytes(chunk.read_bytes()[:20])
    image.read(0, 0, 0, 64, 64)
    with pytest.raises(ValueError, match=r"p\.zarr.*damaged in row 1, column 2"):
        image.read(0, 0, 0, WIDTH, HEIGHT)
    attributes = json.loads((tmp_path / "p.zarr" / "zarr.json").read_text())
    del attributes["attributes"]["ome"]["multiscales"][0]["datasets"]
    (tmp_path / "p.zarr" / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(ValueError, match=r"p\.zarr.*not an OME-Zarr that can be read"):
        open_file(tmp_path / "p.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_chunks_that_are_not_there_are_counted(marked_pixels, tmp_path, version):
    folder = ome_zarr(tmp_path / "p.zarr", marked_pixels, version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_file(folder)
    stored = [path for path in sorted((folder / "0").rglob("*")) if path.is_file() and path.name[0] not in ".z"]
    for path in stored[::2]:
        path.unlink()
    with pytest.warns(UserWarning, match=f"{len(stored[::2])} of {len(stored)} chunks of .*pixels of 0 .white is 255"):
        open_file(folder)


def test_white_background_may_be_left_out(tmp_path):
    pixels = np.full((300, 300, 3), 255, np.uint8)
    pixels[:128, :128] = 90
    folder = ome_zarr(tmp_path / "p.zarr", pixels, fill_value=255)
    assert len([path for path in (folder / "0" / "c").rglob("*") if path.is_file()]) < 27
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (open_file(folder).read(0, 200, 200, 50, 50) == 255).all()


@pytest.mark.parametrize("size", [0, -1, 2**40])
def test_chunks_of_an_impossible_size_are_refused(marked_pixels, tmp_path, size):
    header = ome_zarr(tmp_path / "p.zarr", marked_pixels) / "0" / "zarr.json"
    said = json.loads(header.read_text())
    shape = said["chunk_grid"]["configuration"]["chunk_shape"]
    said["chunk_grid"]["configuration"]["chunk_shape"] = [shape[0], *(size for _ in shape[1:])]
    header.write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"p\.zarr"):
        open_file(tmp_path / "p.zarr").read(0, 0, 0, 8, 8)
