r"""Ridge regression on principal components, its penalty chosen on groups left out.

With components :math:`Z` of the training spots and targets :math:`Y`, both centered,

.. math:: B = (Z^\top Z + \lambda I)^{-1} Z^\top Y,

with the one :math:`\lambda` whose squared error over the spots left out is smallest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna.fitting.closed_form.components import Components, write_rows
from hist2scrna.fitting.closed_form.folds import grouped_folds, left_out_groups, penalties
from hist2scrna.fitting.closed_form.labels import classify, cross_entropy
from hist2scrna.fitting.result import FitResult, FitSettings, Split
from hist2scrna.metrics.blocks import Floats
from hist2scrna.metrics.scales import log_normalize

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hist2scrna.models.ridge import Ridge
    from hist2scrna.spots.read import Spots

PENALTIES = penalties(-1, 7)
LABEL_PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)


def fit_ridge(model: Ridge, spots: Spots, split: Split, settings: FitSettings) -> FitResult:
    """Fit the ridge regression on the training spots, its penalty chosen on groups or sections left out in turn.

    With one section, five contiguous blocks take their place. The history has a row for each penalty.

    Raises
    ------
    ValueError
        If the spots were read without counts or features.
    """
    if spots.counts is None or spots.features is None:
        raise ValueError("Ridge regression needs spots with counts and features.")
    start = time.perf_counter()
    training = split.training
    label = None if spots.label is None else spots.label[training]
    target = log_normalize(spots.counts[training].toarray())
    left_out = left_out_groups(spots, training)
    errors = solve_ridge(model, spots.features[training], target, left_out.number, label)
    history = pd.DataFrame({"penalty": list(errors), "validation_loss": list(errors.values())})
    history["seconds"] = time.perf_counter() - start
    history.index.name = "epoch"
    best = int(history["validation_loss"].to_numpy().argmin())
    notes = {"variance_explained": float(1 - history["validation_loss"].iloc[best] / target.var(axis=0).mean())}
    return FitResult(history, best, time.perf_counter() - start, f"{left_out.what}, to choose the penalty", notes)


def solve_ridge(
    model: Ridge, features: ArrayLike, target: ArrayLike, group: ArrayLike, label: ArrayLike | None = None
) -> dict[float, float]:
    """Choose the penalties by cross-validation, and solve for the coefficients with all spots.

    Whole groups are left out, one in turn, or a fifth of them where there are more than five; scaling, components
    and coefficients come from the other spots each time. With one group only, each spot is left out alone, after
    scaling and components have seen it (for cell types, a fifth of the spots, in their order): its neighbors,
    which are much like it, then tell what it is, so that the error is too low, and likely the penalty too. Give the
    numbers of contiguous blocks as `group` to avoid that.

    Parameters
    ----------
    model
        Fitted in place.
    features
        `(n, n_features)`.
    target
        `(n, n_genes)`, log-normalized expression, ln(1 + 1e4 x / library size).
    group
        `(n,)` int, number of the section of each spot.
    label
        `(n,)` int, class of each spot, -1 where unknown; needed if the model has classes.

    Returns
    -------
    Mean squared error of the target over the spots left out, for each penalty that was tried: the model's own, or
    0.1 to 10^7 by half powers of ten. The one with the lowest is taken. For cell types, 1 to 10^5 by powers of ten
    are compared by their cross-entropy.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is not finite, or no label is known.
    """
    x, y, groups, labels = _checked(model, features, target, group, label)
    tried = PENALTIES if model.penalty is None else (model.penalty,)
    errors, label_errors = _left_out_errors(model, x, y, groups, labels, tried)
    components = Components.fit(x, len(model.components))
    z = components.transform(x)
    if len(np.unique(groups)) == 1:
        errors = _leave_one_out(z, y, tried)
    best = tried[int(errors.argmin())]
    solved = _ridge(z, y, best)
    write_rows(model.components, components.axes)
    write_rows(model.coefficients, solved.coef_)
    write_rows(model.intercept, solved.intercept_)
    write_rows(model.feature_mean, components.mean)
    write_rows(model.feature_scale, components.scale)
    model.chosen_penalty.fill_(best)
    if labels is not None:
        label_best = LABEL_PENALTIES[int(label_errors.argmin())]
        coefficients, intercept = classify(z, labels, model.n_classes, label_best)
        write_rows(model.label_coefficients, coefficients)
        write_rows(model.label_intercept, intercept)
        model.chosen_label_penalty.fill_(label_best)
    return dict(zip(tried, errors.tolist(), strict=True))


def _left_out_errors(
    model: Ridge,
    x: Floats,
    y: Floats,
    groups: NDArray[np.int64],
    labels: NDArray[np.int64] | None,
    tried: tuple[float, ...],
) -> tuple[Floats, Floats]:
    """Return the mean squared error for each penalty, and the cross-entropy of the cell types for each of theirs.

    With one group the first is not computed here: each spot is then left out alone.
    """
    errors, label_errors = np.zeros(len(tried)), np.zeros(len(LABEL_PENALTIES))
    one_group = len(np.unique(groups)) == 1
    if one_group and labels is None:
        return errors, label_errors
    for kept, left in grouped_folds(groups):
        components = Components.fit(x[kept], len(model.components))
        z, unseen = components.transform(x[kept]), components.transform(x[left])
        if not one_group:
            errors += [np.square(_ridge(z, y[kept], p).predict(unseen) - y[left]).sum() for p in tried]
        if labels is not None:
            label_errors += [
                cross_entropy(unseen, labels[left], *classify(z, labels[kept], model.n_classes, p))
                for p in LABEL_PENALTIES
            ]
    return errors / y.size, label_errors


def _ridge(z: Floats, y: Floats, penalty: float) -> Any:
    from sklearn import linear_model

    return linear_model.Ridge(penalty, solver="cholesky").fit(z, y)


def _leave_one_out(z: Floats, y: Floats, tried: tuple[float, ...]) -> Floats:
    from sklearn.linear_model import RidgeCV

    return np.array([-RidgeCV([penalty]).fit(z, y).best_score_ for penalty in tried])


def _checked(
    model: Ridge, features: ArrayLike, target: ArrayLike, group: ArrayLike, label: ArrayLike | None
) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64] | None]:
    x, y = np.asarray(features, dtype=np.float64), np.asarray(target, dtype=np.float64)
    groups = np.asarray(group, dtype=np.int64)
    n = len(x)
    expected: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
        "features": (x, (n, len(model.feature_mean))),
        "target": (y, (n, len(model.intercept))),
        "group": (groups, (n,)),
    }
    labels = None
    if model.n_classes:
        if label is None:
            raise ValueError(f"This model has {model.n_classes} classes: pass label=, -1 where unknown.")
        labels = np.asarray(label, dtype=np.int64)
        expected["label"] = (labels, (n,))
    for name, (values, shape) in expected.items():
        if values.shape != shape:
            raise ValueError(f"Expected `{name}` to be of shape {shape}, found {values.shape}.")
        if not np.isfinite(values).all():
            raise ValueError(f"Expected finite `{name}`, found {int((~np.isfinite(values)).sum())} NaN or infinite.")
    if n < 2:
        raise ValueError(f"Expected at least 2 spots to solve for, found {n}.")
    if labels is not None and not ((labels >= -1) & (labels < model.n_classes)).all():
        raise ValueError(f"Expected `label` from -1 to {model.n_classes - 1}, found {labels.min()} to {labels.max()}.")
    if labels is not None and (labels < 0).all():
        raise ValueError("No spot has a known `label`. Give labels, or a model without classes.")
    return x, y, groups, labels
