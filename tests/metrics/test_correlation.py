"""Correlations, by gene and by spot, against SciPy and least squares."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from builders import TABLE_FORMATS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("kind", TABLE_FORMATS)
@pytest.mark.parametrize(
    ("ours", "theirs", "axis"),
    [
        (metrics.pearson_by_gene, stats.pearsonr, 0),
        (metrics.spearman_by_gene, stats.spearmanr, 0),
        (metrics.pearson_by_spot, stats.pearsonr, 1),
        (metrics.spearman_by_spot, stats.spearmanr, 1),
    ],
)
def test_correlations_are_those_of_scipy(counts, prediction, kind, ours, theirs, axis) -> None:
    t, p = (counts.T, prediction.T) if axis == 0 else (counts, prediction)
    expected = [theirs(a, b).statistic for a, b in zip(t, p, strict=True)]
    np.testing.assert_allclose(ours(kind(counts), prediction), expected, rtol=1e-12)
    np.testing.assert_allclose(ours(kind(counts), kind(prediction)), expected, rtol=1e-12)


@pytest.mark.parametrize("correlate", [metrics.pearson_by_gene, metrics.spearman_by_gene])
def test_constant_genes(counts, prediction, correlate) -> None:
    counts[:, 2] = 3
    prediction[:, 4] = 0.7
    prediction[:, 2] = prediction[:, 5] = 1e6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r = correlate(counts, prediction)
    assert np.isnan(r[2])
    assert r[4] == r[5] == 0
    assert np.isfinite(np.delete(r, 2)).all()


def test_float32_noise_about_a_constant_is_constant(counts) -> None:
    rng = np.random.default_rng(2)
    nearly = np.float32(7.3) * (1 + 1e-7 * rng.standard_normal(counts.shape))
    np.testing.assert_array_equal(metrics.pearson_by_gene(counts, nearly.astype(np.float32)), 0)
    np.testing.assert_array_equal(metrics.spearman_by_gene(counts, nearly.astype(np.float32)), 0)


def test_offsets_do_not_cost_digits() -> None:
    rng = np.random.default_rng(3)
    t, p = rng.standard_normal((2, 50, 3))
    np.testing.assert_allclose(metrics.pearson_by_gene(t + 1e6, p), metrics.pearson_by_gene(t, p), rtol=1e-8)


@given(
    arrays(np.int64, (7, 3), elements=st.integers(0, 4)),
    arrays(np.float64, (7, 3), elements=st.integers(-3, 3).map(float)),
)
def test_spearman_with_any_ties(truth, prediction) -> None:
    found = metrics.spearman_by_gene(truth, prediction)
    for t, p, r in zip(truth.T, prediction.T, found, strict=True):
        if np.ptp(t) == 0:
            assert np.isnan(r)
        elif np.ptp(p) == 0:
            assert r == 0
        else:
            assert r == pytest.approx(stats.spearmanr(t, p).statistic, abs=1e-12)


@given(arrays(np.float64, (6, 2), elements=st.floats(-1e3, 1e3)), st.floats(0.1, 10), st.floats(-5, 5))
def test_pearson_does_not_see_scale_and_offset(table, factor, offset) -> None:
    other = np.arange(12.0).reshape(6, 2) ** 1.5
    once = metrics.pearson_by_gene(other, table)
    again = metrics.pearson_by_gene(other, factor * table + offset)
    # What is constant up to rounding before may not be after, and the other way round.
    clear = np.ptp(table, axis=0) > 1e-3 * np.abs(table).max(initial=1.0)
    np.testing.assert_allclose(again[clear], once[clear], atol=1e-6)


def test_depth_partial_is_the_correlation_of_residuals(counts, prediction) -> None:
    library = counts.sum(axis=1)
    design = np.column_stack([np.ones(len(library)), np.log(library)])
    left = [y - design @ np.linalg.lstsq(design, y, rcond=None)[0] for y in (counts, prediction)]
    expected = [stats.pearsonr(a, b).statistic for a, b in zip(left[0].T, left[1].T, strict=True)]
    np.testing.assert_allclose(metrics.depth_partial_pearson(counts, prediction, library), expected, rtol=1e-9)


def test_depth_alone_has_no_depth_partial(counts) -> None:
    library = counts.sum(axis=1)
    depth = np.outer(np.log(library), np.linspace(-1, 2.1, counts.shape[1])) + 3
    np.testing.assert_array_equal(metrics.depth_partial_pearson(counts, depth, library), 0)
    assert (metrics.pearson_by_gene(counts, depth) != 0).all()
    assert np.isnan(metrics.depth_partial_pearson(depth, counts, library)).all()
    even = np.full(len(library), 9.0)
    np.testing.assert_allclose(
        metrics.depth_partial_pearson(counts, depth, even), metrics.pearson_by_gene(counts, depth), rtol=1e-12
    )


def test_depth_must_be_positive(counts, prediction) -> None:
    with pytest.raises(ValueError, match="positive total counts"):
        metrics.depth_partial_pearson(counts, prediction, np.zeros(len(counts)))
