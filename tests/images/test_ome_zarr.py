"""OME-Zarr: damaged chunks."""

from __future__ import annotations

import json

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


@pytest.mark.parametrize("size", [0, -1, 2**40])
def test_chunks_of_an_impossible_size_are_refused(marked_pixels, tmp_path, size):
    header = ome_zarr(tmp_path / "p.zarr", marked_pixels) / "0" / "zarr.json"
    said = json.loads(header.read_text())
    shape = said["chunk_grid"]["configuration"]["chunk_shape"]
    said["chunk_grid"]["configuration"]["chunk_shape"] = [shape[0], *(size for _ in shape[1:])]
    header.write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"p\.zarr"):
        open_file(tmp_path / "p.zarr").read(0, 0, 0, 8, 8)
