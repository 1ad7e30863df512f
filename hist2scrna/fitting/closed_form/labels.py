"""Cell types in closed form: as columns to regress, and by logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax

from hist2scrna.metrics.blocks import Floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The logit of a class that no training spot shows.
ABSENT = -30.0


def one_hot(labels: NDArray[np.int64], n_classes: int) -> Floats:
    """Return the classes as columns, `(n, n_classes)`; spots without a label have the shares of the others."""
    known = labels >= 0
    columns = np.zeros((len(labels), n_classes))
    columns[known, labels[known]] = 1.0
    columns[~known] = columns[known].mean(axis=0) if known.any() else 0.0
    return columns


def classify(x: Floats, labels: NDArray[np.int64], n_classes: int, penalty: float) -> tuple[Floats, Floats]:
    """Return coefficients `(n_classes, k)` and intercepts `(n_classes,)` of a multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression

    known = labels >= 0
    classes = np.unique(labels[known])
    coefficients, intercept = np.zeros((n_classes, x.shape[1])), np.full(n_classes, ABSENT)
    intercept[classes] = 0.0
    if len(classes) > 1:
        fitted = LogisticRegression(C=1 / penalty, max_iter=1000).fit(x[known], labels[known])
        # Of two classes, scikit-learn gives the logit of the second alone.
        rows = classes if len(classes) > 2 else classes[1:]
        coefficients[rows], intercept[rows] = fitted.coef_, fitted.intercept_
    return coefficients, intercept


def cross_entropy(x: Floats, labels: NDArray[np.int64], coefficients: Floats, intercept: Floats) -> float:
    """Return the sum of the cross-entropy over the spots with a label."""
    known = np.flatnonzero(labels >= 0)
    log_probability = log_softmax(x[known] @ coefficients.T + intercept, axis=1)
    return -float(log_probability[np.arange(len(known)), labels[known]].sum())
