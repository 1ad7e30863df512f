"""Scores of zeros, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn import metrics as sk

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


def test_zero_scores_are_those_of_scikit_learn(counts, prediction) -> None:
    rng = np.random.default_rng(7)
    p_zero = np.round(np.clip(np.exp(-prediction) + 0.2 * rng.standard_normal(counts.shape), 0, 1), 2)
    found = metrics.zero_scores(sparse.csr_matrix(counts), p_zero, prediction)
    present, called = counts.ravel() > 0, p_zero.ravel() < 0.5
    expected = {
        "observed_zero_rate": (counts == 0).mean(),
        "predicted_zero_rate": p_zero.mean(),
        "accuracy": sk.accuracy_score(present, called),
        "sensitivity": sk.recall_score(present, called),
        "specificity": sk.recall_score(~present, ~called),
        "f1": sk.f1_score(present, called),
        "mae_nonzero": np.abs(counts - prediction)[counts > 0].mean(),
        "auroc": sk.roc_auc_score(present, 1 - p_zero.ravel()),
    }
    assert found == pytest.approx(expected, rel=1e-10)


def test_auroc_needs_both_kinds() -> None:
    assert metrics.auroc([True, False, True], [0.9, 0.1, 0.4]) == 1
    assert metrics.auroc([True, False], [0.3, 0.3]) == 0.5
    assert np.isnan(metrics.auroc([True, True], [0.1, 0.2]))
