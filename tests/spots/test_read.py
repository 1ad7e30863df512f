"""Bad input: each case a clear error that names the slot and the way out, with AnnData unchanged."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from builders import fast, spots_of

from hist2scrna.tl import fit, predict


def _set_x(value):
    def change(adata):
        matrix = adata.X.toarray()
        matrix[3, 2] = value
        adata.X = matrix

    return change


def _normalized(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray() / 3)


def _spatial(function):
    def change(adata):
        adata.obsm["spatial"] = function(adata.obsm["spatial"].copy())

    return change


def _nan(xy):
    xy[5:9, 1] = np.nan
    return xy


def _entry(adata):
    return adata.uns["spatial"]["s0"]


CASES = {
    "float counts": (_set_x(0.5), ValueError, r"adata\.X.*not whole numbers.*0\.5.*raw counts"),
    "log-normalized": (_normalized, ValueError, r"adata\.X.*not whole.*layer=.*'counts'"),
    "negative counts": (_set_x(-2), ValueError, r"adata\.X.*negative.*-2"),
    "NaN counts": (_set_x(np.nan), ValueError, r"adata\.X.*NaN"),
    "NaN coordinates": (_spatial(_nan), ValueError, r"NaN.*adata\.obsm\['spatial'\].*'s0_5'.*Drop"),
    "swapped coordinates": (
        _spatial(lambda xy: xy[:, ::-1]),
        ValueError,
        r"outside the image.*x and y exchanged.*\[:, ::-1\]",
    ),
    "outside the image": (_spatial(lambda xy: xy * 5), ValueError, r"outside the image.*full-resolution.*scalef"),
    "one column": (_spatial(lambda xy: xy[:, :1]), ValueError, r"obsm\['spatial'\].*\(n_obs, 2\).*\(40, 1\)"),
    "no coordinates": (lambda a: a.obsm.pop("spatial"), KeyError, r"'spatial' not found in adata\.obsm"),
    "no uns": (lambda a: a.uns.pop("spatial"), KeyError, r"No library in adata\.uns\['spatial'\].*squidpy"),
    "no library": (
        lambda a: a.uns["spatial"].update(other=a.uns["spatial"].pop("s0")),
        KeyError,
        r"Library 's0' not found.*\['other'\]",
    ),
    "no image": (lambda a: _entry(a)["images"].clear(), KeyError, r"No images.*image="),
    "no scale factor": (
        lambda a: _entry(a)["scalefactors"].pop("tissue_hires_scalef"),
        KeyError,
        r"'tissue_hires_scalef' not found.*scalefactors",
    ),
    "spots wider than any": (
        lambda a: _entry(a)["scalefactors"].update(mpp=50.0),
        ValueError,
        r"'mpp'\] of 50 um a pixel, spots of 36 px would be 1,800 um wide; those of assays are 2 to 110",
    ),
    "bad scale factor": (
        lambda a: _entry(a)["scalefactors"].update(tissue_hires_scalef=0.0),
        ValueError,
        r"tissue_hires_scalef.*positive.*0\.0",
    ),
    "no scale at all": (
        lambda a: [_entry(a)["scalefactors"].pop(k) for k in ("mpp", "spot_diameter_fullres")],
        KeyError,
        r"'spot_diameter_fullres' not found.*mpp=",
    ),
    "no labels": (lambda a: a.obs.pop("cell_type"), KeyError, r"'cell_type' not found in adata\.obs.*library_id"),
    "empty labels": (
        lambda a: a.obs.__setitem__("cell_type", pd.Categorical([None] * 40)),
        ValueError,
        r"obs\['cell_type'\].*no label.*labels_key=None",
    ),
    "spot of no section": (
        lambda a: a.obs.__setitem__("library_id", pd.Categorical([None] + ["s0"] * 39)),
        ValueError,
        r"1 spots have no value in adata\.obs\['library_id'\].*s0_0",
    ),
    "repeated genes": (
        lambda a: setattr(a, "var_names", ["g0"] * 2 + [f"g{i}" for i in range(10)]),
        ValueError,
        r"gene names occur more than once.*var_names_make_unique",
    ),
}


def snapshot(adata):
    return {
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        "keys": [sorted(getattr(adata, slot)) for slot in ("layers", "obsm", "obsp", "uns")],
        "X": None if adata.X is None else adata.X.copy(),
    }


def assert_unchanged(adata, before):
    after = snapshot(adata)
    pd.testing.assert_frame_equal(after["obs"], before["obs"])
    pd.testing.assert_frame_equal(after["var"], before["var"])
    assert after["keys"] == before["keys"]
    if before["X"] is not None:
        left, right = (m.toarray() if hasattr(m, "toarray") else m for m in (after["X"], before["X"]))
        np.testing.assert_array_equal(left, right)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("case", CASES)
def test_fit_refuses(case, make_section):
    change, error, message = CASES[case]
    adata = make_section()
    change(adata)
    before = snapshot(adata)
    with pytest.raises(error, match=r"(?s)" + message):
        fit(adata, **fast(library_key="library_id", labels_key="cell_type"))
    assert_unchanged(adata, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "hist2scma"}, ValueError, "Unknown model 'hist2scma'. Did you mean 'hist2scrna'"),
        ({"preset": "tny"}, ValueError, "Unknown preset.*'tny'. Did you mean 'tiny'"),
        ({"widht": 3}, ValueError, "no argument `widht`. Did you mean width="),
        ({"likelihood": "gamma"}, ValueError, "likelihood.*zinb.*'gamma'"),
        ({"genes": ["g0", "nope"]}, KeyError, "1 of 2 genes not found.*nope"),
        ({"genes": "no_column"}, KeyError, "'no_column' not found in adata.var"),
        ({"genes": []}, ValueError, "No gene to model"),
        ({"layer": "counts"}, KeyError, "Key 'counts' not found in adata.layers"),
        ({"img_key": "fullres"}, KeyError, "Key 'fullres' not found.*hires"),
        ({"image": "gone.tif"}, FileNotFoundError, "gone.tif"),
        ({"patch_um": -3}, ValueError, "patch_um.*-3"),
        ({"mpp": 0}, ValueError, "mpp.*positive.*0"),
        ({"validation": 1.5}, ValueError, "validation.*1.5"),
        ({"validation": ["s9"]}, ValueError, r"\['s9'\].*validation.*s0"),
        ({"max_epochs": 0}, ValueError, "max_epochs.*0"),
        ({"batch_size": 0}, ValueError, "batch_size.*0"),
        ({"lr": -1}, ValueError, "lr.*-1"),
        ({"losses": {"smothness": 1.0}}, ValueError, "smothness.*smoothness"),
        ({"losses": {"mine": lambda p, b: p.mean}}, ValueError, "'mine' must return a scalar"),
        ({"features_key": "X_pca"}, ValueError, "reads patches itself and has no `features_key`"),
        ({"model": "hist2scrna-lightweight", "features_key": "uni"}, KeyError, "'uni' not found in adata.obsm"),
        ({"init_from": "nowhere"}, FileNotFoundError, "nowhere"),
    ],
)
def test_fit_refuses_arguments(arguments, error, message, make_section):
    adata = make_section()
    before = snapshot(adata)
    with pytest.raises(error, match=r"(?s)" + message):
        fit(adata, **fast(**{"library_key": "library_id", **arguments}))
    assert_unchanged(adata, before)


def test_several_libraries_need_a_key(make_section):
    both = ad.concat([make_section("s0"), make_section("s1", seed=1)], uns_merge="unique")
    # A column that does not name the libraries does not tell them apart.
    both.obs["library_id"] = [f"slide {name}" for name in both.obs["library_id"]]
    with pytest.raises(ValueError, match="2 libraries.*library_key="):
        fit(both, **fast())


def test_too_few_spots(make_section):
    with pytest.raises(ValueError, match="Too few spots.*5 of 5"):
        fit(make_section(n_spots=5), **fast())
    empty = make_section()
    empty.X = empty.X * 0
    with pytest.raises(ValueError, match="Too few spots.*0 of 40"):
        fit(empty, **fast())
    with pytest.raises(ValueError, match="Too few spots to hold out.*validation=0"):
        fit(make_section(n_spots=9), **fast(validation=0.5))


def test_coarse_picture_is_said(make_section):
    adata = make_section()
    adata.uns["spatial"]["s0"]["scalefactors"]["spot_diameter_fullres"] = 20.0
    with pytest.warns(UserWarning, match="covers only 20 px"):
        fit(adata, **fast())


@pytest.mark.parametrize("name", ["B4", "C2", "C3", "C4", "C5"])
def test_y_that_points_up_on_a_real_section_is_warned_of(shared_data, name):
    """The spots lie inside the image all the same: the tissue tells, by the same rule as of exchanged axes."""
    from hist2scrna.datasets import her2st

    adata = her2st(shared_data / "her2st", sections=(name,), img_scale=0.1)
    picture = adata.uns["spatial"][name]["images"]["hires"]
    height = picture.shape[0] / adata.uns["spatial"][name]["scalefactors"]["tissue_hires_scalef"]
    adata.obsm["spatial"][:, 1] = height - adata.obsm["spatial"][:, 1]
    with pytest.warns(
        UserWarning, match=rf"Only \d+% of the spots .*% would with y turned over.*\[:, 1\] = {height:.0f} -"
    ):
        spots_of(adata, library_key=None, spatial_key="spatial", patch_px=8)


@pytest.mark.parametrize("section", ["C2", "C3", "C4", "C5", "C6"])
def test_swapped_coordinates_of_a_real_section_are_found(shared_data, section):
    """On an almost square picture all swapped spots lie inside: the tissue tells."""
    from hist2scrna.datasets import her2st

    adata = her2st(shared_data / "her2st", sections=(section,), img_scale=0.1)
    spots_of(adata, library_key=None, spatial_key="spatial", patch_px=8)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    with pytest.raises(ValueError, match=r"tissue.*exchanged.*\[:, ::-1\]"):
        fit(adata, **fast(genes=list(adata.var_names[:5])))


@pytest.fixture(scope="module")
def model(make_section):
    return fit(make_section(), **fast(labels_key="cell_type", validation=0))


@pytest.mark.parametrize(
    "case",
    [k for k in CASES if k.split()[-1] not in ("counts", "log-normalized", "labels", "genes")],
)
def test_predict_refuses(case, make_section, model):
    change, error, message = CASES[case]
    adata = make_section()
    change(adata)
    before = snapshot(adata)
    with pytest.raises(error, match=r"(?s)" + message):
        predict(adata, model, library_key="library_id", progress=False)
    assert_unchanged(adata, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": ["means"]}, ValueError, "layers.*'means'.*Did you mean 'mean'"),
        ({"store": "x.csv"}, ValueError, r"store.*\.zarr"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"accelerator": "abacus"}, ValueError, "accelerator.*abacus"),
        ({"library_size": "depth"}, ValueError, "library_size.*'predicted', 'median'.*'depth'"),
    ],
)
def test_predict_refuses_arguments(arguments, error, message, make_section, model):
    adata = make_section()
    before = snapshot(adata)
    with pytest.raises(error, match=message):
        predict(adata, model, progress=False, **arguments)
    assert_unchanged(adata, before)


def test_predict_refuses_what_is_no_model(make_section, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        predict(make_section(), tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"no model\.json"):
        predict(make_section(), tmp_path)
    with pytest.raises(TypeError, match="TrainedModel.*found 3"):
        predict(make_section(), 3)


@pytest.mark.parametrize("fewer", [False, True])
def test_counts_in_raw_are_said_with_the_way_to_pass_them(make_section, fewer):
    adata = make_section()
    expected = fit(adata, **fast()).module.state_dict()
    adata.raw = adata.copy()
    if fewer:
        # A gene that is not in raw.
        adata.raw = adata[:, 1:].copy()
    adata.X = np.log1p(adata.X.toarray() / 3)
    with pytest.raises(ValueError, match=r"Counts are in adata\.raw") as said:
        fit(adata, **fast())
    steps = str(said.value).partition("Counts are in adata.raw: ")[2].partition(", then pass layer='counts'")[0]
    scope = {"adata": adata}
    exec(steps, scope)
    model = fit(scope["adata"], **fast(layer="counts"))
    assert model.genes == [f"g{i}" for i in range(int(fewer), 12)]
    if not fewer:
        assert all((value == expected[name]).all() for name, value in model.module.state_dict().items())


def test_raw_that_is_normalized_too_is_not_recommended(make_section):
    adata = make_section()
    adata.X = np.log1p(adata.X.toarray() / 3)
    adata.raw = adata.copy()
    with pytest.raises(ValueError, match="not whole numbers.*Give raw counts"):
        fit(adata, **fast())
