"""Nuclei end to end: fitted on tiles, saved, loaded and predicted, with masks of every kind and cells without one."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pytest

from hist2scrna import tl
from hist2scrna.datasets import simulate
from hist2scrna.io import concat
from hist2scrna.pp import reference_profiles

GENES = 20


@pytest.fixture(scope="module")
def sections() -> list[ad.AnnData]:
    return simulate(n_sections=3, n_spots=150, n_genes=GENES, level="cell", mpp=1.0, seed=3)


def nuclei_of(adata: ad.AnnData) -> dict[str, np.ndarray]:
    return adata.uns["simulation"]["nuclei"]


def fitted(adata: ad.AnnData, *, epochs: int = 1, **arguments: Any) -> Any:
    training = {
        "max_epochs": epochs,
        "batch_size": 4,
        "accelerator": "cpu",
        "validation": 0,
        **arguments.pop("how", {}),
    }
    options = {"tile_px": 64, "tile_um": 64.0, "labels_key": "cell_type", "nuclei": nuclei_of(adata), **arguments}
    return tl.fit(adata, model="ghist", preset="tiny", training=training, progress=False, **options)


def with_reference(sections: list[ad.AnnData], epochs: int) -> Any:
    train = concat(sections[:2])
    how = {"batch_size": 2}
    return fitted(train, epochs=epochs, reference=reference_profiles(train, "cell_type"), how=how)


@pytest.fixture(scope="module")
def model(sections) -> Any:
    return with_reference(sections, epochs=1)


@pytest.mark.slow
def test_types_and_expression_of_an_unseen_section(sections) -> None:
    model = with_reference(sections, epochs=20)
    test = sections[2]
    predicted = tl.predict(test, model, nuclei=nuclei_of(test), progress=False, copy=True)
    types = test.obs["cell_type"].astype(str)
    right = (predicted.obs["hist2scrna_cell_type"].astype(str) == types).mean()
    assert right > types.value_counts(normalize=True).max()
    truth = np.log1p(test.layers["true_mean"])
    error = np.square(np.log1p(predicted.X) - truth).mean()
    mean = np.log1p(np.vstack([s.layers["true_mean"] for s in sections[:2]])).mean(axis=0)
    assert error < np.square(mean - truth).mean()
    shares = predicted.obsm["hist2scrna_composition"]
    assert list(shares.columns) == list(predicted.obsm["hist2scrna_cell_type_probability"].columns)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert predicted.uns["hist2scrna"]["scale"] == "counts"
    assert list(predicted.uns["hist2scrna"]["nuclei"]) == ["label image"]
    seen = predicted.obs["hist2scrna_nucleus_px"].to_numpy()
    area = np.bincount(nuclei_of(test)["section_2"].ravel())[test.obs["nucleus"]]
    assert (seen <= area).all() and np.mean(seen == area) > 0.8


def test_a_saved_model_predicts_the_same_in_batches_of_any_size(sections, model, tmp_path) -> None:
    test = sections[2]
    nuclei = nuclei_of(test)["section_2"]
    model.save(tmp_path / "model")
    predicted, again = (
        tl.predict(test, which, nuclei=nuclei, batch_size=size, progress=False, copy=True)
        for which, size in ((model, 1), (tmp_path / "model", 7))
    )
    np.testing.assert_allclose(again.X, predicted.X, rtol=1e-4, atol=1e-5)
    assert "tiles of 64 um, 64 px" in repr(model)


def test_a_cell_does_not_depend_on_cells_in_other_tiles(sections, model) -> None:
    test = sections[2]
    nuclei = nuclei_of(test)
    whole = tl.predict(test, model, nuclei=nuclei, progress=False, copy=True)
    corner = test[(test.obsm["spatial"] < test.obsm["spatial"].mean(axis=0)).all(axis=1)].copy()
    part = tl.predict(corner, model, nuclei=nuclei, progress=False, copy=True)
    # The backbone sees the picture alone; only the composition is of the cells that are there.
    np.testing.assert_allclose(part.X, whole[corner.obs_names].X, rtol=1e-3, atol=1e-4)


def test_cells_without_a_nucleus_are_nan(sections, model) -> None:
    test = sections[2].copy()
    test.obs["nucleus"] = np.where(np.arange(150) < 3, 0, test.obs["nucleus"])
    with pytest.warns(UserWarning, match="3 of 150 cells have no nucleus on the image"):
        predicted = tl.predict(test, model, nuclei=nuclei_of(test), progress=False, copy=True)
    assert np.isnan(predicted.X[:3]).all() and np.isfinite(predicted.X[3:]).all()
    assert predicted.obs["hist2scrna_cell_type"].isna().tolist() == [True] * 3 + [False] * 147
    assert (predicted.obs["hist2scrna_nucleus_px"][:3] == 0).all()
    with pytest.warns(UserWarning, match="3 of 150 cells have no nucleus"):
        assert fitted(test).training["n_training"] == 147


def test_nuclei_are_drawn_where_no_label_image_is_given(sections) -> None:
    train, test = (section.copy() for section in sections[1:])
    model = fitted(train, nuclei=None)
    assert model.training["nuclei"] == ["discs of 8 um"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = tl.predict(test, model, progress=False, copy=True)
    assert np.isfinite(predicted.X).all()


def test_discs_in_place_of_a_label_image_are_warned_of(sections, model) -> None:
    with pytest.warns(UserWarning, match="trained on nuclei of their own shape; here they are drawn as discs of 8 um"):
        tl.predict(sections[2], model, progress=False, copy=True)


def test_counts_of_nuclei_are_a_distribution(sections) -> None:
    train, test = concat(sections[:2]), sections[2]
    model = fitted(train, epochs=2, likelihood="nb", how={"validation": ["section_1"]})
    assert model.training["dispersion_shift"] >= 0
    predicted = tl.predict(test, model, nuclei=nuclei_of(test), layers=["mean", "uncertainty"], progress=False)
    mean, deviation = (predicted.layers[f"hist2scrna_{name}"] for name in ("mean", "uncertainty"))
    # Of a negative binomial, never below Poisson's.
    assert (deviation**2 >= mean * 0.999).all()
    theta = predicted.var["hist2scrna_dispersion"].to_numpy()
    np.testing.assert_allclose(deviation**2, mean + mean**2 / theta, rtol=1e-3)


def test_profiles_lack_genes(sections) -> None:
    train = sections[0]
    profiles = reference_profiles(train, "cell_type", genes=train.var_names[3:].tolist())
    model = fitted(train, reference=profiles.to_df())
    assert model.genes == train.var_names[3:].tolist()
    np.testing.assert_allclose(model.module.reference.numpy(), profiles.X, rtol=1e-6)
    with pytest.raises(KeyError, match="`reference` lacks 2 of 5 genes"):
        fitted(train, reference=profiles, genes=train.var_names[1:6].tolist())
    with pytest.raises(ValueError, match="log-normalized profiles"):
        fitted(train, reference=profiles.to_df() * 100)
    with pytest.raises(TypeError, match="AnnData or a DataFrame, found str"):
        fitted(train, reference="atlas.h5ad")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model": "stnet", "nuclei": np.zeros((3, 3), int)},
            "'stnet' has no `nuclei`. Models that have `nuclei`: ghist",
        ),
        ({"model": "kernel", "reference": 1}, "'kernel' has no `reference`. Models that have `reference`: ghist"),
        ({"model": "ghist", "patch_um": 20}, "reads tiles and has no `patch_um`: pass tile_um="),
        ({"model": "ghist", "encoder": "morphology"}, "'ghist' reads .* itself and has no `encoder`"),
    ],
)
def test_arguments_of_other_models_are_refused(sections, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        tl.fit(sections[0], progress=False, **arguments)


def test_one_label_image_for_several_sections_is_refused(sections) -> None:
    train = concat(sections[:2])
    with pytest.raises(ValueError, match="One label image was given as `nuclei` for 2 sections"):
        fitted(train, nuclei=nuclei_of(train)["section_0"])


def test_what_is_between_spots_is_not_there(sections, model) -> None:
    with pytest.raises(ValueError, match="reads tiles"):
        tl.attention(sections[2], model, genes=["gene_0001"], progress=False)
