"""Whole-slide files: the same tissue, at the same place and scale, whichever kind of file it is read from."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from hist2scrna.evaluation.thumbnail import thumbnail_jpeg
from hist2scrna.images import tiles
from hist2scrna.images.base import ArrayImage, cut_patches, thumbnail
from hist2scrna.images.open import open_file
from hist2scrna.images.openslide import OpenSlideImage
from hist2scrna.images.patches import PatchSource
from hist2scrna.images.pixels import as_rgb
from hist2scrna.images.resolution import aperio_mpp, in_microns, ome_xml_mpp, square, tiff_tags_mpp
from hist2scrna.images.tiles import TileCache, fitting_levels, level_scale
from hist2scrna.spots.scale import section_scale
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source
from hist2scrna.tl import fit, predict

WIDTH, HEIGHT = 531, 347
MARKER = np.array([[401.0, 83.0]])
APERIO = "Aperio Image Library v12\n531x347 (64x64) deflate|AppMag = 40|MPP = 0.2510|Left = 1"
needs_openslide = pytest.mark.skipif(
    importlib.util.find_spec("openslide") is None, reason="OpenSlide, an extra, is not installed"
)


@pytest.fixture(scope="module")
def picture():
    """Noise, wider than high, with a red marker of 30 x 14 px centerd on (401, 83), blue above it and green left."""
    pixels = np.random.default_rng(0).integers(170, 250, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    pixels[76:90, 386:416] = (210, 20, 30)
    pixels[66:76, 386:416] = (20, 30, 200)
    pixels[76:90, 376:386] = (30, 190, 40)
    return pixels


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


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_patches_of_the_array(way, picture, tmp_path):
    """At full resolution pixel for pixel, over the border too; coarser, the marker is where it was."""
    image, array = open_file(WRITERS[way](tmp_path, picture)), ArrayImage(picture, 1.0, "test")
    assert image.size() == (WIDTH, HEIGHT)
    xy = np.array([*MARKER, [0.0, 0.0], [WIDTH, HEIGHT], [64.0, 64.0], [130.4, 300.7], [-300.0, 20.0]])
    np.testing.assert_array_equal(cut_patches(image, xy, 40, 40), cut_patches(array, xy, 40, 40))
    coarse, same = (cut_patches(i, MARKER, 120, 30)[0].astype(float) for i in (image, array))
    for channel, other in ((0, 2), (2, 0), (1, 0)):
        found, expected = (np.clip(p[channel] - p[other] - 80, 0, None) for p in (coarse, same))
        for axis in (0, 1):
            centers = [(m.sum(axis=axis) * np.arange(30)).sum() / m.sum() for m in (found, expected)]
            assert centers[0] == pytest.approx(centers[1], abs=0.25), (channel, axis)
    assert np.abs(coarse - same).mean() < 4


@pytest.fixture(scope="module")
def predicted(make_section):
    """A model that was hardly trained, a section without a picture, the picture, and what is predicted on it."""
    options = {"preset": "tiny", "max_epochs": 1, "progress": False, "accelerator": "cpu", "lr": 1e-12}
    model = fit(make_section(n_spots=16), validation=0, patch_um=63, **options)
    section = make_section(n_spots=16, seed=2)
    pixels = section.uns["spatial"]["s0"]["images"].pop("hires")
    means = predict(section.copy(), model, image=pixels, progress=False).layers["hist2scrna_mean"]
    turned = predict(section.copy(), model, image=pixels[::-1], progress=False).layers["hist2scrna_mean"]
    assert np.abs(means - turned).max() > 1e-4, "the predictions tell one tissue from another"
    return model, section, pixels, means


@pytest.mark.parametrize(
    "way", [w for w in WAYS if w.values[0] not in ("planar strips", "lzw", "bigtiff", "no suffix")]
)
def test_every_way_in_gives_the_same_prediction(way, predicted, tmp_path):
    model, section, pixels, means = predicted
    named = section.copy()
    named.uns["spatial"]["s0"]["metadata"] = {"source_image_path": str(WRITERS[way](tmp_path, pixels))}
    np.testing.assert_array_equal(predict(named, model, progress=False).layers["hist2scrna_mean"], means)


@pytest.mark.parametrize("form", ["path", "text", "by section"])
def test_a_path_is_taken_as_argument(form, predicted, tmp_path):
    model, section, pixels, means = predicted
    path = ome_zarr(tmp_path / "p.zarr", pixels)
    image = {"path": path, "text": str(path), "by section": {"s0": path}}[form]
    out = predict(section.copy(), model, image=image, progress=False)
    np.testing.assert_array_equal(out.layers["hist2scrna_mean"], means)


def test_predictions_from_coarser_levels_are_close(predicted, tmp_path):
    """A patch over four times the side comes from a level at half the scale: resampling aside, the same."""
    from dataclasses import replace

    model, section, pixels, _ = predicted
    model = replace(model, geometry=replace(model.geometry, um=4 * 63))
    path = pyramid_tiff(tmp_path / "p.tif", pixels, factors=(2,))
    image = open_file(path)
    assert image.scales[image.level_for(model.geometry.px / (4 * 31.5))] == 0.5
    means, coarse, turned = (
        predict(section.copy(), model, image=source, progress=False).layers["hist2scrna_mean"]
        for source in (pixels, path, pixels[::-1])
    )
    assert np.abs(coarse - means).max() < 0.25 * np.abs(turned - means).max()


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


def test_only_the_tiles_under_a_window_are_decoded(picture, tmp_path, monkeypatch):
    image = open_file(pyramid_tiff(tmp_path / "p.tif", picture))
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
def test_threads_and_other_processes_read_the_same(way, picture, tmp_path, monkeypatch):
    """As the workers of a DataLoader do, be they forked or spawned."""
    image = open_file(WRITERS[way](tmp_path, picture))
    read_corner(image)
    expected = picture[70:100, 380:420]
    monkeypatch.setattr(tiles.CACHE, "limit", 4 * 64 * 64 * 3)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read_corner, [image] * 64):
            np.testing.assert_array_equal(found, expected)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map_async(read_corner, [image] * 4).get(timeout=60):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_corner(pickle.loads(pickle.dumps(image))), expected)


def test_memory_of_a_picture_is_given_back_when_its_patches_are_cut(picture, tmp_path):
    tiles.CACHE.clear()
    Image.fromarray(picture).save(tmp_path / "a.png")
    images = [open_file(tmp_path / "a.png"), open_file(pyramid_tiff(tmp_path / "b.tif", picture, ()))]
    xy = np.random.default_rng(0).uniform(50, 300, (40, 2))
    section = np.arange(40) % 2
    source = PatchSource(images, [40, 40], xy, section, 20)
    source.read(np.array([0]))
    assert tiles.CACHE.nbytes == 0, "a picture in one piece gives all patches of its section at once"
    source.read(np.array([1, 3]))
    assert 0 < tiles.CACHE.nbytes < picture.nbytes
    patches = source.read(np.arange(40))
    assert tiles.CACHE.nbytes == 0
    np.testing.assert_array_equal(patches, cut_patches(ArrayImage(picture, 1.0, "test"), xy, 40, 20))


def test_jpeg_is_not_decoded_whole_for_a_thumbnail(tmp_path):
    pixels = np.full((1600, 2400, 3), 230, np.uint8)
    pixels[200:400, 1800:2200] = (150, 40, 120)
    Image.fromarray(pixels).save(tmp_path / "p.jpg", quality=95)
    tiles.CACHE.clear()
    small, scale = thumbnail(open_file(tmp_path / "p.jpg"))
    assert tiles.CACHE.nbytes == 0
    expected, same = thumbnail(ArrayImage(pixels, 1.0, "test"))
    assert (small.shape, scale) == (expected.shape, same)
    assert np.abs(small.astype(int) - expected).mean() < 3


def test_thumbnail_and_preview_read_the_level_they_need(picture, make_section, tmp_path):
    large = np.repeat(np.repeat(picture, 6, 0), 6, 1)
    image = open_file(pyramid_tiff(tmp_path / "p.tif", large, (2, 4)))
    small, scale = thumbnail(image)
    assert 256 <= max(small.shape) < 512
    y, x = (MARKER[0, ::-1] * 6 * scale).astype(int)
    assert small[y, x].tolist() == [210, 20, 30]
    section = make_section()
    section.uns["spatial"]["s0"]["images"] = {}
    section.uns["spatial"]["s0"]["metadata"] = {"source_image_path": str(tmp_path / "p.tif")}
    opened = open_sections(section, Source()).members[0]
    shown = thumbnail_jpeg(opened, np.array([2300.0, 440.0]), np.array([2560.0, 560.0]))
    assert shown["extent"] == pytest.approx([2300, 2560, 560, 440], abs=8)


# -- microns per pixel ------------------------------------------------------------------------------------------------
def test_microns_per_pixel_of_files(picture, tmp_path):
    picture = picture[:100, :130]

    def tagged(name, **options):
        return pyramid_tiff(tmp_path / name, picture, **options)

    meta = {"axes": "YXS", "PhysicalSizeX": 325, "PhysicalSizeY": 325}
    told = {
        "svs": (svs(tmp_path / "a.svs", picture), 0.251),
        "ome": (tagged("o.ome.tif", metadata=meta | {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm"}), 0.325),
        "ome, microns": (
            tagged("m.ome.tif", metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}),
            0.5,
        ),
        "cm": (tagged("cm.tif", resolution=(40_000, 40_000), resolutionunit="CENTIMETER"), 0.25),
        "inch": (tagged("in.tif", resolution=(50_800, 50_800), resolutionunit="INCH"), 0.5),
        "print": (tagged("300dpi.tif", resolution=(300, 300), resolutionunit="INCH"), None),
        "no unit": (tagged("none.tif", resolution=(2, 2), resolutionunit="NONE"), None),
        "not square": (tagged("oblong.tif", resolution=(40_000, 20_000), resolutionunit="CENTIMETER"), None),
        "none": (tagged("bare.tif"), None),
        "zarr 0.4": (ome_zarr(tmp_path / "a.zarr", picture, version="0.4", um=0.5), 0.5),
        "zarr 0.5": (ome_zarr(tmp_path / "b.zarr", picture, um=0.0005, unit="millimeter"), 0.5),
        "zarr without unit": (ome_zarr(tmp_path / "c.zarr", picture, unit=None), None),
    }
    for name, (path, expected) in told.items():
        assert open_file(path).mpp == (None if expected is None else pytest.approx(expected, rel=1e-6)), name


def test_microns_per_pixel_of_a_real_slide(shared_data):
    path = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    assert open_file(path).mpp == pytest.approx(0.499)
    if importlib.util.find_spec("openslide"):
        other = OpenSlideImage(path)
        assert other.mpp == pytest.approx(0.499)
        both = [
            cut_patches(i, np.array([[1100.0, 2000.0], [2200.0, 2950.0]]), 224, 112) for i in (open_file(path), other)
        ]
        assert np.abs(both[0].astype(int) - both[1]).mean() < 1


def test_what_is_read_as_microns():
    assert aperio_mpp("Aperio Image|AppMag = 40|MPP = 0.2520|Left = 2") == 0.252
    assert aperio_mpp("Aperio Image|AppMag = 40") is None
    assert aperio_mpp("somebody's notes|MPP = 0.5") is None
    assert in_microns("0.25", "µm") == 0.25
    assert in_microns(2, "pixel") is None
    assert in_microns("-1", "um") is None
    assert square(0.5, 0.502, "x") == pytest.approx(0.501)
    assert square(0.5, 0.6, "x") is None
    assert tiff_tags_mpp(((0, 1), (1, 1)), 2, "x") is None
    assert tiff_tags_mpp((None, None), None, "x") is None
    assert ome_xml_mpp("<no", 1, 1, "x") is None
    xml = (
        '<OME xmlns="o"><Image><Pixels SizeX="90" SizeY="80" PhysicalSizeX="9" PhysicalSizeY="9"/></Image><Image>'
        '<Pixels SizeX="900" SizeY="800" PhysicalSizeX="0.25" PhysicalSizeY="0.25"/></Image></OME>'
    )
    assert ome_xml_mpp(xml, 900, 800, "x") == 0.25


def test_file_tells_the_scale_where_neither_argument_nor_metadata_do(picture, tmp_path):
    image, silent = open_file(svs(tmp_path / "a.svs", picture)), open_file(pyramid_tiff(tmp_path / "b.tif", picture))
    assert section_scale("s", {}, None, image).mpp == 0.251
    assert section_scale("s", {}, None, image).known_from == "image file"
    assert section_scale("s", {}, 0.7, image).known_from == "argument"
    assert section_scale("s", {"scalefactors": {"mpp": 0.6}}, None, image).known_from == "metadata"
    agrees = {"scalefactors": {"spot_diameter_fullres": 400.0}}
    assert section_scale("s", agrees, None, image).mpp == 0.251
    with pytest.warns(UserWarning, match=r"a\.svs.*0\.251 um a pixel.*50 px.*100 um.*2\. .*mpp="):
        assert section_scale("s", {"scalefactors": {"spot_diameter_fullres": 50.0}}, None, image).mpp == 0.251
    assert section_scale("s", agrees, None, silent).known_from == "spot diameter"
    with pytest.raises(KeyError, match=r"b\.tif.*does not tell.*mpp="):
        section_scale("s", {}, None, silent)


def test_a_slide_alone_is_enough_for_prediction(predicted, tmp_path):
    """No `.uns`, no `mpp=`: the file tells."""
    model, section, pixels, means = predicted
    bare = section.copy()
    del bare.uns["spatial"]
    out = predict(bare, model, image=ome_zarr(tmp_path / "p.zarr", pixels, um=2.0), progress=False)
    np.testing.assert_array_equal(out.layers["hist2scrna_mean"], means)


# -- colors ----------------------------------------------------------------------------------------------------------
def test_colors_are_rgb_whatever_the_file_holds(picture, tmp_path):
    rng = np.random.default_rng(1)
    opacity = rng.integers(0, 256, (HEIGHT, WIDTH, 1)).astype(np.uint8)
    rgba = np.concatenate([picture, opacity], axis=2)
    over_white = picture * (opacity / 255) + 255 * (1 - opacity / 255)
    gray = picture[:, :, 0]
    multiplied = np.concatenate([np.round(picture * (opacity / 255)).astype(np.uint8), opacity], axis=2)
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
        tiff("fourth.tif", rgba, extrasamples=["unspecified"]): picture,
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


def test_jpeg_tiles_keep_their_colors(picture, tmp_path):
    small = Image.fromarray(picture).resize((40, 30), Image.Resampling.BOX)
    smooth = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "pillow.tif", compression="jpeg", quality=95)
    pyramid_tiff(tmp_path / "tifffile.tif", smooth, compression="jpeg", compressionargs={"level": 95})
    for name in ("pillow.tif", "tifffile.tif"):
        found = open_file(tmp_path / name).read(0, 0, 0, WIDTH, HEIGHT)
        assert np.abs(found.astype(int) - smooth).max() < 20, name
        assert np.abs(found.mean(axis=(0, 1)) - smooth.mean(axis=(0, 1))).max() < 1, name


@needs_openslide
def test_aperio_jpeg_2000_in_ycbcr_goes_to_openslide(picture, tmp_path, monkeypatch):
    """tifffile gives its pixels as they are stored, and calls them RGB."""
    small = Image.fromarray(picture).resize((40, 30), Image.Resampling.BOX)
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


def test_sixteen_bits_in_either_order():
    sixteen = as_rgb(np.array([[[65535, 257 * 7, 0]]], dtype=">u2"))
    assert sixteen.tolist() == [[[255, 7, 0]]]


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


def test_the_largest_of_several_pictures_is_read_and_said(picture, tmp_path, caplog):
    with tifffile.TiffWriter(tmp_path / "p.ome.tif") as writer:
        options = {"photometric": "rgb", "tile": (64, 64)}
        writer.write(np.zeros((80, 100, 3), np.uint8), metadata={"axes": "YXS", "Name": "label"}, **options)
        writer.write(picture, subifds=1, metadata={"axes": "YXS", "Name": "tissue"}, **options)
        writer.write(shrink(picture, 2), subfiletype=1, **options)
        writer.write(np.zeros((200, 90, 3), np.uint8), metadata={"axes": "YXS", "Name": "macro"}, **options)
    group = zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    ome_zarr(tmp_path / "b.zarr" / "0", picture[:100, :100], version="0.4")
    ome_zarr(tmp_path / "b.zarr" / "1", picture, version="0.4")
    with caplog.at_level("INFO", logger="hist2scrna"):
        for name, levels in (("p.ome.tif", 2), ("b.zarr", 3)):
            image = open_file(tmp_path / name)
            assert (image.size(), len(image.scales)) == ((WIDTH, HEIGHT), levels)
            np.testing.assert_array_equal(image.read(0, 376, 66, 40, 24), picture[66:90, 376:416])
    assert "tissue" in caplog.text and "label" in caplog.text and "b.zarr" in caplog.text


# -- what cannot be read ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["tiff", "jpeg"])
def test_pictures_that_are_stored_turned_are_refused(kind, picture, tmp_path):
    path = tmp_path / "p.tif" if kind == "tiff" else tmp_path / "p.jpg"
    if kind == "tiff":
        tifffile.imwrite(path, picture, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    else:
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(picture).save(path, exif=exif)
    with pytest.raises(ValueError, match=rf"{path.name}.*upright.*orientation 6"):
        open_file(path)
    exif = Image.Exif()
    exif[274] = 1
    Image.fromarray(picture).save(tmp_path / "upright.jpg", exif=exif)
    assert open_file(tmp_path / "upright.jpg").size() == (WIDTH, HEIGHT)


def damaged(path, start, stop=None, fill=b"\xff"):
    data = bytearray(path.read_bytes())
    stop = len(data) if stop is None else stop
    data[start:stop] = fill * (stop - start)
    path.write_bytes(data)
    return path


def test_files_that_are_cut_off_or_damaged_are_named(picture, tmp_path):
    whole = pyramid_tiff(tmp_path / "whole.tif", picture, compression="deflate")
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


def test_damage_anywhere_in_a_header_is_never_an_error_from_deep_inside(picture, tmp_path, caplog):
    """Bytes of the header are replaced at random: what comes is a picture, or a ValueError that names the file."""
    caplog.set_level("CRITICAL", logger="tifffile")
    path = pyramid_tiff(tmp_path / "p.tif", picture[:150, :200], (2,), description="x" * 40, compression="deflate")
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


def test_what_is_no_picture_is_refused(picture, tmp_path):
    def tiff(name, pixels, **options):
        tifffile.imwrite(tmp_path / name, pixels, **options)
        return tmp_path / name

    cmyk = Image.fromarray(picture).convert("CMYK")
    cmyk.save(tmp_path / "cmyk.tif")
    Image.fromarray(picture).convert("P").save(tmp_path / "palette.tif")
    Image.fromarray(np.zeros((30, 40), np.float32)).save(tmp_path / "float.tif")
    zarr.save_array(tmp_path / "array.zarr", picture)
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    zarr.open_group(tmp_path / "nested.zarr", mode="w").create_group("images")
    ome_zarr(tmp_path / "nested.zarr" / "images" / "slide", picture)
    (tmp_path / "folder").mkdir()
    ome_zarr(tmp_path / "float.zarr", picture.astype(np.float32) / 255)
    ome_zarr(tmp_path / "lost.zarr", picture)
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


def test_damaged_chunks_of_ome_zarr_are_named(picture, tmp_path):
    image = open_file(ome_zarr(tmp_path / "p.zarr", picture))
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


def test_sizes_are_checked_before_decoding(picture, tmp_path, monkeypatch):
    whole, tiled = tmp_path / "whole.tif", pyramid_tiff(tmp_path / "tiled.tif", picture)
    tifffile.imwrite(whole, picture, photometric="rgb")
    chunk = ome_zarr(tmp_path / "p.zarr", picture, version="0.4")
    monkeypatch.setattr("hist2scrna.images.pixels.MAX_DECODED_PIXELS", 128 * 128)
    assert open_file(tiled).read(0, 0, 0, WIDTH, HEIGHT).shape == picture.shape
    assert open_file(chunk).size() == (WIDTH, HEIGHT)
    with pytest.raises(ValueError, match=r"whole\.tif.*531 x 347.*tiled, pyramidal"):
        open_file(whole)
    monkeypatch.setattr("hist2scrna.images.pixels.MAX_SIDE", 500)
    for path in (tiled, chunk):
        with pytest.raises(ValueError, match=rf"{path.name}.*1 to 500 pixels.*531 x 347"):
            open_file(path)


def test_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "p.ndpi").write_bytes(b"II*\0")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImportError, match=r"p\.ndpi.*hist2scrna\[openslide\]"):
        open_file(tmp_path / "p.ndpi")
