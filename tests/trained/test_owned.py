"""A prediction owns its key: nothing of an earlier one stays beside it, and nothing of others is replaced."""

from __future__ import annotations

import numpy as np
import pytest
from builders import fast

from hist2scrna import keys
from hist2scrna.tl import evaluate, fit, predict
from hist2scrna.trained.owned import slots

QUIET = {"progress": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def models(make_section):
    """Two that write different things: counts with cell types, and log-normalized expression of half of the genes."""
    adata = make_section()
    rich = fit(adata, labels_key="cell_type", **fast())
    return rich, fit(adata, genes=list(adata.var_names[:6]), likelihood="mse", seed=3, **fast())


def written(adata):
    return {slot: sorted(set(names) & set(getattr(adata, slot))) for slot, names in slots(keys.OutputKeys()).items()}


@pytest.mark.parametrize("in_a_file", [False, True])
def test_what_the_first_model_wrote_goes_where_the_second_does_not_write_it(models, make_section, tmp_path, in_a_file):
    rich, plain = models
    alone = predict(make_section(seed=2), plain, **QUIET)
    both = predict(make_section(seed=2), rich, layers=["mean", "mu", "dropout", "dispersion"], **QUIET)
    assert "hist2scrna_mu" in both.layers and "hist2scrna_cell_type" in both.obs
    both.obs["mine"] = 1.0
    both = predict(both, plain, store=tmp_path / "x.zarr" if in_a_file else None, **QUIET)
    assert written(both) == written(alone)
    assert "mine" in both.obs and "X" not in both.obsm
    np.testing.assert_array_equal(np.asarray(both.layers["hist2scrna_mean"]), alone.layers["hist2scrna_mean"])
    assert both.uns["hist2scrna"]["likelihood"] == "mse"


def test_another_key_leaves_the_first_prediction(models, make_section):
    rich, plain = models
    adata = predict(make_section(), rich, **QUIET)
    before = {slot: list(names) for slot, names in written(adata).items()}
    predict(adata, plain, key_added="second", **QUIET)
    assert written(adata) == before and "second_mean" in adata.layers


def test_every_slot_that_predict_writes_is_known_as_its_own(models, make_section):
    adata = make_section()
    there = {slot: set(getattr(adata, slot)) for slot in ("layers", "obs", "obsm", "var", "uns", "obsp", "varm")}
    predict(adata, models[0], layers=list(keys.LAYERS), **QUIET)
    own = {slot: set(names) for slot, names in slots(keys.OutputKeys()).items()}
    for slot, names in there.items():
        assert set(getattr(adata, slot)) - names <= own.get(slot, set()), slot


def test_without_uns_it_is_still_known_as_a_prediction(models, make_section):
    adata = predict(make_section(), models[0], **QUIET)
    del adata.uns["hist2scrna"]
    predict(adata, models[1], **QUIET)
    assert "hist2scrna_cell_type" not in adata.obs


def test_an_evaluation_knows_who_predicted(models, make_section):
    adata = predict(make_section(), models[0], **QUIET)
    with pytest.raises(ValueError, match="another model made, a 'hist2scrna' trained on s0"):
        evaluate(adata, fit(make_section(seed=5), labels_key="cell_type", seed=9, **fast()), progress=False)
