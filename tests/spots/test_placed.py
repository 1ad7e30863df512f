"""Rows that are no spots, or have no place, are left out and get NaN; where there are many, all are refused."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
from builders import fast

from hist2scrna import keys, pp
from hist2scrna.tl import attention, evaluate, fit, predict

QUIET = {"progress": False, "accelerator": "cpu"}
N = 64


@pytest.fixture(scope="module")
def model(make_section):
    return fit(make_section(n_spots=N), **fast(labels_key="cell_type", validation=0))


def off_the_image(xy, rows):
    xy[rows] = xy[rows] + [0, 4000]


def without_place(xy, rows):
    xy[rows, 1] = np.nan


def moved(adata, change, rows):
    adata.obsm["spatial"] = adata.obsm["spatial"].copy()
    change(adata.obsm["spatial"], rows)
    return adata


def written(adata):
    """What was written for each spot, as numbers; of categories, -1 for none."""
    obs = adata.obs.loc[:, adata.obs.columns.str.startswith("hist2scrna")]
    table = {name: c.cat.codes.replace(-1, np.nan) if hasattr(c, "cat") else c for name, c in obs.items()}
    obsm = {name: np.asarray(value) for name, value in adata.obsm.items() if "hist2scrna" in name}
    layers = {name: np.asarray(layer)[:, adata.var["hist2scrna_modeled"]] for name, layer in adata.layers.items()}
    return {**{name: np.asarray(column)[:, None] for name, column in table.items()}, **obsm, **layers}


@pytest.mark.parametrize("change", [off_the_image, without_place])
@pytest.mark.parametrize("store", [None, "p.h5ad", "p.zarr"])
def test_a_few_spots_without_a_place_are_counted_once_and_predicted_as_nan(
    change, store, model, make_section, tmp_path
):
    bad = np.array([7, 20, 41])
    adata = moved(make_section(n_spots=N), change, bad)
    others = np.setdiff1d(np.arange(N), bad)
    with pytest.warns(UserWarning) as said:
        out = predict(adata, model, store=None if store is None else tmp_path / store, **QUIET)
    (text,) = [str(w.message) for w in said if "left out" in str(w.message)]
    assert text.startswith("3 of 64 spots") and "'s0_7'" in text
    if store is not None:
        out = (ad.read_zarr if store.endswith("zarr") else ad.read_h5ad)(tmp_path / store)
    assert list(out.obs_names) == list(adata.obs_names)
    alone = predict(make_section(n_spots=N)[others].copy(), model, **QUIET)
    expected = written(alone)
    found = written(out)
    assert set(found) == set(expected) and len(found) > 5
    for name, values in found.items():
        assert np.isnan(values[bad]).all(), name
        np.testing.assert_allclose(values[others], expected[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("change", [off_the_image, without_place])
def test_many_are_refused_even_in_one_section_of_many(change, model, make_section):
    sections = [make_section(f"s{i}", seed=i, n_spots=N) for i in range(3)]
    both = ad.concat([moved(sections[0], change, np.arange(4)), *sections[1:]], uns_merge="unique")
    assert 4 / both.n_obs < 0.05
    for call in (lambda: predict(both, model, **QUIET), lambda: fit(both, **fast())):
        with pytest.raises(ValueError, match=r"4 of 64 spots.*lie outside|4 spots have NaN"):
            call()
    assert list(both.layers) == []


@pytest.mark.parametrize("change", [off_the_image, without_place])
def test_fit_leaves_the_few_out(change, make_section):
    bad, adata = np.array([7, 41]), make_section(n_spots=N)
    others = np.setdiff1d(np.arange(N), bad)
    alone = fit(adata[others].copy(), **fast(labels_key="cell_type"))
    with pytest.warns(UserWarning, match="2 of 64 spots .* left out"):
        model = fit(moved(adata, change, bad), **fast(labels_key="cell_type"))
    for name, value in model.module.state_dict().items():
        np.testing.assert_array_equal(value, alone.module.state_dict()[name])


@pytest.mark.parametrize("kind", [int, bool, str, "category"])
def test_positions_off_the_tissue_are_no_spots(kind, model, make_section, caplog):
    """Files of CELLxGENE hold every position of the array: 0 in `in_tissue` is neither trained on nor predicted."""
    adata = make_section(n_spots=N)
    tissue = np.arange(N) % 3 > 0
    adata.obs[keys.IN_TISSUE] = tissue.astype(int)
    adata.obs[keys.IN_TISSUE] = adata.obs[keys.IN_TISSUE].astype(kind)
    with warnings.catch_warnings(), caplog.at_level("INFO", "hist2scrna"):
        warnings.filterwarnings("error", ".*left out")
        out = predict(adata, model, **QUIET)
    assert "22 of 64 rows are positions off the tissue" in caplog.text
    mean = out.layers["hist2scrna_mean"]
    assert np.isnan(mean[~tissue]).all() and np.isfinite(mean[tissue]).all()
    on_tissue = fit(adata, **fast(validation=0))
    assert on_tissue.training["n_training"] == tissue.sum()
    result = evaluate(out, model, labels_key="cell_type", progress=False)
    assert result.results["data"]["n_spots"] == tissue.sum()
    assert any("22 rows" in note for note in result.results["notes"])


def test_no_position_under_tissue_is_refused(model, make_section):
    adata = make_section()
    adata.obs[keys.IN_TISSUE] = 0
    for call in (lambda: predict(adata, model, **QUIET), lambda: fit(adata, **fast())):
        with pytest.raises(ValueError, match=r"obs\['in_tissue'\] is 0 in all 40 rows.*del adata.obs"):
            call()


def test_features_and_attention_of_the_left_out_are_nan(model, make_section):
    bad = np.array([7, 20])
    adata = moved(make_section(n_spots=N), off_the_image, bad)
    with pytest.warns(UserWarning, match="2 of 64 spots"):
        pp.extract_features(adata, "morphology", progress=False)
    missing = np.isnan(adata.obsm["X_morphology"]).any(axis=1)
    assert list(np.flatnonzero(missing)) == list(bad)
    with pytest.warns(UserWarning, match="2 of 64 spots have no coordinates or no features"):
        ridge = fit(adata, model="ridge", features_key="X_morphology", progress=False)
    with pytest.warns(UserWarning, match="2 of 64 spots have no coordinates or no features"):
        mean = predict(adata, ridge, progress=False).layers["hist2scrna_mean"]
    assert list(np.flatnonzero(np.isnan(mean).any(axis=1))) == list(bad)
    with pytest.warns(UserWarning, match="2 of 64 spots"):
        attention(adata, model, progress=False, accelerator="cpu")
    weights = np.asarray(adata.obsp["hist2scrna_attention"].sum(axis=1)).ravel()
    np.testing.assert_allclose(weights, np.where(missing, 0, 1), atol=1e-5)
    assert list(np.flatnonzero(np.isnan(adata.obsm["hist2scrna_attention_patch"]).any(axis=1))) == list(bad)


def test_coordinates_written_as_words_are_read(model, make_section):
    """Old Scanpy left them as strings."""
    adata = make_section()
    expected = predict(adata.copy(), model, **QUIET).layers["hist2scrna_mean"]
    adata.obsm["spatial"] = adata.obsm["spatial"].astype(str)
    np.testing.assert_allclose(predict(adata, model, **QUIET).layers["hist2scrna_mean"], expected, rtol=1e-6)
    adata.obsm["spatial"] = np.full((40, 2), "here")
    with pytest.raises(ValueError, match=r"obsm\['spatial'\].*'here'.*astype\(float\)"):
        predict(adata, model, **QUIET)
