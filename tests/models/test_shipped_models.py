"""The fitted models that come with the package: listed, found by name, and used in one line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import hist2scrna as h2s
from hist2scrna.models.published import model_folder


def test_they_are_listed_with_what_they_must_not_be_used_for() -> None:
    table = h2s.models.published()
    assert "her2-breast" in table.index
    assert table.loc["her2-breast", "genes"] > 1000
    assert "diagnosis" in table.loc["her2-breast", "not for"]


def test_one_is_loaded_and_predicts_by_name(make_section) -> None:
    model = h2s.TrainedModel.load("her2-breast")
    assert model.training["donors"] == ["B", "C"]
    assert len(model.genes) == h2s.models.published().loc["her2-breast", "genes"]
    slide = make_section("new", seed=9, n_spots=9)
    # Its training knew microns by spots of 100 um; those here are 92 um wide.
    slide.uns["spatial"]["new"]["scalefactors"]["spot_diameter_fullres"] = 46.0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        out = h2s.tl.predict(slide, "her2-breast", progress=False)
    assert not [w for w in said if "Microns" in str(w.message)]
    mean = out.layers["hist2scrna_mean"]
    assert mean.shape == (9, len(model.genes))
    assert np.isfinite(mean).all()
    assert list(out.uns["hist2scrna"]["another_donor"]) == ["new"]


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(FileNotFoundError, match=r"No model at 'her2-brest'.*Did you mean 'her2-breast'"):
        model_folder("her2-brest")
    # A path is a path.
    assert str(model_folder("models/her2")) == "models/her2"
