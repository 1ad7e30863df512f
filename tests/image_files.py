"""Writers of image files of every kind that is read, with one small image in them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

WIDTH, HEIGHT = 531, 347


MARKER = np.array([[401.0, 83.0]])


APERIO = "Aperio Image Library v12\n531x347 (64x64) deflate|AppMag = 40|MPP = 0.2510|Left = 1"


needs_openslide = pytest.mark.skipif(
    importlib.util.find_spec("openslide") is None, reason="OpenSlide, an extra, is not installed"
)


def shrink(pixels, factor):
    """Mean of blocks; a last row and column that do not fill one are dropped."""
    height, width = (side // factor * factor for side in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)


def pyramid_tiff(path, pixels, factors=(2, 4), *, pages="subifds", description=None, **options):
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate", "metadata": None} | options
    with tifffile.TiffWriter(path, ome=path.name.endswith(".ome.tif")) as writer:
        if pages == "subifds":
            writer.write(pixels, subifds=len(factors), description=description, **options)
        else:
            writer.write(pixels, description=description, **options)
        for factor in factors:
            writer.write(shrink(pixels, factor), subfiletype=1, **options | {"metadata": None})
    return path


def svs(path, pixels, factors=(4,)):
    """Write pages as Aperio does: baseline, a thumbnail in strips, levels, a label."""
    tiled = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, description=APERIO, **tiled)
        writer.write(shrink(pixels, 8), photometric="rgb", description=APERIO, metadata=None)
        for factor in factors:
            writer.write(shrink(pixels, factor), description=APERIO, **tiled)
        label = np.zeros((90, 700, 3), np.uint8)
        writer.write(label, photometric="rgb", description=APERIO, subfiletype=1, metadata=None)
    return path


def ome_zarr(path, pixels, factors=(2, 4), *, version="0.5", axes="cyx", um=0.25, unit="micrometer", **options):
    """Write NGFF by hand: `pixels` is (y, x, c)."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for level, factor in enumerate([1, *factors]):
        own = pixels if factor == 1 else shrink(pixels, factor)
        data = own.transpose(["yxc".index(a) for a in axes if a in "yxc"]).reshape(
            [1 if a in "tz" else own.shape["yxc".index(a)] for a in axes]
        )
        chunks = tuple({"c": 1, "t": 1, "z": 1}.get(a, 128) for a in axes)
        group.create_array(str(level), data=data, chunks=chunks, **options)
        steps = [um * factor if a in "xy" else 1.0 for a in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": steps}]})
    kinds = {"c": "channel", "t": "time"}
    named = [{"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if a in "xy" else {}) for a in axes]
    multiscales = [{"axes": named, "datasets": datasets}]
    group.attrs.update(
        {"multiscales": multiscales} if version == "0.4" else {"ome": {"version": version, "multiscales": multiscales}}
    )
    return path


def openslide_tiff(path, pixels):
    """OpenSlide tells its files by what is in them: a tiled TIFF is one, whatever its name."""
    return pyramid_tiff(path, pixels, pages="pages")


WRITERS = {
    "strips": lambda f, p: tifffile.imwrite(f / "s.tif", p, photometric="rgb", rowsperstrip=13) or f / "s.tif",
    "one strip": lambda f, p: tifffile.imwrite(f / "o.tif", p, photometric="rgb") or f / "o.tif",
    "big-endian 16 bit": lambda f, p: (
        tifffile.imwrite(f / "b.tif", p.astype(np.uint16) * 257, photometric="rgb", byteorder=">") or f / "b.tif"
    ),
    "planar": lambda f, p: (
        tifffile.imwrite(f / "p.tif", p.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", tile=(64, 64))
        or f / "p.tif"
    ),
    "planar strips": lambda f, p: (
        tifffile.imwrite(f / "q.tif", p.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", rowsperstrip=32)
        or f / "q.tif"
    ),
    "lzw": lambda f, p: pyramid_tiff(f / "lzw.tif", p, compression="lzw", predictor=True),
    "jpeg 2000": lambda f, p: pyramid_tiff(f / "j2k.tif", p, compression="jpeg2000"),
    "bigtiff": lambda f, p: (
        tifffile.imwrite(f / "big.btf", p, photometric="rgb", bigtiff=True, tile=(128, 64)) or f / "big.btf"
    ),
    "pyramid": lambda f, p: pyramid_tiff(f / "subifds.tif", p),
    "pages": lambda f, p: pyramid_tiff(f / "pages.tif", p, pages="pages"),
    "no suffix": lambda f, p: pyramid_tiff(f / "image", p),
    "ome-tiff": lambda f, p: pyramid_tiff(f / "o.ome.tif", p, metadata={"axes": "YXS"}),
    "ome-tiff cyx": lambda f, p: (
        tifffile.imwrite(
            f / "c.ome.tif", p.transpose(2, 0, 1), photometric="minisblack", metadata={"axes": "CYX"}, tile=(64, 64)
        )
        or f / "c.ome.tif"
    ),
    "svs": lambda f, p: svs(f / "a.svs", p),
    "ome-zarr 0.4": lambda f, p: ome_zarr(f / "four.zarr", p, version="0.4", axes="tczyx"),
    "ome-zarr 0.5": lambda f, p: ome_zarr(f / "five.ome.zarr", p),
    "ome-zarr, channels last": lambda f, p: ome_zarr(f / "last.zarr", p, axes="yxc"),
    "ome-zarr, sharded": lambda f, p: ome_zarr(f / "shards.zarr", p, shards=(3, 256, 384)),
    "openslide": lambda f, p: openslide_tiff(f / "vendor.scn", p),
    "png": lambda f, p: Image.fromarray(p).save(f / "p.png") or f / "p.png",
}


WAYS = [pytest.param(name, marks=needs_openslide if name == "openslide" else ()) for name in WRITERS]


def damaged(path, start, stop=None, fill=b"\xff"):
    data = bytearray(path.read_bytes())
    stop = len(data) if stop is None else stop
    data[start:stop] = fill * (stop - start)
    path.write_bytes(data)
    return path
