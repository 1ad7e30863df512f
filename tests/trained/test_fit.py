"""Training: it learns, it repeats, it splits without leaks, and leaves what it was given alone."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from builders import fast, spots_of
from scipy import sparse

from hist2scrna import Neighbors, TrainedModel, Training, report
from hist2scrna.fitting.closed_form.folds import left_out_groups
from hist2scrna.fitting.split import split_spots
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.sections import read_groups
from hist2scrna.tl import evaluate, fit, predict


@pytest.fixture
def sections(make_section):
    parts = [make_section(f"s{i}", seed=i) for i in range(4)]
    return ad.concat(parts, uns_merge="unique")


def weights(model):
    return {k: v.clone() for k, v in model.module.state_dict().items()}


def same(left, right):
    return all(torch.equal(left[k], right[k]) for k in left)


def test_same_seed_same_weights_and_global_state_untouched(make_section):
    adata = make_section()
    torch.manual_seed(77)
    before = torch.random.get_rng_state()
    first = weights(fit(adata, **fast(seed=1, max_epochs=2)))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(3)
    assert same(first, weights(fit(adata, **fast(seed=1, max_epochs=2))))
    assert not same(first, weights(fit(adata, **fast(seed=2, max_epochs=2))))


def test_training_learns_what_the_picture_shows(sections):
    """Purple spots have four times the counts of pink ones: the loss falls, and the cell type is read off."""
    model = fit(sections, **fast(library_key="library_id", labels_key="cell_type", lr=2e-3, seed=0, max_epochs=12))
    history = model.history
    assert history["validation_loss"].min() < history["validation_loss"].iloc[0] - 0.1
    assert history["validation_cell_type"].iloc[-1] < 0.2 < np.log(2)
    assert model.training["best_epoch"] == history["validation_loss"].idxmin()
    assert history.index.name == "epoch"
    assert model.classes == ["stroma", "tumor"]


def test_start_is_the_mean_baseline(make_section):
    """Before its first step the network predicts the training means at the median library size."""
    adata = make_section()
    model = fit(adata, **fast(lr=1e-12, validation=0, max_epochs=1))
    out = model.predict(adata.copy(), library_size="median", layers=["mu"], progress=False)
    counts = adata.X.toarray()
    rate = counts.sum(axis=0) / counts.sum()
    expected = np.median(counts.sum(axis=1)) * rate
    np.testing.assert_allclose(out.layers["hist2scrna_mu"].mean(axis=0), expected, rtol=0.15, atol=0.05)


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson", "mse"])
def test_every_likelihood_trains(make_section, likelihood):
    model = fit(make_section(), **fast(likelihood=likelihood, lr=3e-3, max_epochs=8))
    assert model.likelihood == likelihood
    assert model.history["train_expression"].iloc[-1] < model.history["train_expression"].iloc[0]


def test_features_need_no_picture(make_section):
    adata = make_section()
    rng = np.random.default_rng(0)
    adata.obsm["uni"] = rng.normal(size=(adata.n_obs, 9)) + adata.obs["cell_type"].cat.codes.to_numpy()[:, None]
    del adata.uns["spatial"]
    model = fit(adata, **fast(model="hist2scrna-lightweight", features_key="uni", labels_key="cell_type", max_epochs=3))
    assert model.geometry is None
    out = model.predict(adata, progress=False)
    assert np.isfinite(out.layers["hist2scrna_mean"]).all()
    wide = adata.copy()
    wide.obsm["uni"] = np.ones((adata.n_obs, 4))
    with pytest.raises(ValueError, match=r"obsm\['uni'\].*\(n_obs, 9\).*\(40, 4\)"):
        model.predict(wide, progress=False)


def test_genes_by_name_by_column_and_by_default(make_section):
    adata = make_section()
    adata.var["chosen"] = [i in (1, 4) for i in range(12)]
    assert choose_genes(adata, None) == list(adata.var_names)
    assert choose_genes(adata, "chosen") == ["g1", "g4"]
    assert choose_genes(adata, ["g4", "g1"]) == ["g4", "g1"]
    adata.layers["raw"] = adata.X.toarray().astype(int)
    left, right = (read_counts(adata, ["g4", "g1"], layer).toarray() for layer in (None, "raw"))
    np.testing.assert_array_equal(left, adata[:, ["g4", "g1"]].X.toarray())
    np.testing.assert_array_equal(left, right)


def test_nothing_is_written_to_the_input(make_section):
    adata = make_section()
    before = adata.copy()
    fit(adata, **fast(labels_key="cell_type", max_epochs=2))
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert list(adata.obsm) == list(before.obsm) and list(adata.obsp) == [] and list(adata.uns) == ["spatial"]


def small_patches_of(adata, library_key="library_id"):
    return spots_of(adata, library_key=library_key, patch_px=8)


def test_whole_sections_are_held_out(sections):
    spots = small_patches_of(sections)
    usable = np.ones(len(spots), dtype=bool)
    training, validating, how = split_spots(spots, usable, 0.1, 2, seed=0)
    assert len(set(spots.section[validating])) == 1
    assert not set(spots.section[validating]) & set(spots.section[training])
    assert len(training) + len(validating) == len(spots)
    assert "held-out sections" in how
    named = split_spots(spots, usable, ["s2", "s3"], 2, seed=0)[1]
    assert set(spots.section[named]) == {2, 3}


def test_whole_groups_are_held_out(make_section):
    adata = ad.concat([make_section(f"s{i}", seed=i, n_spots=16) for i in range(6)], uns_merge="unique")
    adata.obs["donor"] = adata.obs["library_id"].astype(str).map(lambda name: "abc"[int(name[1]) // 2])
    spots = small_patches_of(adata)
    spots.groups, spots.group = read_groups(adata, "library_id", "donor")
    usable = np.ones(len(spots), dtype=bool)
    held = set()
    for seed in range(8):
        training, validating, how = split_spots(spots, usable, 0.1, 2, seed)
        (donor,) = set(adata.obs["donor"].iloc[validating])
        assert donor not in set(adata.obs["donor"].iloc[training])
        assert len(training) + len(validating) == len(spots)
        assert how == f"held-out groups: {donor}"
        held.add(donor)
    assert len(held) > 1
    np.testing.assert_array_equal(left_out_groups(spots, np.arange(len(spots))).number, spots.section // 2)
    # Of one donor, its sections; of one section, blocks of a fifth of its spots, rounded up: here four.
    assert set(left_out_groups(spots, np.flatnonzero(spots.group == 1)).number) == {2, 3}
    assert len(set(left_out_groups(spots, np.flatnonzero(spots.section == 1)).number)) == 4


def test_a_section_of_two_groups_is_refused(sections):
    sections.obs["donor"] = np.where(np.arange(sections.n_obs) % 2, "odd", "even")
    with pytest.raises(ValueError, match="'s0' lies in 2 groups of adata.obs"):
        fit(sections, **fast(library_key="library_id", group_key="donor", max_epochs=2))


@pytest.mark.parametrize("gap", [1, 2])
def test_blocks_of_one_section_are_held_out_with_a_gap(make_section, gap):
    from scipy.sparse.csgraph import shortest_path

    spots = small_patches_of(make_section(n_spots=64), None)
    usable = np.ones(64, dtype=bool)
    usable[3] = False
    for seed in range(5):
        training, validating, how = split_spots(spots, usable, 0.2, gap, seed)
        assert 5 <= len(validating) <= 13
        assert 3 not in {*training, *validating}
        distance = shortest_path(spots.graph.adjacency, unweighted=True)
        assert distance[np.ix_(training, validating)].min() == gap + 1
        assert f"gap of {gap}" in how


def test_early_stopping_keeps_the_best_epoch(sections):
    """At a learning rate that ruins the model, the first epochs win."""
    model = fit(sections, **fast(library_key="library_id", lr=0.5, patience=2, max_epochs=30))
    best = model.training["best_epoch"]
    assert len(model.history) == best + 3 < 30


def test_warm_start_goes_on_where_the_other_stopped(sections, tmp_path):
    long = fit(sections, **fast(library_key="library_id", lr=2e-3, max_epochs=8))
    long.save(tmp_path / "m")
    cold = fit(sections, **fast(library_key="library_id", lr=1e-5, max_epochs=2))
    for start in (long, tmp_path / "m"):
        warm = fit(sections, **fast(library_key="library_id", lr=1e-5, init_from=start, max_epochs=2))
        assert warm.history["validation_loss"].iloc[0] < cold.history["validation_loss"].iloc[0]
    with pytest.raises(ValueError, match="another architecture.*Pass the same"):
        fit(sections, **fast(library_key="library_id", init_from=long, width=48, max_epochs=2))


def test_warm_start_matches_genes_and_classes_by_name(make_section):
    adata = make_section()
    first = fit(adata, **fast(labels_key="cell_type", max_epochs=2))
    more = adata[:, ["g5", "g2"]].copy()
    more.obs["cell_type"] = more.obs["cell_type"].cat.add_categories("new")
    more.obs.iloc[:3, more.obs.columns.get_loc("cell_type")] = "new"
    second = fit(more, **fast(labels_key="cell_type", init_from=first, lr=1e-12, max_epochs=1))
    assert second.classes == ["stroma", "tumor", "new"]
    rates = [m.module.heads.rate.weight for m in (first, second)]
    torch.testing.assert_close(rates[1], rates[0][[5, 2]])
    types = [m.module.heads.cell_type.weight for m in (first, second)]
    torch.testing.assert_close(types[1][:2], types[0])
    other = adata.copy()
    other.var_names = [f"ENS{i}" for i in range(12)]
    with pytest.raises(ValueError, match="shares no gene"):
        fit(other, **fast(init_from=first, max_epochs=2))


def test_best_model_so_far_is_kept_on_disk(make_section, tmp_path):
    model = fit(make_section(), **fast(checkpoint_dir=tmp_path, max_epochs=2))
    assert same(weights(TrainedModel.load(tmp_path / "best")), weights(model))


def test_spots_without_counts_are_neighbors_only(make_section):
    adata = make_section()
    matrix = adata.X.toarray()
    matrix[7] = 0
    adata.X = matrix
    with pytest.warns(UserWarning, match="no count in the chosen genes are not trained on.*: 1 of 40"):
        model = fit(adata, **fast(validation=0, max_epochs=2))
    assert model.training["n_training"] == 39
    assert np.isfinite(model.predict(adata, progress=False).layers["hist2scrna_mean"]).all()


def test_mixed_precision_and_accumulation_train(make_section):
    model = fit(make_section(), **fast(precision="bf16-mixed", accumulate=2, batch_size=8, max_epochs=2))
    assert np.isfinite(model.history["train_loss"]).all()


def test_custom_loss_is_minimized(make_section):
    """A term that pulls the dropout towards one ends in more dropout than without it."""
    adata = make_section()

    def no_zeros(prediction, batch):
        return (1 - prediction.dropout).mean()

    with_term, without = (
        fit(adata, **fast(losses=losses, max_epochs=5, lr=3e-3)) for losses in ({"mine": (no_zeros, 50.0)}, None)
    )
    means = [m.predict(adata.copy(), progress=False).layers["hist2scrna_dropout"].mean() for m in (with_term, without)]
    assert means[0] > means[1] + 0.05
    assert with_term.parameters["losses"] == {"mine": 50.0}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"epochs": 3}, r"no argument `epochs`\. Did you mean training=\{'max_epochs': \.\.\.\}\?"),
        ({"max_epoch": 3}, r"no argument `max_epoch`\. Did you mean training=\{'max_epochs': \.\.\.\}\?"),
        ({"neighbours": "knn"}, r"no argument `neighbours`\. Did you mean neighbors=\?"),
        ({"depht": 2}, r"no argument `depht`\. Did you mean depth=\?"),
        ({"training": {"epochs": 3}}, "field of `training` 'epochs'. Did you mean 'max_epochs'"),
    ],
)
def test_a_misspelled_argument_is_met_with_the_nearest(make_section, wrong, right):
    with pytest.raises(ValueError, match=right):
        fit(make_section(), model="hist2scrna", preset="tiny", **wrong)


def test_misspelled_fields_are_met_with_the_nearest():
    with pytest.raises(ValueError, match="'epochs'. Did you mean 'max_epochs'"):
        Training(epochs=3)
    with pytest.raises(ValueError, match="'n_neighbours'. Did you mean 'n_neighbors'"):
        Neighbors(n_neighbours=6)


@pytest.mark.parametrize("call", [fit, lambda given: predict(given, "m"), lambda given: evaluate(given, "m")])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a/b.h5ad", r"the path 'a/b.h5ad'. Read it first: anndata.read_h5ad\('a/b.h5ad'\)"),
        (Path("b.zarr"), r"anndata.read_zarr\('b.zarr'\)"),
        (Path(__file__).parent, r"the folder .* hist2scrna.io.read_visium\("),
        ([1, 2], r"a list of 2. Join several first: hist2scrna.io.concat"),
        (pd.DataFrame(), "found DataFrame"),
    ],
)
def test_what_is_no_anndata_is_refused_with_the_way_to_make_one(call, given, message):
    with pytest.raises(TypeError, match=message):
        call(given)


@pytest.mark.parametrize("name", ["kernel", "ridge", "hist2scrna"])
def test_counts_are_only_read(make_section, name):
    """Those of all genes in CSR are not copied."""
    adata = make_section()
    adata.obsm["told"] = np.random.default_rng(0).normal(size=(adata.n_obs, 4))
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    for array in (adata.X.data, adata.X.indices, adata.X.indptr):
        array.flags.writeable = False
    how = fast() if name == "hist2scrna" else {"model": name, "features_key": "told", "progress": False}
    evaluate(predict(adata, fit(adata, **how), progress=False), progress=False)


@pytest.fixture(scope="module")
def noise(make_section):
    """A section with features that tell nothing of its counts, and with others that tell the cell type."""
    adata = make_section(n_spots=120)
    adata.obsm["noise"] = np.random.default_rng(5).normal(size=(adata.n_obs, 6))
    adata.obsm["told"] = adata.obsm["noise"] + 9 * adata.obs["cell_type"].cat.codes.to_numpy()[:, None]
    return adata


@pytest.mark.parametrize("name", ["kernel", "ridge"])
def test_a_useless_fit_is_warned_of_and_stays_known(noise, tmp_path, name):
    with pytest.warns(
        UserWarning, match=r"explains nothing of .* \(-?[1-9]?\d*%\).* no better than the mean .* Check that"
    ) as said:
        model = fit(noise, model=name, features_key="noise", progress=False)
    assert [w.filename for w in said if "no better" in str(w.message)] == [__file__]
    again = TrainedModel.load(model.save(tmp_path / "m"))
    assert again.training["variance_explained"] == model.training["variance_explained"] < 0.01
    assert "WARNING     The fit explains" in repr(again)
    page = report(evaluate(predict(noise.copy(), again, progress=False), again, progress=False), tmp_path / "page.html")
    assert "A fit that explains nothing" in Path(page).read_text()


@pytest.mark.parametrize("name", ["kernel", "ridge"])
def test_a_useful_fit_is_not_warned_of(noise, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = fit(noise, model=name, features_key="told", progress=False)
    assert "explains" in repr(model) and "WARNING" not in repr(model)
    assert 0.02 < model.training["variance_explained"] < 1
