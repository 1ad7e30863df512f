"""GHIST that only sums over spots teach: by spot it predicts the sums, by nucleus what makes them up."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from hist2scrna import tl
from hist2scrna.datasets import simulate
from hist2scrna.io import concat

GENES, SPOT, PITCH, PX = 20, 30.0, 33.0, 48


def spots_of(cells: ad.AnnData) -> ad.AnnData:
    """Spots on a square lattice, which count what the cells in them count; pixels are microns."""
    (library,) = cells.obs["library_id"].astype(str).unique()
    entry, xy = cells.uns["spatial"][library], cells.obsm["spatial"]
    low, high = xy.min(axis=0) + PITCH / 2, xy.max(axis=0)
    places = np.stack(np.meshgrid(*(np.arange(*ends, PITCH) for ends in zip(low, high, strict=True))), axis=-1)
    places = places.reshape(-1, 2)
    distance, spot = cKDTree(places).query(xy)
    inside = np.flatnonzero(distance <= SPOT / 2)
    member = sparse.csr_array((np.ones(len(inside)), (spot[inside], inside)), shape=(len(places), len(xy)))
    names = [f"{library}_spot{i}" for i in range(len(places))]
    return ad.AnnData(
        sparse.csr_matrix(member @ cells.X, dtype=np.float32),
        obs=pd.DataFrame({"library_id": pd.Categorical([library] * len(places))}, index=names),
        var=cells.var.copy(),
        obsm={"spatial": places},
        uns={"spatial": {library: {**entry, "scalefactors": {**entry["scalefactors"], "spot_diameter_fullres": SPOT}}}},
    )


def nuclei_of(cells: ad.AnnData) -> ad.AnnData:
    return cells[:, :0].copy()


def fitted(sections: list[ad.AnnData], *, epochs: int = 1, **arguments: Any) -> Any:
    spots, nuclei = (concat([make(section) for section in sections]) for make in (spots_of, nuclei_of))
    training = {"max_epochs": epochs, "validation": 0, "accelerator": "cpu"}
    options = {"tile_px": PX, "tile_um": float(PX), "training": training, **arguments}
    return tl.fit(spots, model="ghist", preset="tiny", nuclei=nuclei, progress=False, **options)


@pytest.fixture(scope="module")
def sections() -> list[ad.AnnData]:
    return simulate(n_sections=2, n_spots=80, n_genes=GENES, level="cell", mpp=1.0, seed=3)


@pytest.fixture(scope="module")
def model(sections) -> Any:
    return fitted(sections[:1], likelihood="nb", labels_key="cell_type")


@pytest.mark.filterwarnings("ignore:.*have no nucleus in them", "ignore:.*that have no count in the chosen genes")
def test_spots_and_nuclei_are_predicted_and_scored(sections, model, tmp_path) -> None:
    test, spots = sections[1], spots_of(sections[1])
    assert model.options["supervision"] == "spot"
    assert {"train_map", "train_cell_type", "train_library"} <= set(model.history)
    assert "train_embedding" not in model.history
    rows = spots_of(sections[0])
    inside = cKDTree(rows.obsm["spatial"]).query(sections[0].obsm["spatial"])[0] <= SPOT / 2
    assert f"spots ({inside.sum()} nuclei) of section_0\n" in repr(model) and "spots of 30 um" in repr(model)
    model.save(tmp_path / "model")
    by_spot = tl.predict(spots, tmp_path / "model", nuclei=nuclei_of(test), progress=False, copy=True)
    number = by_spot.obs["hist2scrna_n_nuclei"].to_numpy()
    inside = cKDTree(spots.obsm["spatial"]).query(test.obsm["spatial"])[0] <= SPOT / 2
    assert number.sum() == inside.sum()
    np.testing.assert_array_equal(np.isnan(by_spot.X).all(axis=1), number == 0)
    np.testing.assert_array_equal(by_spot.obs["hist2scrna_cell_type"].isna(), number == 0)
    shares = by_spot.obsm["hist2scrna_cell_type_probability"].to_numpy()[number > 0]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    # Training begins at the mean of a nucleus, and one epoch stays near it: spots grow with their nuclei.
    assert np.corrcoef(by_spot.X[number > 0].sum(axis=1), number[number > 0])[0, 1] > 0.7
    by_nucleus = tl.predict(nuclei_of(test), model, progress=False)
    assert by_nucleus.shape == (80, GENES) and np.isfinite(by_nucleus.X).all()
    found = tl.evaluate(spots, model, nuclei=nuclei_of(test), progress=False)
    assert found.results["data"]["n_spots"] == (number > 0).sum()


@pytest.mark.filterwarnings("ignore:.*have no nucleus in them", "ignore:.*that have no count in the chosen genes")
def test_small_scattered_spots_are_spots(sections) -> None:
    spots = spots_of(sections[0])
    rng = np.random.default_rng(0)
    spots.obsm["spatial"] = spots.obsm["spatial"] + rng.uniform(-6, 6, spots.obsm["spatial"].shape)
    spots.uns["spatial"]["section_0"]["scalefactors"]["spot_diameter_fullres"] = 20.0
    training = {"max_epochs": 1, "validation": 0, "accelerator": "cpu"}
    options = {"preset": "tiny", "tile_px": PX, "tile_um": float(PX), "training": training, "progress": False}
    model = tl.fit(spots, model="ghist", nuclei=nuclei_of(sections[0]), **options)
    assert model.training["unit"] == {"kind": "spot", "um": 20.0}
    # What is predicted are nuclei, of their own size, or sums of these: neither is a spot of another size.
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The model was trained on spots")
        tl.predict(nuclei_of(sections[1]), model, progress=False)
        tl.predict(spots_of(sections[1]), model, nuclei=nuclei_of(sections[1]), progress=False, copy=True)


@pytest.mark.parametrize("likelihood", ["mse", "nb"])
def test_a_spot_is_the_sum_of_its_nuclei(sections, likelihood) -> None:
    model = fitted(sections[:1], likelihood=likelihood)
    cells = sections[1].copy()
    # One tile that is the whole image: alone and in a spot, nuclei are seen alike.
    corner = np.round(cells.obsm["spatial"].mean(axis=0)).astype(int) - PX // 2
    (x, y), entry = corner, cells.uns["spatial"]["section_1"]
    entry["images"]["hires"] = entry["images"]["hires"][y : y + PX, x : x + PX]
    cells.obsm["spatial"] = cells.obsm["spatial"] - corner
    cells = cells[((cells.obsm["spatial"] > 0) & (cells.obsm["spatial"] < PX)).all(axis=1)].copy()
    inside = np.linalg.norm(cells.obsm["spatial"] - PX / 2, axis=1) <= SPOT / 2
    spot = spots_of(cells)[:1].copy()
    spot.obsm["spatial"] = np.full((1, 2), PX / 2)
    single = tl.predict(nuclei_of(cells), model, progress=False)
    whole = tl.predict(spot, model, nuclei=nuclei_of(cells), progress=False, copy=True)
    assert whole.obs["hist2scrna_n_nuclei"].tolist() == [inside.sum()] and inside.sum() > 1
    np.testing.assert_allclose(whole.X[0], single.X[inside].sum(axis=0), rtol=1e-4, atol=1e-5)


def test_what_sums_do_not_tell_is_refused(sections) -> None:
    with pytest.raises(ValueError, match="sum of zero-inflated counts over a spot is none: pass likelihood='nb'"):
        fitted(sections[:1], likelihood="zinb")
    with pytest.raises(KeyError, match="'niche' not found in nuclei.obs.*cell types are those of the nuclei"):
        fitted(sections[:1], labels_key="niche")
    with pytest.raises(ValueError, match="'stnet' has no `nuclei`"):
        tl.fit(spots_of(sections[0]), model="stnet", nuclei=nuclei_of(sections[0]), progress=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*have no", "ignore:.*are unlike the training tissue")
def test_nuclei_of_the_training_image_are_like_the_training() -> None:
    """Spots are seen in the middle of their tiles, their nuclei anywhere in one, at the rim with much glass."""
    own, further = simulate(n_sections=2, n_spots=200, n_genes=GENES, level="cell", mpp=1.0, seed=4)
    model = fitted([own], likelihood="nb", tile_px=64, tile_um=64.0)

    def unlike(cells: ad.AnnData) -> float:
        return (tl.predict(nuclei_of(cells), model, progress=False).obs["hist2scrna_tissue_distance"] > 1).mean()

    assert unlike(own) < 0.05 and unlike(further) < 0.05
    entry = further.uns["spatial"]["section_1"]
    blurred = gaussian_filter(np.asarray(entry["images"]["hires"]).astype(float), 3, axes=(0, 1)).astype(np.uint8)
    further.uns["spatial"]["section_1"] = {**entry, "images": {"hires": blurred}}
    assert unlike(further) > 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*have no nucleus in them", "ignore:.*that have no count in the chosen genes")
def test_sums_teach_what_single_nuclei_express() -> None:
    *train, test = simulate(n_sections=4, n_spots=600, n_genes=GENES, level="cell", mpp=1.0, seed=3)
    model = fitted(train, epochs=15, likelihood="nb")
    predicted, truth = (
        np.log1p(values) for values in (tl.predict(nuclei_of(test), model, progress=False).X, test.layers["true_mean"])
    )
    correlation = [np.corrcoef(predicted[:, gene], truth[:, gene])[0, 1] for gene in range(GENES)]
    assert np.mean(correlation) > 0.25
    mean = np.log1p(np.vstack([section.layers["true_mean"] for section in train])).mean(axis=0)
    assert np.square(predicted - truth).mean() < 0.7 * np.square(mean - truth).mean()
