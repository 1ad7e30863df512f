"""Ridge on principal components: scikit-learn's numbers, from features that were left out by section."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hist2scrna.fitting.closed_form.ridge import LABEL_PENALTIES, PENALTIES, solve_ridge
from hist2scrna.models.contract import SpotBatch
from hist2scrna.models.ridge import Ridge

pytestmark = pytest.mark.numeric

N, D, G = 90, 12, 5


def batch_of(features: np.ndarray, n_core: int | None = None) -> SpotBatch:
    n = len(features)
    return SpotBatch(
        n_core=n if n_core is None else n_core,
        xy=torch.zeros(n, 2),
        edge_index=torch.zeros(2, 0, dtype=torch.long),
        section=torch.zeros(n, dtype=torch.long),
        features=torch.from_numpy(features).float(),
    )


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of unlike scale, noisy targets, three sections of equal size."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, (N, D)) @ rng.normal(size=(D, D)) * 10.0 ** rng.uniform(-2, 2, D)
    x = x.astype(np.float32).astype(float)
    y = 2 + (x / x.std(axis=0)) @ rng.normal(size=(D, G)) * 0.3 + rng.normal(size=(N, G))
    return x, y, np.repeat([0, 1, 2], N // 3)


@pytest.mark.parametrize("n_components", [3, 7])
def test_prediction_is_that_of_the_pipeline_of_scikit_learn(data, n_components) -> None:
    x, y, group = data
    model = Ridge(G, n_features=D, n_components=n_components, penalty=5.0)
    solve_ridge(model, x, y, group)
    pipeline = make_pipeline(StandardScaler(), PCA(n_components), SklearnRidge(5.0)).fit(x, y)
    found = model(batch_of(x))
    np.testing.assert_allclose(found.value, pipeline.predict(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.embedding, pipeline[:-1].transform(x), rtol=1e-3, atol=1e-3)


def test_all_components_are_ridge_on_the_features_themselves(data) -> None:
    x, y, group = data
    model = Ridge(G, n_features=D, penalty=8.0)
    solve_ridge(model, x, y, group)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = y.mean(axis=0) + z @ np.linalg.solve(z.T @ z + 8.0 * np.eye(D), z.T @ (y - y.mean(axis=0)))
    np.testing.assert_allclose(model(batch_of(x)).value, expected, rtol=1e-4, atol=1e-4)
    assert model.components.shape == (D, D)


def test_a_linear_truth_is_recovered(data) -> None:
    x, _, group = data
    truth = 1 + (x / x.std(axis=0)) @ np.random.default_rng(1).normal(size=(D, G))
    model = Ridge(G, n_features=D)
    solve_ridge(model, x[:60], truth[:60], group[:60])
    assert float(model.chosen_penalty) == pytest.approx(min(PENALTIES))
    error = np.square(model(batch_of(x[60:])).value.numpy() - truth[60:]).mean()
    assert error < 1e-3 * truth.var(axis=0).mean()


@pytest.mark.parametrize("n_sections", [3, 10])
def test_validation_errors_are_those_of_a_grouped_grid_search(data, n_sections) -> None:
    x, y, _ = data
    group = np.repeat(np.arange(n_sections), N // n_sections)
    model = Ridge(G, n_features=D, n_components=6)
    errors = solve_ridge(model, x, y, group)
    folds = min(5, n_sections)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), PCA(6), SklearnRidge()),
        {"ridge__alpha": list(PENALTIES)},
        cv=GroupKFold(folds),
        scoring="neg_mean_squared_error",
    ).fit(x, y, groups=group)
    assert list(errors) == list(PENALTIES)
    np.testing.assert_allclose(list(errors.values()), -search.cv_results_["mean_test_score"], rtol=1e-6)
    assert float(model.chosen_penalty) == pytest.approx(search.best_params_["ridge__alpha"])
    assert min(PENALTIES) < search.best_params_["ridge__alpha"] < max(PENALTIES)


def test_the_penalty_is_judged_on_sections_that_were_left_out() -> None:
    # The features tell the section, and the section the level of the target: worthless for another section.
    rng = np.random.default_rng(2)
    section = np.repeat(np.arange(6), 20)
    x = rng.normal(size=(6, 8))[section] + 0.05 * rng.normal(size=(120, 8))
    y = rng.normal(size=(6, 4))[section] + 0.05 * rng.normal(size=(120, 4))
    by_section, by_spot = Ridge(4, n_features=8), Ridge(4, n_features=8)
    left_out = solve_ridge(by_section, x, y, section)
    leaking = solve_ridge(by_spot, x, y, rng.permutation(120) % 6)
    assert min(leaking.values()) < 0.1 * min(left_out.values())
    assert float(by_section.chosen_penalty) > 100 * float(by_spot.chosen_penalty)


def test_one_section_leaves_out_one_spot_at_a_time(data) -> None:
    x, y, _ = data
    model = Ridge(G, n_features=D, n_components=6, penalty=20.0)
    errors = solve_ridge(model, x, y, np.zeros(N))
    components = make_pipeline(StandardScaler(), PCA(6)).fit_transform(x)
    expected = np.square(cross_val_predict(SklearnRidge(20.0), components, y, cv=LeaveOneOut()) - y).mean()
    assert list(errors) == [20.0]
    assert errors[20.0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n_spots", [6, N])
def test_saved_and_loaded_it_predicts_the_same(data, tmp_path, n_spots) -> None:
    x, y, group = (values[:: N // n_spots] for values in data)
    model = Ridge(G, 3, n_features=D, n_components=500)
    solve_ridge(model, x, y, group, np.arange(len(x)) % 3)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = Ridge(G, 3, n_features=D, n_components=500)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    before, after = model(batch_of(data[0])), again(batch_of(data[0]))
    assert torch.equal(before.value, after.value)
    assert torch.equal(before.label_logits, after.label_logits)
    assert torch.equal(before.embedding, after.embedding)
    assert before.embedding.shape == (N, D)
    unused = min(D, n_spots)
    assert (again.components[unused:] == 0).all()
    assert (again.coefficients[:, unused:] == 0).all()
    assert before.value.std() > 0
    assert again.chosen_penalty == model.chosen_penalty


def test_solving_again_forgets_what_was_before(data) -> None:
    x, y, group = data
    model, fresh = Ridge(G, n_features=D, penalty=1.0), Ridge(G, n_features=D, penalty=1.0)
    solve_ridge(model, x, y, group)
    for one in (model, fresh):
        solve_ridge(one, x[:4], y[:4], group[:4])
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, equal_nan=True)


def test_cell_types_are_those_of_logistic_regression(data) -> None:
    x, y, group = data
    rng = np.random.default_rng(3)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    label = (z @ rng.normal(size=(D, 3)) + rng.gumbel(size=(N, 3))).argmax(axis=1)
    label[::7] = -1
    model = Ridge(G, 4, n_features=D, n_components=6)
    solve_ridge(model, x, y, group, label)
    penalty = float(model.chosen_label_penalty)
    assert penalty in LABEL_PENALTIES[:-1]
    known = label >= 0
    components = make_pipeline(StandardScaler(), PCA(6)).fit_transform(x)
    expected = LogisticRegression(C=1 / penalty, max_iter=1000).fit(components[known], label[known])
    found = softmax(model(batch_of(x)).label_logits.numpy(), axis=1)
    np.testing.assert_allclose(found[:, :3], expected.predict_proba(components), atol=1e-4)
    # No training spot shows the fourth class.
    assert found[:, 3].max() < 1e-6


def test_two_cell_types_and_one(data) -> None:
    x, y, group = data
    label = (x[:, 0] > np.median(x[:, 0])).astype(int)
    two = Ridge(G, 2, n_features=D)
    solve_ridge(two, x, y, group, label)
    logits = two(batch_of(x)).label_logits.numpy()
    components = make_pipeline(StandardScaler(), PCA(D)).fit_transform(x)
    expected = LogisticRegression(C=1 / float(two.chosen_label_penalty), max_iter=1000).fit(components, label)
    np.testing.assert_allclose(softmax(logits, axis=1), expected.predict_proba(components), atol=1e-3)

    one = Ridge(G, 2, n_features=D)
    solve_ridge(one, x, y, np.zeros(N), np.ones(N))
    assert (one(batch_of(x)).label_logits.argmax(axis=1) == 1).all()


def test_only_the_seeds_are_predicted_from_their_own_features(data) -> None:
    x, y, group = data
    model = Ridge(G, n_features=D)
    solve_ridge(model, x, y, group)
    changed = x.copy()
    changed[10:] = 0
    some, same = model(batch_of(x, n_core=10)), model(batch_of(changed, n_core=10))
    assert some.value.shape == (10, G)
    assert some.label_logits is None
    torch.testing.assert_close(some.value, same.value)
    torch.testing.assert_close(some.value, model(batch_of(x)).value[:10])


def test_half_precision_around_it_changes_nothing(data) -> None:
    x, y, group = data
    model = Ridge(G, n_features=D)
    solve_ridge(model, x, y, group)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        half = model(batch_of(x)).value
    assert torch.equal(half, model(batch_of(x)).value)


def _with(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[1, 0] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, g, c: (x[:, :3], y, g, c), r"`features`.*\(90, 12\), found \(90, 3\)"),
        (lambda x, y, g, c: (x, y[:50], g, c), r"`target`.*\(90, 5\), found \(50, 5\)"),
        (lambda x, y, g, c: (x, y, g[:50], c), r"`group`.*\(90,\), found \(50,\)"),
        (lambda x, y, g, c: (x, y, g, c[:50]), r"`label`.*\(90,\), found \(50,\)"),
        (lambda x, y, g, c: (_with(x, np.nan), y, g, c), r"finite `features`, found 1"),
        (lambda x, y, g, c: (x, _with(y, np.inf), g, c), r"finite `target`, found 1"),
        (lambda x, y, g, c: (x, y, g, None), r"2 classes: pass label="),
        (lambda x, y, g, c: (x, y, g, c + 1), r"`label` from -1 to 1, found 1 to 2"),
        (lambda x, y, g, c: (x, y, g, 0 * c - 1), r"No spot has a known `label`"),
        (lambda x, y, g, c: (x[:1], y[:1], g[:1], c[:1]), r"at least 2 spots.*found 1"),
    ],
)
def test_what_cannot_be_solved_says_why(data, change, message) -> None:
    model = Ridge(G, 2, n_features=D)
    with pytest.raises(ValueError, match=message):
        solve_ridge(model, *change(*data, np.arange(N) % 2))
    assert torch.isnan(model.chosen_penalty)
    assert not model.coefficients.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_features": 0}, "`n_features` to be at least 1, found 0"),
        ({"n_features": 3, "n_components": 0}, "`n_components` to be at least 1, found 0"),
        ({"n_features": 3, "penalty": 0.0}, "`penalty` to be a positive number, found 0"),
        ({"n_features": 3, "penalty": float("nan")}, "`penalty` to be a positive number, found nan"),
    ],
)
def test_options_out_of_range_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Ridge(G, **options)


def test_a_batch_of_patches_is_refused() -> None:
    batch = batch_of(np.zeros((4, D)))
    batch.features = None
    with pytest.raises(ValueError, match="reads features"):
        Ridge(G, n_features=D)(batch)
