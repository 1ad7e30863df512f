"""Scores of predicted cell types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

N_BINS = 10


def cell_type_scores(
    truth: ArrayLike, prediction: ArrayLike, confidence: ArrayLike | None = None, *, n_bins: int = N_BINS
) -> dict[str, Any]:
    """Score predicted cell types; spots of a type that was never predicted are errors like any other.

    Parameters
    ----------
    truth, prediction
        `(spots,)` names.
    confidence
        `(spots,)` probability of the predicted type; None: no calibration error.
    n_bins
        Bins of the calibration error.

    Returns
    -------
    - `accuracy`; `f1_macro` over all types that occur in either; `f1_weighted`, by number of spots.
    - `majority_accuracy`: that of always naming the commonest type.
    - `expected_calibration_error`, see :func:`expected_calibration_error`.
    - `classes`, and `confusion`: numbers of spots, a row a true type, a column a predicted one.
    - `report`: by type `precision`, `recall`, `f1` and `support` (spots); 0 where undefined.

    Raises
    ------
    ValueError
        If there is no spot, or the lengths differ.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    true, predicted = np.asarray(truth).astype(str), np.asarray(prediction).astype(str)
    if true.shape != predicted.shape or true.ndim != 1 or len(true) == 0:
        raise ValueError(
            f"Expected `truth` and `prediction` to name a type for each spot, found shapes {true.shape} and "
            f"{predicted.shape}."
        )
    classes = sorted(set(true) | set(predicted))
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=classes, zero_division=0)
    right = true == predicted
    return {
        "accuracy": float(right.mean()),
        "f1_macro": float(f1.mean()),
        "f1_weighted": float(np.average(f1, weights=support)),
        "majority_accuracy": float(support.max() / len(true)),
        "expected_calibration_error": (
            None if confidence is None else expected_calibration_error(right, confidence, n_bins=n_bins)
        ),
        "classes": classes,
        "confusion": confusion_matrix(true, predicted, labels=classes).tolist(),
        "report": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
        },
    }


def cluster_agreement(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """Agreement of two partitions of the same spots, whatever their clusters are called.

    Parameters
    ----------
    truth, prediction
        `(spots,)` names or numbers of clusters.

    Returns
    -------
    `ari`, the adjusted Rand index: 1 for equal partitions, 0 on average for random ones; `nmi`, the normalized mutual
    information (arithmetic mean of the entropies), 0..1. Both are 0 where one of two partitions is a single cluster.

    References
    ----------
    Hubert and Arabie, Comparing partitions, Journal of Classification 2:193 (1985).
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    a, b = np.asarray(truth), np.asarray(prediction)
    return {"ari": float(adjusted_rand_score(a, b)), "nmi": float(normalized_mutual_info_score(a, b))}


def expected_calibration_error(right: ArrayLike, confidence: ArrayLike, *, n_bins: int = N_BINS) -> float:
    """Mean distance of accuracy from confidence over bins of equal width, weighted by number of spots.

    Parameters
    ----------
    right
        `(spots,)` bool, whether the predicted type is the true one.
    confidence
        `(spots,)` probability of the predicted type, 0..1.
    n_bins
        Number of bins between 0 and 1.

    References
    ----------
    Guo et al., On calibration of modern neural networks, ICML 2017, equation 3.
    """
    yes, sure = np.asarray(right, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    if yes.shape != sure.shape or not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("Expected `confidence` to hold one probability, 0..1, for each spot.")
    place = np.clip(np.ceil(sure * n_bins).astype(int) - 1, 0, n_bins - 1)
    gap = np.bincount(place, weights=yes - sure, minlength=n_bins)
    return float(np.abs(gap).sum() / len(yes))
