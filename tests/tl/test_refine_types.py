"""Types move towards the composition of their tile, by noise of a seed, and nothing else moves."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from hist2scrna import TrainedModel, tl
from hist2scrna.datasets import simulate
from hist2scrna.tl import refine_types

CLASSES = ["B", "Malignant", "T"]


@pytest.fixture
def nuclei() -> ad.AnnData:
    """Two tiles of 200 nuclei that look like B; by its composition, half of the second is T. The last has no type."""
    rng = np.random.default_rng(0)
    probability = rng.dirichlet([6, 1, 4], 400)
    probability[0] = [0.1, 0.8, 0.1]
    probability[-1] = np.nan
    composition = np.repeat([[0.0, 0.0, 0.0], [0.5, 0.0, 0.5]], 200, axis=0)
    composition[:200] = np.eye(3)[probability[:200].argmax(axis=1)].mean(axis=0)
    obs = pd.DataFrame({"hist2scrna_tile": np.repeat([3, 8], 200)}, index=[f"n{i}" for i in range(400)])
    frames = {
        "hist2scrna_cell_type_probability": pd.DataFrame(probability, index=obs.index, columns=CLASSES),
        "hist2scrna_composition": pd.DataFrame(composition, index=obs.index, columns=CLASSES),
    }
    return ad.AnnData(obs=obs, obsm=frames)


def test_types_move_towards_the_composition(nuclei) -> None:
    best = np.array(CLASSES)[np.nan_to_num(nuclei.obsm["hist2scrna_cell_type_probability"].to_numpy()).argmax(axis=1)]
    found = refine_types(nuclei, ["B", "T"], strength=0.05).obs["hist2scrna_refined_cell_type"].astype(object)
    # The first tile shows what its composition says.
    np.testing.assert_array_equal(found[:200], best[:200])
    before, after = ((types[200:399] == "T").mean() for types in (best, found.to_numpy()))
    assert before < 0.4 < after
    assert pd.isna(found.iloc[-1])
    np.testing.assert_array_equal(found.to_numpy() == "Malignant", np.append(best[:-1] == "Malignant", False))
    again = refine_types(nuclei, ["B", "T"], strength=0.05).obs["hist2scrna_refined_cell_type"].astype(object)
    pd.testing.assert_series_equal(again, found)
    other = refine_types(nuclei, ["B", "T"], strength=0.05, seed=1).obs["hist2scrna_refined_cell_type"].astype(object)
    assert (other != found)[:-1].any()
    none = refine_types(nuclei, ["B", "T"], strength=0).obs["hist2scrna_refined_cell_type"].astype(object)
    np.testing.assert_array_equal(none[:-1], best[:-1])


def test_nuclei_that_are_surely_of_a_type_stay(nuclei) -> None:
    probability = nuclei.obsm["hist2scrna_cell_type_probability"]
    found = refine_types(nuclei, ["B", "T"], strength=100, sure={"B": 0.5}).obs["hist2scrna_refined_cell_type"]
    assert (found[probability["B"] > 0.5] == "B").all()
    assert (found[200:399] == "T").any()


def test_all_of_some_types_move_towards_one_and_an_earlier_change_stays(nuclei) -> None:
    probability = nuclei.obsm["hist2scrna_cell_type_probability"]
    best = probability.iloc[:-1].idxmax(axis=1).to_numpy()
    nuclei.obsm["hist2scrna_composition"]["Malignant"] = 0.3
    earlier = refine_types(nuclei, ["B", "T"], strength=0.05).obs["hist2scrna_refined_cell_type"].astype(object)
    assert (earlier[:-1] != best).any()
    how = {"toward": "Malignant", "strength": 1e6}
    found = refine_types(nuclei, ["Malignant", "T"], keep_earlier=True, **how).obs["hist2scrna_refined_cell_type"]
    # Surely a T or not: none stays.
    np.testing.assert_array_equal(found[:-1], np.where(best == "T", "Malignant", earlier[:-1]))
    assert pd.isna(found.iloc[-1])
    anew = refine_types(nuclei, ["Malignant", "T"], **how).obs["hist2scrna_refined_cell_type"]
    np.testing.assert_array_equal(anew[:-1], np.where(best == "T", "Malignant", best))


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return simulate(n_sections=1, n_spots=80, n_genes=12, level="cell", mpp=1.0, seed=3)[0]


def fitted(cells: ad.AnnData, seed: int = 0, **options: object) -> TrainedModel:
    training = {"max_epochs": 1, "batch_size": 4, "accelerator": "cpu", "validation": 0}
    how = {"preset": "tiny", "tile_px": 48, "tile_um": 48.0, "labels_key": "cell_type", "progress": False, **options}
    return tl.fit(cells, model="ghist", nuclei=cells.uns["simulation"]["nuclei"], training=training, seed=seed, **how)


def published_head(state: dict, head: str, z: np.ndarray) -> np.ndarray:
    """ln(1 + count) by a head without reference profiles, times five, step by step."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ state[f"expression.{head}.{name}.weight"].numpy().T + state[f"expression.{head}.{name}.bias"].numpy()

    m = np.maximum(linear("mixture.2", np.maximum(linear("mixture.0", z), 0)), 0)
    for layer in range(4):
        m = linear(f"refine.{layer}", m)
    return np.maximum(m, 0)


@pytest.mark.filterwarnings("ignore:.*have no nucleus on the image", "ignore:.*have no count in the chosen genes")
def test_what_changed_to_a_special_type_takes_the_expression_of_its_head(cells) -> None:
    model = fitted(cells, special={"immune": ("lymphoid",), "absent": ("Malignant",)})
    nuclei = tl.predict(cells.copy(), model, nuclei=cells.uns["simulation"]["nuclei"], progress=False)
    probability = nuclei.obsm["hist2scrna_cell_type_probability"]
    kinds = list(probability.columns)
    rng = np.random.default_rng(0)
    probability[:] = rng.dirichlet(np.ones(len(kinds)), len(probability)).astype(np.float32)
    nuclei.obsm["hist2scrna_composition"][:] = [0.5 * (kind in ("lymphoid", "stromal")) for kind in kinds]
    predicted = nuclei.layers["hist2scrna_mean"].copy()
    refine_types(nuclei, ["lymphoid", "stromal", "epithelial"], strength=0.5, model=model)
    found = nuclei.obs["hist2scrna_refined_cell_type"].astype(object).to_numpy()
    best = np.array(kinds)[probability.to_numpy().argmax(axis=1)]
    changed = (found != best) & (found == "lymphoid")
    assert 2 < changed.sum() < (found != best).sum() and (found == "lymphoid").sum() > changed.sum()
    refined = nuclei.layers["hist2scrna_refined_mean"]
    z = nuclei.obsm["X_hist2scrna"][changed]
    expected = np.expm1(published_head(model.module.state_dict(), "immune", z) / 5)
    np.testing.assert_allclose(refined[changed], expected, rtol=1e-3, atol=1e-5)
    assert np.abs(refined[changed] - predicted[changed]).max() > 0.01
    np.testing.assert_array_equal(refined[~changed], predicted[~changed])
    np.testing.assert_array_equal(nuclei.layers["hist2scrna_mean"], predicted)
    refine_types(nuclei, ["lymphoid", "stromal"])
    assert "hist2scrna_refined_mean" not in nuclei.layers
    with pytest.raises(ValueError, match="not of this model"):
        refine_types(nuclei, ["lymphoid", "stromal"], model=fitted(cells, seed=1, special={"immune": ("lymphoid",)}))
    with pytest.raises(ValueError, match="has no head of expression for some types alone"):
        refine_types(nuclei, ["lymphoid", "stromal"], model=fitted(cells, special=None))
    assert "hist2scrna_refined_mean" not in nuclei.layers


def test_what_cannot_be_refined_is_refused(nuclei) -> None:
    with pytest.raises(ValueError, match="Unknown cell type 'Myeloid'"):
        refine_types(nuclei)
    with pytest.raises(ValueError, match="two or more `types`"):
        refine_types(nuclei, ["B"])
    with pytest.raises(ValueError, match="Unknown type in `toward` 'Malignant'"):
        refine_types(nuclei, ["B", "T"], toward="Malignant")
    with pytest.raises(KeyError, match="what an earlier call of this function left"):
        refine_types(nuclei, ["B", "T"], keep_earlier=True)
    with pytest.raises(ValueError, match="a `strength` of 0 or more"):
        refine_types(nuclei, ["B", "T"], strength=-1)
    del nuclei.obs["hist2scrna_tile"]
    with pytest.raises(KeyError, match="Predict nuclei with a model on tiles"):
        refine_types(nuclei, ["B", "T"])
    assert "hist2scrna_refined_cell_type" not in nuclei.obs
