"""Scores of predicted cell types."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_BINS = 10


@dataclass(frozen=True, eq=False)
class LabeledSpots:
    """True and predicted types of spots: what the scores of cell types are computed from.

    Attributes
    ----------
    truth, prediction
        `(spots,)` names.
    confidence
        `(spots,)` probability of the predicted type; None if it is not known.
    """

    truth: NDArray[np.str_]
    prediction: NDArray[np.str_]
    confidence: NDArray[np.float64] | None = None

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether the predicted type is the true one."""
        return np.asarray(self.truth == self.prediction)

    @cached_property
    def classes(self) -> list[str]:
        """All types that occur in either."""
        return sorted({str(name) for name in (*self.truth, *self.prediction)})

    @cached_property
    def by_class(self) -> dict[str, NDArray[np.float64]]:
        """`precision`, `recall`, `f1` and `support` (spots) of each class; 0 where undefined."""
        from sklearn.metrics import precision_recall_fscore_support

        values = precision_recall_fscore_support(self.truth, self.prediction, labels=self.classes, zero_division=0)
        return dict(zip(("precision", "recall", "f1", "support"), values, strict=True))


def accuracy(spots: LabeledSpots) -> float:
    """Return the share of spots whose predicted type is the true one."""
    return float(spots.right.mean())


def f1_macro(spots: LabeledSpots) -> float:
    """Return the mean F1 over all types."""
    return float(spots.by_class["f1"].mean())


def f1_weighted(spots: LabeledSpots) -> float:
    """Return the mean F1 over all types, weighted by their numbers of spots."""
    return float(np.average(spots.by_class["f1"], weights=spots.by_class["support"]))


def majority_accuracy(spots: LabeledSpots) -> float:
    """Return the accuracy of always naming the commonest type."""
    return float(spots.by_class["support"].max() / len(spots.truth))


def calibration_error(spots: LabeledSpots, n_bins: int = N_BINS) -> float | None:
    """Return the expected calibration error; None if the confidence is not known."""
    if spots.confidence is None:
        return None
    return expected_calibration_error(spots.right, spots.confidence, n_bins=n_bins)


def confusion(spots: LabeledSpots) -> dict[str, Any]:
    """Return `classes`, `confusion` (a row per true type) and `report` by type, as `cell_type_scores` does."""
    from sklearn.metrics import confusion_matrix

    columns = spots.by_class
    return {
        "classes": spots.classes,
        "confusion": confusion_matrix(spots.truth, spots.prediction, labels=spots.classes).tolist(),
        "report": {
            name: {
                **{key: float(columns[key][i]) for key in ("precision", "recall", "f1")},
                "support": int(columns["support"][i]),
            }
            for i, name in enumerate(spots.classes)
        },
    }


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

    Examples
    --------
    >>> h2s.metrics.cell_type_scores(["tumor", "stroma"], ["tumor", "tumor"])["accuracy"]
    0.5
    """
    true, predicted = np.asarray(truth).astype(str), np.asarray(prediction).astype(str)
    if true.shape != predicted.shape or true.ndim != 1 or len(true) == 0:
        raise ValueError(
            f"Expected `truth` and `prediction` to name a type for each spot, found shapes {true.shape} and "
            f"{predicted.shape}."
        )
    spots = LabeledSpots(true, predicted, None if confidence is None else np.asarray(confidence, dtype=np.float64))
    return {
        "accuracy": accuracy(spots),
        "f1_macro": f1_macro(spots),
        "f1_weighted": f1_weighted(spots),
        "majority_accuracy": majority_accuracy(spots),
        "expected_calibration_error": calibration_error(spots, n_bins),
        **confusion(spots),
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

    Examples
    --------
    >>> h2s.metrics.cluster_agreement([0, 0, 1, 1], ["b", "b", "a", "a"])
    {'ari': 1.0, 'nmi': 1.0}
    """
    a, b = np.asarray(truth), np.asarray(prediction)
    return {"ari": adjusted_rand(a, b), "nmi": normalized_mutual_information(a, b)}


def adjusted_rand(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the adjusted Rand index of two partitions."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(truth, prediction))


def normalized_mutual_information(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the normalized mutual information of two partitions."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(truth, prediction))


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

    Examples
    --------
    >>> round(h2s.metrics.expected_calibration_error([True, True, False, True], [0.75] * 4), 2)
    0.0
    """
    yes, sure = np.asarray(right, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    if yes.shape != sure.shape or not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("Expected `confidence` to hold one probability, 0..1, for each spot.")
    place = np.clip(np.ceil(sure * n_bins).astype(int) - 1, 0, n_bins - 1)
    gap = np.bincount(place, weights=yes - sure, minlength=n_bins)
    return float(np.abs(gap).sum() / len(yes))
