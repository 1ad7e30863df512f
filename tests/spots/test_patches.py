"""Patches of an AnnData: the tissue under each spot, at the size in microns that was asked for, from any source."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import tifffile
from builders import fast, spots_of
from PIL import Image

from hist2scrna.spots.scale import SectionScale, default_patch_um, section_scale
from hist2scrna.tl import fit, predict


def read(adata, **options):
    return spots_of(adata, **{"library_key": None, "spatial_key": "spatial", "patch_px": 16, **options})


def test_each_spot_sees_its_own_tissue(make_section):
    """Every spot of one type lies on a purple square, of the other on a pink one; the picture is wider than high."""
    adata = make_section(kind="irregular")
    center = read(adata, patch_um=20).patches.read(np.arange(adata.n_obs))[:, :, 7:9, 7:9].mean(axis=(2, 3))
    purple = np.abs(center - [90, 40, 140]).max(axis=1) < 3
    pink = np.abs(center - [230, 150, 190]).max(axis=1) < 3
    overlap = ~(purple | pink)
    assert overlap.mean() < 0.3
    np.testing.assert_array_equal(purple[~overlap], (adata.obs["cell_type"] == "tumor").to_numpy()[~overlap])


def test_micron_and_pixel_agree(make_section):
    """At 2 um a pixel, 40 um are the 20 x 20 px square that the maker of the section drew."""
    adata = make_section()
    inside = read(adata, patch_um=36).patches.read(np.array([0]))[0]
    assert (inside == inside[:, :1, :1]).all()
    around = read(adata, patch_um=80, patch_px=40).patches.read(np.array([0]))[0]
    marked = np.abs(around.astype(int) - [[[230]], [[150]], [[190]]]).max(axis=0) < 3
    assert marked.mean() == pytest.approx(0.25, abs=0.01)
    argument = read(adata, patch_um=18, mpp=1.0).patches.read(np.array([0]))[0]
    np.testing.assert_array_equal(argument, inside)


def test_scale_of_a_section():
    def scale(factors, mpp=None, **metadata):
        found = section_scale("s", {"scalefactors": factors, "metadata": metadata}, mpp)
        return found.mpp, found.known_from

    assert scale({"mpp": 0.5, "spot_diameter_fullres": 80}) == (0.5, "metadata")
    assert scale({"microns_per_pixel": 0.25}) == (0.25, "metadata")
    assert scale({"mpp": 0.5}, 0.7) == (0.7, "argument")
    assert scale({"spot_diameter_fullres": 50}) == (2.0, "spot diameter")
    assert scale({"spot_diameter_fullres": 50, "spot_diameter_um": 55}) == (1.1, "spot diameter")
    assert scale({"spot_diameter_fullres": 65}, chemistry_description="Spatial 3' v1") == (1.0, "spot diameter")


def test_default_patch_is_one_and_a_half_spots():
    assert default_patch_um([SectionScale(2.0, "metadata", 50.0), SectionScale(1.0, "metadata", 100.0)]) == 150
    assert default_patch_um([SectionScale(0.5, "argument", None)]) == 112


def test_same_pixels_from_any_source_give_the_same_prediction(make_section, tmp_path):
    model = fit(make_section(), **fast(labels_key="cell_type", validation=0))
    section = make_section(seed=2)
    picture = section.uns["spatial"]["s0"]["images"]["hires"]
    reference = predict(section.copy(), model, progress=False).layers["hist2scrna_mean"]
    Image.fromarray(picture).save(tmp_path / "p.png")
    tifffile.imwrite(tmp_path / "p.tif", picture, photometric="rgb", tile=(64, 64))
    bare = section.copy()
    bare.uns["spatial"]["s0"]["images"] = {}
    named = bare.copy()
    named.uns["spatial"]["s0"]["metadata"] = {"source_image_path": str(tmp_path / "p.png")}
    runs = {
        "named file": (named, {}),
        "path": (bare, {"image": tmp_path / "p.png"}),
        "tiff": (bare, {"image": str(tmp_path / "p.tif")}),
        "array": (bare, {"image": picture}),
        "float array": (bare, {"image": picture / np.float32(255)}),
        "by section": (bare, {"image": {"s0": picture}}),
        "img_key": (section, {"img_key": "hires"}),
    }
    for name, (adata, options) in runs.items():
        out = predict(adata.copy(), model, progress=False, **options).layers["hist2scrna_mean"]
        np.testing.assert_array_equal(out, reference, err_msg=name)


def test_no_uns_needs_a_picture_and_a_scale(make_section):
    model = fit(make_section(), **fast(validation=0))
    section = make_section()
    reference = predict(section.copy(), model, progress=False).layers["hist2scrna_mean"]
    picture = section.uns["spatial"]["s0"]["images"]["hires"]
    naked = ad.AnnData(X=section.X, var=section.var, obs=section.obs[[]], obsm={"spatial": section.obsm["spatial"]})
    out = predict(naked, model, image=picture, mpp=2.0, progress=False)
    np.testing.assert_array_equal(out.layers["hist2scrna_mean"], reference)
    with pytest.raises(KeyError, match="mpp="):
        predict(naked, model, image=picture, progress=False)


def test_one_picture_for_several_sections_is_refused(make_section):
    both = ad.concat([make_section("s0"), make_section("s1", seed=1)], uns_merge="unique")
    picture = both.uns["spatial"]["s0"]["images"]["hires"]
    with pytest.raises(ValueError, match=r"One `image`.*2 sections.*dictionary"):
        read(both, library_key="library_id", image=picture)


def test_another_kind_of_scale_is_said(make_section):
    model = fit(make_section(), **fast(validation=0))
    section = make_section()
    del section.uns["spatial"]["s0"]["scalefactors"]["mpp"]
    with pytest.warns(UserWarning, match="spot diameter here.*metadata in training"):
        predict(section, model, progress=False)


def test_each_patch_is_cut_once(make_section, monkeypatch):
    from hist2scrna.images import patches

    spots = read(make_section())
    cut = []
    original = patches.cut_patches
    monkeypatch.setattr(
        patches, "cut_patches", lambda image, xy, *rest: cut.append(len(xy)) or original(image, xy, *rest)
    )
    first = spots.patches.read(np.array([3, 1, 3]))
    again = spots.patches.read(np.array([1, 2]))
    assert cut == [2, 1]
    np.testing.assert_array_equal(first[1], again[0])
    monkeypatch.setattr(patches, "CACHE_BYTES", 0)
    uncached = read(make_section())
    np.testing.assert_array_equal(uncached.patches.read(np.array([3, 1, 3])), first)
