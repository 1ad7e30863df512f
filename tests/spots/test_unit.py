"""What a row is and how large: spots, bins, cells, slides; sizes that do not fit are refused or warned of."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from builders import fast, spots_of

from hist2scrna import TrainedModel, keys
from hist2scrna.spots.unit import Unit, nearest_distance
from hist2scrna.tl import fit, predict

QUIET = {"progress": False, "accelerator": "cpu"}


def sized(adata, spot_px, mpp=2.0):
    """The section with another spot diameter in pixels, None for none, and microns per pixel."""
    factors = adata.uns["spatial"]["s0"]["scalefactors"]
    factors["mpp"] = mpp
    if spot_px is None:
        del factors["spot_diameter_fullres"]
    else:
        factors["spot_diameter_fullres"] = spot_px
    return adata


@pytest.mark.parametrize(
    ("kind", "spot_px", "mpp", "unit"),
    [
        ("hexagonal", 36, 2.0, Unit("spot", 72)),
        ("square", 36, 2.0, Unit("spot", 72)),
        # Lattice pitch of 50 px: bins touch each other.
        ("square", 50, 0.16, Unit("bin", 8)),
        ("irregular", 36, 2.0, Unit("spot", 72)),
        ("irregular", 36, 0.25, Unit("cell", 9)),
        ("hexagonal", None, 2.0, Unit("spot")),
    ],
)
def test_what_a_row_is(make_section, kind, spot_px, mpp, unit):
    assert spots_of(sized(make_section(kind=kind), spot_px, mpp), patch_px=8, patch_um=40 * mpp).unit == unit


def test_spots_are_of_65_um_where_the_metadata_name_a_chemistry_of_visium(make_section):
    """The diameter of the fiducials tells nothing: files of older arrays, with spots of 100 um, hold it, too."""
    adata = sized(make_section(), 36)
    entry = adata.uns["spatial"]["s0"]
    del entry["scalefactors"]["mpp"]
    entry["scalefactors"]["fiducial_diameter_fullres"] = 57.6
    assert spots_of(adata, patch_px=8, patch_um=40).unit == Unit("spot", 100)
    entry["metadata"] = {"chemistry_description": "Spatial 3' v1"}
    assert spots_of(adata, patch_px=8, patch_um=40).unit == Unit("spot", 65)


def test_segmented_nuclei_are_as_large_as_they_are_apart(make_section):
    adata = sized(make_section(kind="irregular"), None, 0.5)
    unit = spots_of(adata, patch_px=8, patch_um=20).unit
    assert unit.kind == "cell" and unit.um == pytest.approx(0.5 * nearest_distance(adata.obsm["spatial"]), abs=1e-3)
    adata.obs[keys.TISSUE_FRACTION] = 1.0
    assert spots_of(adata, patch_px=8, patch_um=20).unit == Unit("spot")


def test_features_need_no_scale(make_section):
    adata = make_section()
    adata.obsm["f"] = np.ones((40, 2))
    assert spots_of(adata, features_key="f").unit == Unit("spot", 72)
    del adata.uns["spatial"]
    assert spots_of(adata, features_key="f").unit == Unit("spot")


@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_spots_that_would_overlap_are_refused(make_section, factor):
    model = fit(make_section(), **fast())
    adata = make_section()
    adata.obsm["spatial"] = factor * adata.obsm["spatial"]
    if factor == 1:
        fit(adata, **fast())
        return
    message = r"'s0' would overlap: they are 15 px apart in adata.obsm\['spatial'\], but 36 px wide .* divide them by"
    before = list(adata.obs)
    with pytest.raises(ValueError, match=message):
        fit(adata, **fast())
    with pytest.raises(ValueError, match=message):
        predict(adata, model, **QUIET)
    assert list(adata.obs) == before and list(adata.layers) == []


def test_cells_may_lie_closer_than_their_median_diameter(make_section):
    adata = sized(make_section(kind="irregular"), 120, 0.1)
    assert nearest_distance(adata.obsm["spatial"]) < 60
    assert spots_of(adata, patch_px=8).unit == Unit("cell", 12)


def test_a_model_of_spots_on_cells_is_warned_of(make_section, tmp_path):
    model = fit(make_section(), **fast())
    assert model.training["unit"] == {"kind": "spot", "um": 72.0}
    again = TrainedModel.load(model.save(tmp_path / "m"))
    assert "unit        spots of 72 um" in repr(again)
    cells = sized(make_section(kind="irregular"), 6)
    message = "trained on spots of 72 um, and these are cells of 12 um: .*spot of 72 um .*library_size=.* on cells"
    with pytest.warns(UserWarning, match=message) as said:
        predict(cells, again, **QUIET)
    assert [w.filename for w in said if "trained on spots" in str(w.message)] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        predict(sized(make_section(), 50), again, **QUIET)
