"""Errors by gene and over the whole table, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from builders import TABLE_FORMATS
from scipy import sparse, stats
from sklearn import metrics as sk

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("kind", TABLE_FORMATS)
def test_overall(counts, prediction, kind) -> None:
    t, p = counts.ravel(), prediction.ravel()
    found = metrics.overall(kind(counts), prediction)
    expected = {
        "mse": sk.mean_squared_error(t, p),
        "rmse": sk.root_mean_squared_error(t, p),
        "mae": sk.mean_absolute_error(t, p),
        "r2": sk.r2_score(t, p),
        "pearson": stats.pearsonr(t, p).statistic,
        "spearman": stats.spearmanr(t, p).statistic,
    }
    assert found == pytest.approx(expected, rel=1e-12)


def test_overall_of_large_tables_ranks_spots_at_random(counts, prediction) -> None:
    found = metrics.overall(counts, prediction, most_ranked=counts.size // 2)
    whole = metrics.overall(counts, prediction)
    assert found["spearman"] == pytest.approx(whole["spearman"], abs=0.1)
    assert found["spearman"] != whole["spearman"]
    assert {k: v for k, v in found.items() if k != "spearman"} == {k: v for k, v in whole.items() if k != "spearman"}


def test_overall_of_constants(counts) -> None:
    flat = np.full(counts.shape, 2.0)
    found = metrics.overall(counts, flat)
    assert found["pearson"] == found["spearman"] == 0
    assert found["r2"] == pytest.approx(sk.r2_score(counts.ravel(), flat.ravel()))
    assert all(np.isnan(metrics.overall(flat, counts)[k]) for k in ("r2", "pearson", "spearman"))


def test_errors_by_gene(counts, prediction) -> None:
    table = metrics.errors_by_gene(sparse.csr_array(counts), prediction)
    np.testing.assert_allclose(table["mse"], sk.mean_squared_error(counts, prediction, multioutput="raw_values"))
    np.testing.assert_allclose(table["mae"], sk.mean_absolute_error(counts, prediction, multioutput="raw_values"))
    np.testing.assert_allclose(table["truth_mean"], counts.mean(axis=0))
    np.testing.assert_allclose(table["truth_sd"], counts.std(axis=0))
    np.testing.assert_allclose(table["prediction_mean"], prediction.mean(axis=0))
    np.testing.assert_allclose(table["spread_ratio"], prediction.std(axis=0) / counts.std(axis=0))
