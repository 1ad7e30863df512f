"""The kernel model: what it says of an unseen section, on features and with an encoder in front of it."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from builders import negative_binomial, spots_of
from PIL import Image
from scipy import sparse

import hist2scrna as h2s
from hist2scrna.encoders import Encoder, prepare_encoder
from hist2scrna.fitting.closed_form.spaces import SHRINKAGE, whiten
from hist2scrna.fitting.encode import encode_patches
from hist2scrna.models.kernel import KernelRegression

N_SECTIONS, SPOTS, GENES = 5, 100, 25


def draw_sections(seed: int = 0, n_sections: int = N_SECTIONS) -> ad.AnnData:
    """Sections whose counts follow two programs and the depth, all curved functions of features."""
    rng = np.random.default_rng(seed)
    n = n_sections * SPOTS
    features = rng.normal(size=(n, 6)).astype(np.float32)
    scores = np.stack([0.5 * features[:, 0], np.tanh(2 * features[:, 1]), np.cos(2 * features[:, 2])], axis=1)
    scores[:, 0] += 0.15 * rng.normal(size=n)
    world = np.random.default_rng(99)
    loadings = np.concatenate([np.ones((1, GENES)), 0.6 * world.normal(size=(2, GENES))])
    mu = np.exp(world.normal(1, 1, GENES) + scores @ loadings)
    xy = np.stack([np.arange(n) % 12, np.arange(n) // 12 % 10], axis=1) * 100.0
    adata = ad.AnnData(
        X=sparse.csr_matrix(negative_binomial(rng, mu, 5.0)),
        obs=pd.DataFrame(
            {
                "library_id": pd.Categorical(np.repeat([f"s{i}" for i in range(n_sections)], SPOTS)),
                "cell_type": pd.Categorical(np.where(features[:, 1] > 0, "tumor", "stroma")),
            },
            index=[f"spot{i}" for i in range(n)],
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]),
        obsm={"spatial": xy, "X_f": features},
    )
    adata.obs.loc[adata.obs_names[::10], "cell_type"] = np.nan
    return adata


OPTIONS = {"model": "kernel", "features_key": "X_f", "library_key": "library_id", "progress": False}


@pytest.fixture(scope="module")
def fitted() -> h2s.TrainedModel:
    return h2s.tl.fit(draw_sections(), labels_key="cell_type", **OPTIONS)


@pytest.fixture(scope="module")
def unseen() -> ad.AnnData:
    return draw_sections(seed=1, n_sections=4)


def test_an_unseen_section_is_predicted_with_honest_intervals(fitted, unseen) -> None:
    evaluation = h2s.tl.evaluate(unseen, fitted, labels_key="cell_type", library_key="library_id", progress=False)
    scores = evaluation.results
    pearson = scores["scores"]["log_normalized"]["model"]["by_gene"]
    null = scores["scores"]["log_normalized"]["depth_baseline"]["by_gene"]
    assert pearson["pearson_mean"] > null["pearson_mean"] + 0.1
    counts = scores["counts"]
    assert counts["model"]["log_likelihood"] > counts["mean_baseline"]["log_likelihood"] + 0.1
    for level, covered in counts["model"]["coverage"].items():
        assert covered == pytest.approx(float(level) / 100, abs=0.03)
    assert scores["cell_types"]["accuracy"] > 0.9


def test_what_is_written(fitted, unseen) -> None:
    slide = unseen.copy()
    out = h2s.tl.predict(slide, fitted, progress=False)
    assert out is slide
    assert {"hist2scrna_mean", "hist2scrna_dropout", "hist2scrna_log_normalized"} <= set(out.layers)
    assert out.obsm["X_hist2scrna"].shape == (len(out), fitted.module.n_programs)
    total = np.log(np.asarray(unseen.X.sum(axis=1)).ravel())
    assert np.corrcoef(np.log(out.obs["hist2scrna_library_size"]), total)[0, 1] > 0.8
    known = unseen.obs["cell_type"].notna().to_numpy()
    assert (out.obs["hist2scrna_cell_type"][known] == unseen.obs["cell_type"][known]).mean() > 0.9
    np.testing.assert_allclose(out.obsm["hist2scrna_cell_type_probability"].sum(axis=1), 1, rtol=1e-5)
    # Of spots like those of the training about one in a hundred is farther than 99 % of these were.
    assert (out.obs["hist2scrna_unlike_training"] == "unlike training").mean() < 0.05


def test_saved_and_loaded_it_predicts_the_same(fitted, unseen, tmp_path) -> None:
    fitted.save(tmp_path / "model")
    again = h2s.TrainedModel.load(tmp_path / "model")
    assert isinstance(again.module, KernelRegression)
    for layer in ("mean", "dropout", "log_normalized", "uncertainty"):
        one, two = (m.predict(unseen, layers=[layer], copy=True, progress=False) for m in (fitted, again))
        np.testing.assert_array_equal(one.layers[f"hist2scrna_{layer}"], two.layers[f"hist2scrna_{layer}"])


def test_a_spot_depends_on_itself_alone_and_on_no_batch(fitted, unseen) -> None:
    whole = fitted.predict(unseen, copy=True, progress=False).layers["hist2scrna_mean"]
    part = fitted.predict(unseen[5:17].copy(), copy=True, batch_size=3, progress=False).layers["hist2scrna_mean"]
    np.testing.assert_allclose(part, whole[5:17], rtol=1e-4)


def test_tissue_unlike_the_training_is_said(fitted, unseen) -> None:
    strange = unseen.copy()
    strange.obsm["X_f"][:100] += 20
    with pytest.warns(UserWarning, match=r"10\d of 400 spots"):
        out = fitted.predict(strange, copy=True, progress=False)
    far = (out.obs["hist2scrna_unlike_training"] == "unlike training").to_numpy()
    assert far[:100].all()
    assert far[100:].mean() < 0.05
    assert (out.obs["hist2scrna_tissue_distance"].to_numpy() > 1).tolist() == far.tolist()


def test_an_imposed_library_size_moves_the_means_with_it(fitted, unseen) -> None:
    unseen = unseen.copy()
    unseen.obs["small"], unseen.obs["large"] = 100.0, 200.0
    small, large = (
        fitted.predict(unseen, copy=True, library_size=key, progress=False).layers["hist2scrna_mean"]
        for key in ("small", "large")
    )
    # The slope of each gene in the log library size is estimated: near 1, as drawn.
    slope = np.log2(large / small).mean(axis=0)
    assert (slope > 0).all()
    assert slope.mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("likelihood", ["nb", "poisson", "mse"])
def test_every_likelihood(likelihood, unseen) -> None:
    model = h2s.tl.fit(draw_sections(), likelihood=likelihood, **OPTIONS)
    assert model.likelihood == likelihood
    out = model.predict(unseen, copy=True, progress=False)
    assert ("hist2scrna_dropout" in out.layers) is False
    truth = np.log1p(1e4 * unseen.X.toarray() / unseen.X.sum(axis=1))
    layer = "mean" if likelihood == "mse" else "log_normalized"
    correlation = [
        np.corrcoef(a, b)[0, 1] for a, b in zip(out.layers[f"hist2scrna_{layer}"].T, np.asarray(truth).T, strict=True)
    ]
    assert np.mean(correlation) > 0.35


def test_one_section_and_few_landmarks_do(unseen) -> None:
    one = draw_sections(n_sections=1)
    model = h2s.tl.fit(one, **OPTIONS, n_landmarks=30, n_programs=3)
    out = model.predict(unseen, copy=True, progress=False)
    assert np.isfinite(out.layers["hist2scrna_mean"]).all()
    assert len(model.module.landmarks) == 30


def test_the_same_seed_gives_the_same_model(unseen) -> None:
    means = [
        h2s.tl.fit(draw_sections(), **OPTIONS, n_landmarks=100, seed=seed)
        .predict(unseen, copy=True, progress=False)
        .layers["hist2scrna_mean"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.array_equal(means[0], means[2])


# -- donors ------------------------------------------------------------------------------------------------------------
def draw_donors(seed: int, sections_each: int, n_donors: int = 6) -> ad.AnnData:
    """Donors with some sections; each has its own depth and its own level of each gene, told by nothing."""
    adata = draw_sections(seed, n_sections=sections_each * n_donors)
    rng = np.random.default_rng(1000 + seed)
    donor = np.arange(len(adata)) // (sections_each * SPOTS)
    shift = rng.normal(0, 0.7, (n_donors, GENES))
    # What tells donors apart in the picture tells nothing of the next one.
    adata.obsm["X_f"] = np.concatenate([adata.obsm["X_f"], rng.normal(0, 2, (n_donors, 4))[donor]], axis=1)
    adata.X = sparse.csr_matrix(rng.poisson(adata.X.toarray() * np.exp(shift)[donor]).astype(np.float32))
    adata.obs["donor"] = pd.Categorical.from_codes(donor, [f"d{i}" for i in range(n_donors)])
    return adata


LAYERS = ("mean", "dispersion")


def with_counts(predicted: ad.AnnData, measured: ad.AnnData) -> ad.AnnData:
    predicted.X = measured[:, predicted.var_names].X
    return predicted


def test_by_donor_the_intervals_hold_for_another_donor() -> None:
    """Sections of one donor are alike: left out one by one, they say nothing of how donors differ."""
    train, other = draw_donors(0, sections_each=2), draw_donors(1, sections_each=1)
    for column in ("library_id", "donor"):
        other.obs[column] = "other " + other.obs[column].astype(str)
    found = {}
    for key in (None, "donor"):
        model = h2s.tl.fit(train, group_key=key, likelihood="nb", **OPTIONS)
        assert model.parameters["group_key"] == key
        # Whose tissue it is, is named or not; a model of several donors has no single one to take it for.
        for another in (None, False) if key is None else (None,):
            said = model.predict(other, another_donor=another, layers=LAYERS, copy=True, progress=False)
            scores = h2s.tl.evaluate(with_counts(said, other), library_key="library_id", progress=False).results
            found[key, another] = scores["counts"]["model"]
    for level, nominal in (("50", 0.5), ("80", 0.8), ("95", 0.95)):
        assert found["donor", None]["coverage"][level] == pytest.approx(nominal, abs=0.05)
        # Without their names, sections far from the training are taken for another donor's.
        assert found[None, None]["coverage"][level] == pytest.approx(nominal, abs=0.1)
        assert found[None, False]["coverage"][level] < nominal - 0.05
    for key in ("donor", None):
        assert found[key, None]["log_likelihood"] > found[None, False]["log_likelihood"] + 0.05


# -- with an encoder ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def three_sections(make_section) -> ad.AnnData:
    sections = [make_section(f"s{i}", seed=i, n_spots=14) for i in range(3)]
    return ad.concat(sections, uns_merge="unique", merge="same")


@pytest.fixture(scope="module")
def default(three_sections) -> h2s.TrainedModel:
    return h2s.tl.fit(three_sections, labels_key="cell_type", library_key="library_id", progress=False)


def test_it_is_the_default_and_says_so(three_sections, default, make_section, caplog) -> None:
    assert isinstance(default.module, KernelRegression)
    assert (default.name, default.parameters["model"]) == ("kernel", "auto")
    assert "chosen      by model='auto': 42 spots" in repr(default)
    assert set(default.parameters["training"]) == {"batch_size", "augment", "validation", "accelerator"}
    assert default.geometry.um == pytest.approx(6 * 36 * 2)
    slide = make_section("new", seed=9, n_spots=16)
    out = h2s.tl.predict(slide.copy(), default, progress=False)
    assert (out.obs["hist2scrna_cell_type"] == slide.obs["cell_type"]).mean() > 0.8
    total = np.asarray(slide.X.sum(axis=1)).ravel()
    assert np.corrcoef(out.obs["hist2scrna_library_size"], total)[0, 1] > 0.5
    facts = out.uns["hist2scrna"]
    assert facts["model"] == "kernel"
    assert facts["choice"].startswith("42 spots")
    assert facts["encoder"]["name"] == "imagenet+morphology"
    with caplog.at_level(logging.INFO, logger="hist2scrna"), pytest.raises(ValueError, match="kernel"):
        h2s.tl.fit(three_sections, preset="tiny", library_key="library_id", progress=False)
    assert "model='auto' chose 'kernel': 42 spots" in caplog.text


def test_it_is_saved_without_the_weights_of_its_encoder(default, make_section, tmp_path) -> None:
    folder = default.save(tmp_path / "model")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3e6
    slide = make_section("new", seed=9, n_spots=6)
    means = [
        model.predict(slide, copy=True, progress=False).layers["hist2scrna_mean"]
        for model in (default, h2s.TrainedModel.load(folder))
    ]
    np.testing.assert_array_equal(*means)


def test_another_encoder_is_refused(default, make_section, tmp_path) -> None:
    again = h2s.TrainedModel.load(default.save(tmp_path / "model"))
    slide = make_section("new", seed=9, n_spots=6)
    again.encoder["sha256"] = "0" * 64
    with pytest.raises(ValueError, match="sha256 is '0000"):
        again.predict(slide, progress=False)
    with pytest.raises(ValueError, match="name is 'imagenet\\+morphology'; here it is 'morphology'"):
        default.predict(slide, encoder="morphology", progress=False)


def mean_color(patches: torch.Tensor) -> torch.Tensor:
    return torch.cat([patches.mean(dim=(2, 3)), patches.std(dim=(2, 3))], dim=1)


@pytest.mark.parametrize("name", ["kernel", "ridge", "hist2scrna-lightweight"])
def test_every_model_on_features_takes_a_function_for_encoder(name, three_sections, make_section, tmp_path) -> None:
    options = {"preset": "tiny", "training": {"max_epochs": 2}} if name == "hist2scrna-lightweight" else {}
    model = h2s.tl.fit(
        three_sections, model=name, encoder=mean_color, library_key="library_id", progress=False, **options
    )
    assert model.options["n_features"] == 6
    slide = make_section("new", seed=9, n_spots=16)
    out = model.predict(slide, copy=True, progress=False)
    again = h2s.TrainedModel.load(model.save(tmp_path / "model"))
    with pytest.raises(ValueError, match="'mean_color', a function or module that is not saved.*encoder="):
        again.predict(slide, progress=False)
    same = again.predict(slide, encoder=mean_color, copy=True, progress=False)
    np.testing.assert_array_equal(same.layers["hist2scrna_mean"], out.layers["hist2scrna_mean"])


def test_features_extracted_beforehand_are_those_of_the_encoder(three_sections, make_section) -> None:
    adata = three_sections.copy()
    h2s.pp.extract_features(adata, mean_color, key_added="X_color", library_key="library_id", progress=False)
    training = {"augment": False}
    by_encoder = h2s.tl.fit(
        adata, model="kernel", encoder=mean_color, library_key="library_id", training=training, progress=False
    )
    by_key = h2s.tl.fit(adata, model="kernel", features_key="X_color", library_key="library_id", progress=False)
    slide = make_section("new", seed=9, n_spots=16)
    h2s.pp.extract_features(slide, mean_color, key_added="X_color", progress=False)
    means = [
        model.predict(slide, copy=True, progress=False, **where).layers["hist2scrna_mean"]
        for model, where in ((by_encoder, {}), (by_key, {}), (by_encoder, {"features_key": "X_color"}))
    ]
    np.testing.assert_allclose(means[1], means[0], rtol=1e-4)
    np.testing.assert_allclose(means[2], means[0], rtol=1e-4)


def test_what_differs_between_two_looks_counts_least() -> None:
    rng = np.random.default_rng(0)
    real, chance = rng.normal(size=(300, 3)), rng.normal(size=(2, 300, 2)) * [5.0, 0.5]
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    one, two = (np.concatenate([real, c], axis=1) @ turn for c in chance)
    metric = whiten(two - one)
    change = (two - one) @ metric
    values = np.concatenate([np.zeros(3), np.sort(np.square(chance[1] - chance[0]).sum(axis=0)) / 600])
    found = np.linalg.eigvalsh(change.T @ change / 600)
    np.testing.assert_allclose(found, values / (values + SHRINKAGE * values.mean()), atol=0.01)
    for given, low, high in ((np.eye(5), 0.0, 0.1), (metric, 0.25, 1.0)):
        nearest = np.linalg.norm((two @ given)[:, None] - one @ given, axis=2).argmin(axis=1)
        assert low <= (nearest == np.arange(300)).mean() <= high


def small_encoder() -> Encoder:
    return replace(prepare_encoder("imagenet"), px=256)


def test_training_patches_are_varied_unless_told_not_to(make_section) -> None:
    section = make_section(n_spots=24)
    plain, varied, again = (
        h2s.tl.fit(
            section,
            model="kernel",
            encoder=small_encoder(),
            likelihood="nb",
            training={"augment": augment},
            progress=False,
        ).module
        for augment in (False, True, None)
    )
    torch.testing.assert_close(varied.landmarks, again.landmarks, atol=0, rtol=0)
    # The metric of two looks is the kernel's alone: how unlike tissue is, is measured without.
    x, landmarks = varied.landmarks[:5] + 1.0, varied.landmarks
    assert torch.equal(plain.metric, torch.eye(len(plain.metric)))
    torch.testing.assert_close(varied.distances(x), torch.cdist(x, landmarks).square(), rtol=1e-3, atol=1e-2)
    by_kernel = torch.cdist(x @ varied.metric, landmarks @ varied.metric).square()
    torch.testing.assert_close(varied.kernel_distances(x @ varied.metric), by_kernel, rtol=1e-3, atol=1e-2)
    assert (by_kernel / varied.distances(x) - 1).abs().median() > 0.1
    spots = spots_of(section, spatial_key="spatial", patch_px=256, patch_per_spot=6.0)
    (features,) = encode_patches(
        small_encoder(), spots, np.arange(24), batch_size=8, device=torch.device("cpu"), progress=False
    )
    np.testing.assert_allclose(plain.feature_mean, features.mean(axis=0), atol=1e-5, rtol=1e-4)
    assert np.abs(varied.feature_mean.numpy() - features.mean(axis=0)).max() > 1e-2


def test_what_it_does_not_have_is_refused_by_name(make_section) -> None:
    section = make_section()
    for arguments, message in (
        ({"depth": 4}, "'kernel' has no option `depth`. Models that have `depth`: hist2scrna, hist2scrna-lightweight."),
        ({"n_program": 4}, "no argument `n_program`. Did you mean n_programs="),
        ({"losses": {"pearson": 1.0}}, "'kernel' has no `losses`. Models that have `losses`: hist2scrna, "),
        ({"neighbors": "knn"}, "'kernel' has no `neighbors`"),
        ({"training": {"max_epochs": 3}}, "'kernel' is fitted without the training argument `max_epochs`. Models "),
        ({"max_epochs": 3}, "'kernel' is fitted without the training argument `max_epochs`. Models that have "),
        ({"preset": "tiny"}, "'kernel' has no preset `tiny`. Models that have `tiny`: hist2scrna, hist2scrna-light"),
        ({"training": {"epochs": 3}}, "Unknown field of `training` 'epochs'. Did you mean 'max_epochs'"),
    ):
        for model in ("kernel", "auto"):
            with pytest.raises(ValueError, match=re.escape(message)):
                h2s.tl.fit(section, model=model, progress=False, **arguments)
    with pytest.raises(ValueError, match="'hist2scrna' reads patches itself and has no `encoder`.*kernel"):
        h2s.tl.fit(section, model="hist2scrna", encoder="imagenet", progress=False)


@pytest.fixture(scope="module")
def left_out(shared_data, shared_fixtures) -> tuple[h2s.TrainedModel, ad.AnnData]:
    """C2, and the default model fitted on C3 to C6."""
    adata = h2s.datasets.her2st(shared_data / "her2st")
    panel = [g for g in (shared_fixtures / "her_hvg_785.txt").read_text().split() if g in adata.var_names]
    train, test = (adata[(adata.obs["library_id"] == "C2") == held_out].copy() for held_out in (False, True))
    return h2s.tl.fit(train, genes=panel, library_key="library_id", progress=False), test


@pytest.mark.slow
def test_on_her2st_it_beats_the_true_depth_of_the_spots(left_out) -> None:
    model, test = left_out
    evaluation = h2s.tl.evaluate(test, model, library_key="library_id", progress=False)
    headline = evaluation.headline
    assert headline["pearson"] > headline["depth_baseline"]
    counts = evaluation.results["counts"]
    assert counts["model"]["log_likelihood"] > counts["mean_baseline"]["log_likelihood"]
    for level, covered in counts["model"]["coverage"].items():
        assert covered == pytest.approx(float(level) / 100, abs=0.03)
        assert counts["model"]["width"][level] < counts["mean_baseline"]["width"][level]


@pytest.mark.slow
def test_on_her2st_it_does_not_matter_how_the_tissue_lies(left_out) -> None:
    """Serial sections lie alike: what hangs on that is lost when one is turned."""
    model, test = left_out
    entry = test.uns["spatial"]["C2"]
    with Image.open(entry["metadata"]["source_image_path"]) as picture:
        upright = np.asarray(picture.convert("RGB"))
    turned = test.copy()
    x, y = test.obsm["spatial"].T
    turned.obsm["spatial"] = np.stack([y, upright.shape[1] - x], axis=1)
    turned.uns["spatial"] = {
        "C2": {
            "images": {"turned": np.rot90(upright)},
            "scalefactors": {**entry["scalefactors"], "tissue_turned_scalef": 1.0},
        }
    }
    was, now = (
        h2s.tl.evaluate(section, model, library_key="library_id", progress=False).headline for section in (test, turned)
    )
    assert now["pearson"] == pytest.approx(was["pearson"], abs=0.01)
    assert now["pearson"] > now["depth_baseline"]
