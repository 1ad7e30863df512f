"""hist2RNA as users meet it: slides with bulk or pseudobulk; what fits, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import hist2scrna as h2s
from hist2scrna.models import create_model
from hist2scrna.models.registry import model_entry

QUICK = {"model": "hist2rna", "progress": False}
FEW_EPOCHS = {"max_epochs": 3, "accelerator": "cpu"}


@pytest.fixture
def slides() -> AnnData:
    """Slides whose expression follows their features, in values that are not whole."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    bulk = np.exp2(5 + features @ rng.normal(size=(6, 9)) + 0.1 * rng.normal(size=(40, 9)))
    obs = pd.DataFrame(
        {"patient": [f"p{i // 2}" for i in range(40)], "subtype": pd.Categorical(["LumA", "LumB"] * 20)},
        index=[f"slide{i}" for i in range(40)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(9)])
    return AnnData(bulk.astype(np.float32), obs=obs, var=var, obsm={"X_f": features})


def test_bulk_is_learned_and_predicted_in_its_own_unit(slides, tmp_path) -> None:
    training = {"lr": 1e-3, "max_epochs": 200, "batch_size": 40, "validation": 0, "weight_decay": 0.0}
    training["accelerator"] = "cpu"
    model = h2s.tl.fit(slides, features_key="X_f", training=training, **QUICK)
    losses = model.history["train_loss"]
    assert losses.iloc[-1] < 0.1 * losses.iloc[0]
    assert model.options["target"] == "log_counts"
    predicted = h2s.tl.predict(slides.copy(), model, progress=False)
    mean = predicted.layers["hist2scrna_mean"]
    truth = np.asarray(slides.X)
    assert np.corrcoef(np.log2(1 + mean).ravel(), np.log2(1 + truth).ravel())[0, 1] > 0.9
    expected = np.log1p(1e4 * mean / mean.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(predicted.layers["hist2scrna_log_normalized"], expected, rtol=1e-4)
    about = predicted.uns["hist2scrna"]
    assert (about["scale"], about["target"], about["likelihood"]) == ("counts", "log_counts", "mse")
    assert predicted.obsm["X_hist2scrna"].shape == (40, 512)
    assert "hist2scrna_dropout" not in predicted.layers
    again = h2s.TrainedModel.load(model.save(tmp_path / "model"))
    same = again.predict(slides.copy(), progress=False)
    np.testing.assert_array_equal(same.layers["hist2scrna_mean"], mean)


def test_pseudobulk_is_normalized_unless_the_target_is_named(slides) -> None:
    slides.X = sparse.csr_matrix(np.round(slides.X))
    whole = h2s.tl.fit(slides, features_key="X_f", training=FEW_EPOCHS, **QUICK)
    assert whole.options["target"] == "log_normalized"
    predicted = h2s.tl.predict(slides.copy(), whole, progress=False)
    assert predicted.uns["hist2scrna"]["scale"] == "log_normalized"
    assert "hist2scrna_log_normalized" not in predicted.layers
    slides.uns["pooled"] = {"expression": "bulk", "features_key": "X_f"}
    measured = h2s.tl.fit(slides, training=FEW_EPOCHS, **QUICK)
    assert measured.options["target"] == "log_counts"
    slides.uns["pooled"]["expression"] = "pseudobulk"
    named = h2s.tl.fit(slides, target="log_counts", training=FEW_EPOCHS, **QUICK)
    assert named.options["target"] == "log_counts"


def test_whole_slides_and_patients_are_held_out(slides) -> None:
    model = h2s.tl.fit(slides, features_key="X_f", training=FEW_EPOCHS, **QUICK)
    assert model.training["validation"].startswith("held-out sections: slide")
    assert model.training["n_validation"] == 4
    by_patient = h2s.tl.fit(slides, features_key="X_f", group_key="patient", training=FEW_EPOCHS, **QUICK)
    assert by_patient.training["validation"].startswith("held-out groups: p")
    assert by_patient.training["n_validation"] == 4


def test_subtypes_have_a_head(slides) -> None:
    model = h2s.tl.fit(slides, features_key="X_f", labels_key="subtype", training=FEW_EPOCHS, **QUICK)
    assert model.classes == ["LumA", "LumB"]
    predicted = h2s.tl.predict(slides.copy(), model, progress=False)
    assert set(predicted.obs["hist2scrna_cell_type"]) <= {"LumA", "LumB"}


def test_models_of_counts_still_refuse_values_that_are_not_whole(slides) -> None:
    slides.uns["pooled"] = {"expression": "bulk", "features_key": "X_f"}
    for name in ("ridge", "kernel", "hist2scrna-lightweight"):
        with pytest.raises(ValueError, match="not whole numbers"):
            h2s.tl.fit(slides, model=name, progress=False)
    with pytest.raises(ValueError, match="not whole numbers"):
        h2s.tl.fit(slides, target="log_normalized", **QUICK)


def test_closed_forms_read_slides_too(slides) -> None:
    slides.X = np.round(slides.X)
    slides.uns["pooled"] = {"expression": "pseudobulk", "features_key": "X_f"}
    for name in ("ridge", "kernel"):
        model = h2s.tl.fit(slides, model=name, group_key="patient", progress=False)
        predicted = h2s.tl.predict(slides.copy(), model, progress=False)
        assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()


def test_wrong_input_is_refused(slides, make_section) -> None:
    with pytest.raises(ValueError, match="Too few slides to train on: 1 of 1 have any count.*3 are needed"):
        h2s.tl.fit(slides[:1].copy(), features_key="X_f", **QUICK)
    with pytest.raises(ValueError, match=r"adata.X is empty, but counts are needed"):
        h2s.tl.fit(AnnData(obs=slides.obs, var=slides.var, obsm=dict(slides.obsm)), features_key="X_f", **QUICK)
    with pytest.raises(KeyError, match="2 of 3 genes not found in adata.var_names: HRASLS, WISP1."):
        h2s.tl.fit(slides, features_key="X_f", genes=["g1", "HRASLS", "WISP1"], **QUICK)
    negative = slides.copy()
    negative.X[0, 0] = -1
    with pytest.raises(ValueError, match="negative values"):
        h2s.tl.fit(negative, features_key="X_f", **QUICK)
    twice = slides.copy()
    twice.obs_names = ["slide0", *twice.obs_names[1:-1], "slide0"]
    with pytest.raises(ValueError, match="1 names of slides occur more than once"):
        h2s.tl.fit(twice, features_key="X_f", **QUICK)
    with pytest.raises(ValueError, match="the rows are spots. Make slides of them: pp.pool_patches"):
        h2s.tl.fit(make_section(), **QUICK)
    slides.uns["pooled"] = {"expression": "bulk", "features_key": "X_f"}
    with pytest.raises(ValueError, match="reads the patch of each row, but the rows are slides"):
        h2s.tl.fit(slides, model="histogene", progress=False)
    with pytest.raises(ValueError, match="no patch to encode: pass features_key="):
        h2s.tl.fit(slides, encoder="imagenet", **QUICK)


def test_the_first_layer_starts_in_the_range_of_the_original() -> None:
    weight = create_model("hist2rna", n_genes=4, n_features=50).hidden["1"].weight.detach()
    bound = (5 * 50) ** -0.5
    assert weight.abs().max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    training = model_entry("hist2rna").defaults
    assert (training.optimizer, training.decay_offsets, training.weight_decay) == ("adam", True, 0.01)
    assert (training.max_epochs, training.patience, training.batch_size, training.lr) == (500, 20, 12, 1e-4)


@torch.no_grad()
def test_its_mean_is_never_below_zero() -> None:
    from hist2scrna.models import Prediction

    value = torch.tensor([[-2.0, 0.0, 3.0]])
    prediction = Prediction(embedding=torch.zeros(1, 2), value=value, log_base=2.0, target="log_counts")
    torch.testing.assert_close(prediction.mean, torch.tensor([[0.0, 0.0, 7.0]]))
