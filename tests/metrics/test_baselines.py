"""The null predictors: against NumPy, scikit-learn and closed forms, and through a file."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from hist2scrna.metrics.baselines import HIGHEST_DISPERSION, LOWEST_DISPERSION, Baselines

pytestmark = pytest.mark.numeric


@pytest.fixture
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    depth = rng.gamma(4, 1, (80, 1))
    x = rng.negative_binomial(2, 2 / (2 + depth * rng.gamma(1, 2, 9))).astype(float)
    x[:, 4] = 0
    return x


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.csr_matrix])
def test_fields_are_what_they_say(counts, kind) -> None:
    baselines = Baselines.fit(kind(counts))
    library = counts.sum(axis=1)
    logs = np.log1p(1e4 * counts / library[:, None])
    np.testing.assert_allclose(baselines.rate, counts.sum(axis=0) / counts.sum(), rtol=1e-12)
    np.testing.assert_allclose(baselines.mean, counts.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(baselines.log_mean, logs.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(baselines.log_std, logs.std(axis=0), rtol=1e-9)
    assert baselines.median_library == np.median(library)
    np.testing.assert_allclose(baselines.level_bounds, np.quantile(counts.mean(axis=0), [1 / 3, 2 / 3]), rtol=1e-12)
    assert all(getattr(baselines, name).dtype == np.float64 for name in ("rate", "dispersion", "depth_slope"))


def test_depth_line_is_least_squares_on_log_total(counts) -> None:
    from sklearn.linear_model import LinearRegression

    baselines = Baselines.fit(counts)
    library = counts.sum(axis=1)
    logs = np.log1p(1e4 * counts / library[:, None])
    line = LinearRegression().fit(np.log(library)[:, None], logs)
    np.testing.assert_allclose(baselines.depth_slope, line.coef_[:, 0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(baselines.depth_intercept, line.intercept_, rtol=1e-9, atol=1e-12)
    other = np.array([3.0, 40.0])
    np.testing.assert_allclose(
        baselines.predict_depth(other, "log_normalized"), line.predict(np.log(other)[:, None]), atol=1e-9
    )


def test_predictions_on_counts(counts) -> None:
    baselines = Baselines.fit(counts)
    np.testing.assert_allclose(baselines.predict_depth([10.0, 20.0]), np.outer([10.0, 20.0], baselines.rate))
    assert baselines.predict_depth(counts.sum(axis=1)).sum() == pytest.approx(counts.sum())
    np.testing.assert_array_equal(baselines.predict_mean(3), np.tile(baselines.mean, (3, 1)))
    np.testing.assert_array_equal(baselines.predict_mean(3, "log_normalized"), np.tile(baselines.log_mean, (3, 1)))


def test_dispersion_is_found_again() -> None:
    rng = np.random.default_rng(1)
    theta, rate = np.array([0.3, 1.0, 5.0, 50.0]), np.array([0.1, 0.2, 0.3, 0.4])
    library = rng.gamma(5, 40, 40_000)
    mu = np.outer(library, rate)
    x = rng.poisson(mu * rng.gamma(theta, 1 / theta, mu.shape))
    # The total of a spot is itself noisy: the true one is imposed by a last gene that fills it up.
    x = np.column_stack([x, np.maximum(0, 10_000 - x.sum(axis=1))])
    x[:, -1] = np.round(library * 50)
    found = Baselines.fit(x).dispersion
    np.testing.assert_allclose(found[:3], theta[:3], rtol=0.15)
    assert found[3] > 20


def test_dispersion_stays_within_its_bounds() -> None:
    even = np.tile([3, 5], (20, 1))
    wild = np.zeros((1000, 2), dtype=int)
    wild[0, 0], wild[:, 1] = 5000, 100
    for counts in (even, wild):
        baselines = Baselines.fit(counts)
        for theta in (baselines.dispersion, baselines.mean_dispersion):
            assert ((theta >= LOWEST_DISPERSION) & (theta <= HIGHEST_DISPERSION)).all()
    assert Baselines.fit(even).dispersion[0] == HIGHEST_DISPERSION
    assert Baselines.fit(wild).dispersion[0] == LOWEST_DISPERSION


def test_spots_without_counts_do_not_matter(counts) -> None:
    padded = np.vstack([np.zeros((5, counts.shape[1])), counts, np.zeros((3, counts.shape[1]))])
    for name, value in Baselines.fit(counts).to_arrays().items():
        np.testing.assert_allclose(Baselines.fit(padded).to_arrays()[name], value, rtol=1e-12)


def test_no_counts_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="No spot has a count"):
        Baselines.fit(np.zeros((4, 3)))


def test_equal_depths_leave_no_slope() -> None:
    baselines = Baselines.fit(np.array([[1, 3], [2, 2], [4, 0]]))
    np.testing.assert_array_equal(baselines.depth_slope, 0)
    np.testing.assert_allclose(baselines.predict_depth([4.0], "log_normalized")[0], baselines.log_mean)


def test_survives_a_file(counts, tmp_path) -> None:
    from safetensors.numpy import load_file, save_file

    baselines = Baselines.fit(counts)
    save_file(baselines.to_arrays(), tmp_path / "baselines.safetensors")
    back = Baselines.from_arrays(load_file(tmp_path / "baselines.safetensors"))
    assert back.median_library == baselines.median_library
    for name, value in baselines.to_arrays().items():
        np.testing.assert_array_equal(back.to_arrays()[name], value)


def test_missing_array_is_named(counts) -> None:
    arrays = Baselines.fit(counts).to_arrays()
    del arrays["rate"]
    with pytest.raises(KeyError, match="rate"):
        Baselines.from_arrays(arrays)


def test_take_keeps_what_was_fitted_among_all(counts) -> None:
    baselines = Baselines.fit(counts)
    some = baselines.take(np.array([7, 0]))
    np.testing.assert_array_equal(some.rate, baselines.rate[[7, 0]])
    assert some.median_library == baselines.median_library
    assert list(some.level) == [baselines.level[7], baselines.level[0]]


def test_levels_split_the_genes_in_thirds(counts) -> None:
    level = Baselines.fit(counts).level
    assert [int((level == name).sum()) for name in ("low", "medium", "high")] == [3, 3, 3]
    assert counts.mean(axis=0)[level == "low"].max() <= counts.mean(axis=0)[level == "medium"].min()


def test_unknown_scale_is_refused(counts) -> None:
    baselines = Baselines.fit(counts)
    for call in (lambda: baselines.predict_mean(2, "log"), lambda: baselines.predict_depth([1.0], "log")):
        with pytest.raises(ValueError, match="'counts' or 'log_normalized', found 'log'"):
            call()
