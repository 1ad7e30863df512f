"""Microns per pixel, as the files of each kind tell them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from image_files import ome_zarr, pyramid_tiff, svs

from hist2scrna.images.base import cut_patches
from hist2scrna.images.open import open_file
from hist2scrna.images.openslide import OpenSlideImage
from hist2scrna.images.resolution import aperio_mpp, in_microns, ome_xml_mpp, square, tiff_tags_mpp
from hist2scrna.spots.scale import section_scale


def test_microns_per_pixel_of_files(marked_pixels, tmp_path):
    marked_pixels = marked_pixels[:100, :130]

    def tagged(name, **options):
        return pyramid_tiff(tmp_path / name, marked_pixels, **options)

    meta = {"axes": "YXS", "PhysicalSizeX": 325, "PhysicalSizeY": 325}
    told = {
        "svs": (svs(tmp_path / "a.svs", marked_pixels), 0.251),
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
        "zarr 0.4": (ome_zarr(tmp_path / "a.zarr", marked_pixels, version="0.4", um=0.5), 0.5),
        "zarr 0.5": (ome_zarr(tmp_path / "b.zarr", marked_pixels, um=0.0005, unit="millimeter"), 0.5),
        "zarr without unit": (ome_zarr(tmp_path / "c.zarr", marked_pixels, unit=None), None),
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


def test_file_tells_the_scale_where_neither_argument_nor_metadata_do(marked_pixels, tmp_path):
    image, silent = (
        open_file(svs(tmp_path / "a.svs", marked_pixels)),
        open_file(pyramid_tiff(tmp_path / "b.tif", marked_pixels)),
    )
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
