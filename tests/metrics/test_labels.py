"""Scores of cell types and of clusters, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from hist2scrna import metrics

pytestmark = pytest.mark.numeric


def test_cell_type_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(8)
    names = np.array(["B", "T", "stroma", "tumor"])
    truth = rng.choice(names, 200, p=[0.1, 0.1, 0.2, 0.6])
    guess = np.where(rng.random(200) < 0.6, truth, rng.choice(names[1:], 200))
    truth[:3] = "never seen"
    found = metrics.cell_type_scores(truth, guess)
    classes = sorted(set(truth))
    assert found["classes"] == classes
    assert found["accuracy"] == sk.accuracy_score(truth, guess)
    assert found["f1_macro"] == pytest.approx(sk.f1_score(truth, guess, average="macro", zero_division=0))
    assert found["f1_weighted"] == pytest.approx(sk.f1_score(truth, guess, average="weighted", zero_division=0))
    assert found["confusion"] == sk.confusion_matrix(truth, guess, labels=classes).tolist()
    report = sk.classification_report(truth, guess, output_dict=True, zero_division=0)
    for name in classes:
        row = {"f1-score" if key == "f1" else key: value for key, value in found["report"][name].items()}
        assert row == pytest.approx(report[name])
    assert found["majority_accuracy"] == pytest.approx(max(np.mean(truth == c) for c in classes))
    assert found["expected_calibration_error"] is None


def test_calibration_error_by_hand() -> None:
    right, confidence = [True, True, False, False], [0.95, 0.85, 0.92, 0.15]
    # Bins (.9, 1], (.8, .9] and (.1, .2]: gaps |1 - 1.87|, |1 - .85| and |0 - .15|, over four spots.
    assert metrics.expected_calibration_error(right, confidence) == pytest.approx((0.87 + 0.15 + 0.15) / 4)
    assert metrics.expected_calibration_error([True, False], [1.0, 0.0]) == 0
    with pytest.raises(ValueError, match="one probability"):
        metrics.expected_calibration_error([True], [1.2])


def test_calibrated_confidence_has_next_to_no_error() -> None:
    rng = np.random.default_rng(9)
    confidence = rng.uniform(0.3, 1, 50_000)
    assert metrics.expected_calibration_error(rng.random(50_000) < confidence, confidence) < 0.01
    assert metrics.expected_calibration_error(rng.random(50_000) < confidence - 0.2, confidence) == pytest.approx(
        0.2, abs=0.01
    )


def test_agreement_of_clusters_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(10)
    truth = rng.choice(["a", "b", "c"], 150)
    guess = np.where(rng.random(150) < 0.7, truth, rng.choice(["a", "b", "c", "d"], 150))
    found = metrics.cluster_agreement(truth, guess)
    assert found == {
        "ari": pytest.approx(sk.adjusted_rand_score(truth, guess)),
        "nmi": pytest.approx(sk.normalized_mutual_info_score(truth, guess)),
    }
    # The adjusted Rand index from its definition: pairs of spots that both, or one, of the partitions join.
    pairs = np.triu_indices(150, 1)
    one, other = (np.asarray(v)[pairs[0]] == np.asarray(v)[pairs[1]] for v in (truth, guess))
    expected = one.sum() * other.sum() / len(one)
    assert found["ari"] == pytest.approx(((one & other).sum() - expected) / ((one.sum() + other.sum()) / 2 - expected))
    renamed = np.array([{"a": 7, "b": 1, "c": 3}[name] for name in truth])
    assert metrics.cluster_agreement(truth, renamed) == pytest.approx({"ari": 1, "nmi": 1})
    assert metrics.cluster_agreement(truth, np.zeros(150)) == {"ari": 0, "nmi": 0}


def test_cell_types_need_spots() -> None:
    with pytest.raises(ValueError, match="name a type for each spot"):
        metrics.cell_type_scores(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="name a type for each spot"):
        metrics.cell_type_scores([], [])
