"""Types move towards the composition of their tile, by noise of a seed, and nothing else moves."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

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


def test_what_cannot_be_refined_is_refused(nuclei) -> None:
    with pytest.raises(ValueError, match="Unknown cell type 'Myeloid'"):
        refine_types(nuclei)
    with pytest.raises(ValueError, match="two or more `types`"):
        refine_types(nuclei, ["B"])
    with pytest.raises(ValueError, match="a `strength` of 0 or more"):
        refine_types(nuclei, ["B", "T"], strength=-1)
    del nuclei.obs["hist2scrna_tile"]
    with pytest.raises(KeyError, match="Predict nuclei with a model on tiles"):
        refine_types(nuclei, ["B", "T"])
    assert "hist2scrna_refined_cell_type" not in nuclei.obs
