"""Ridge regression on the principal components of features: the floor that every network must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from hist2scrna.models.contract import Context, Likelihood, Prediction, SpotBatch, SpotModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

PENALTIES = tuple(float(p) for p in 10.0 ** np.arange(-1, 7.5, 0.5))
LABEL_PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
MOST_FOLDS = 5
# The logit of a class that no training spot shows.
ABSENT = -30.0


class Ridge(SpotModel):
    """Ridge regression on principal components of features, solved at once instead of trained.

    The features are standardized, rotated to their principal components, and every gene is a linear function of these.
    Cell types, where there are any, are a multinomial logistic regression on the same components. A spot is predicted
    from its own features alone: context `spot`. Nothing keeps a prediction above zero. This is how HEST-Bench compares
    encoders: Jaume et al., HEST-1k, NeurIPS 2024.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0: none are predicted).
    n_features
        Width of the features.
    n_components
        Most principal components. With as many as features this is ridge regression on the standardized features;
        fewer make wide features (1,000 and more) fast and less apt to overfit.
    penalty
        Weight of the squared coefficients of expression, as `alpha` of :class:`sklearn.linear_model.Ridge`; None:
        chosen by :meth:`solve`. That of the cell types is always chosen.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    needs = "features"
    likelihood: Likelihood = "mse"

    feature_mean: Tensor
    feature_scale: Tensor
    components: Tensor
    coefficients: Tensor
    intercept: Tensor
    label_coefficients: Tensor
    label_intercept: Tensor
    chosen_penalty: Tensor
    chosen_label_penalty: Tensor

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        n_features: int,
        n_components: int = 256,
        penalty: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_features", n_features), ("n_components", n_components)):
            if value < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, found {value}.")
        if penalty is not None and not 0 < penalty < float("inf"):
            raise ValueError(f"Expected `penalty` to be a positive number, found {penalty}.")
        self.context = Context("spot")
        self.n_classes = n_classes
        self.penalty = penalty
        width = min(n_components, n_features)
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))
        self.register_buffer("components", torch.zeros(width, n_features))
        self.register_buffer("coefficients", torch.zeros(n_genes, width))
        self.register_buffer("intercept", torch.zeros(n_genes))
        self.register_buffer("label_coefficients", torch.zeros(n_classes, width))
        self.register_buffer("label_intercept", torch.zeros(n_classes))
        self.register_buffer("chosen_penalty", torch.tensor(float("nan")))
        self.register_buffer("chosen_label_penalty", torch.tensor(float("nan")))

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the principal components of the features, `(n, min(n_components, n_features))`."""
        if batch.features is None:
            raise ValueError("ridge reads features, but the batch holds none.")
        # Least squares has no noise to hide the rounding of half precision in.
        with torch.autocast(batch.features.device.type, enabled=False):
            return (batch.features.float() - self.feature_mean) / self.feature_scale @ self.components.T

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict log-normalized expression and cell types of the core spots from their components."""
        own = tokens[: batch.n_core].float()
        with torch.autocast(own.device.type, enabled=False):
            return Prediction(
                embedding=own,
                value=own @ self.coefficients.T + self.intercept,
                label_logits=own @ self.label_coefficients.T + self.label_intercept if self.n_classes else None,
            )

    def solve(
        self, features: ArrayLike, target: ArrayLike, group: ArrayLike, label: ArrayLike | None = None
    ) -> dict[float, float]:
        """Choose the penalties by cross-validation, and solve for the coefficients with all spots.

        Whole groups are left out, one in turn, or a fifth of them where there are more than five; scaling, components
        and coefficients come from the other spots each time. With one group only, each spot is left out alone, after
        scaling and components have seen it (for cell types, a fifth of the spots, in their order): its neighbors,
        which are much like it, then tell what it is, so that the error is too low, and likely the penalty too. Give the
        numbers of contiguous blocks as `group` to avoid that.

        Parameters
        ----------
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
        Mean squared error of the target over the spots left out, for each penalty that was tried: the given one, or
        0.1 to 10^7 by half powers of ten. The one with the lowest is taken. For cell types, 1 to 10^5 by powers of ten
        are compared by their cross-entropy.

        Raises
        ------
        ValueError
            If a shape does not fit, a value is not finite, or no label is known.
        """
        x, y, groups, labels = self._checked(features, target, group, label)
        penalties = PENALTIES if self.penalty is None else (self.penalty,)
        errors = np.zeros(len(penalties))
        label_errors = np.zeros(len(LABEL_PENALTIES))
        alone = len(np.unique(groups)) == 1
        for kept, left in () if alone and labels is None else _folds(groups):
            scaler, pca = _components(x[kept], len(self.components))
            found, tested = (pca.transform(scaler.transform(x[part])) for part in (kept, left))
            if not alone:
                errors += [np.square(_ridge(found, y[kept], p).predict(tested) - y[left]).sum() for p in penalties]
            if labels is not None:
                label_errors += [
                    _cross_entropy(tested, labels[left], *classify(found, labels[kept], self.n_classes, p))
                    for p in LABEL_PENALTIES
                ]

        scaler, pca = _components(x, len(self.components))
        found = pca.transform(scaler.transform(x))
        errors = _leave_one_out(found, y, penalties) if alone else errors / y.size
        best = penalties[int(errors.argmin())]
        solved = _ridge(found, y, best)
        self._keep(self.components, pca.components_)
        self._keep(self.coefficients.T, solved.coef_.T)
        self.intercept.copy_(torch.from_numpy(solved.intercept_))
        self.feature_mean.copy_(torch.from_numpy(scaler.mean_ + scaler.scale_ * pca.mean_))
        self.feature_scale.copy_(torch.from_numpy(scaler.scale_))
        self.chosen_penalty.fill_(best)
        if labels is not None:
            label_best = LABEL_PENALTIES[int(label_errors.argmin())]
            coefficients, intercept = classify(found, labels, self.n_classes, label_best)
            self._keep(self.label_coefficients.T, coefficients.T)
            self.label_intercept.copy_(torch.from_numpy(intercept))
            self.chosen_label_penalty.fill_(label_best)
        return dict(zip(penalties, errors.tolist(), strict=True))

    @staticmethod
    def _keep(buffer: Tensor, rows: NDArray[np.float64]) -> None:
        """Write one row a component; those that could not be found stay zero."""
        buffer.zero_()
        buffer[: len(rows)] = torch.from_numpy(rows).to(buffer)

    def _checked(
        self, features: ArrayLike, target: ArrayLike, group: ArrayLike, label: ArrayLike | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64] | None]:
        x, y = np.asarray(features, dtype=np.float64), np.asarray(target, dtype=np.float64)
        groups = np.asarray(group, dtype=np.int64)
        n = len(x)
        expected: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "features": (x, (n, len(self.feature_mean))),
            "target": (y, (n, len(self.intercept))),
            "group": (groups, (n,)),
        }
        labels = None
        if self.n_classes:
            if label is None:
                raise ValueError(f"This model has {self.n_classes} classes: pass label=, -1 where unknown.")
            labels = np.asarray(label, dtype=np.int64)
            expected["label"] = (labels, (n,))
        for name, (values, shape) in expected.items():
            if values.shape != shape:
                raise ValueError(f"Expected `{name}` to be of shape {shape}, found {values.shape}.")
            if not np.isfinite(values).all():
                raise ValueError(
                    f"Expected finite `{name}`, found {int((~np.isfinite(values)).sum())} NaN or infinite."
                )
        if n < 2:
            raise ValueError(f"Expected at least 2 spots to solve for, found {n}.")
        if labels is not None and not ((labels >= -1) & (labels < self.n_classes)).all():
            raise ValueError(
                f"Expected `label` from -1 to {self.n_classes - 1}, found {labels.min()} to {labels.max()}."
            )
        if labels is not None and (labels < 0).all():
            raise ValueError("No spot has a known `label`. Give labels, or a model without classes.")
        return x, y, groups, labels


def _folds(groups: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the spots kept and those left out; of one group, fifths in the order of the spots."""
    from sklearn.model_selection import GroupKFold, KFold

    n_groups = len(np.unique(groups))
    if n_groups == 1:
        return KFold(min(MOST_FOLDS, len(groups))).split(groups)
    return GroupKFold(min(MOST_FOLDS, n_groups)).split(groups, groups=groups)


def _components(x: NDArray[np.float64], most: int) -> tuple[Any, Any]:
    """Return a fitted scaler and a fitted PCA with `most` components, or as many as there can be."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    solver = "covariance_eigh" if len(x) >= x.shape[1] else "full"
    return scaler, PCA(min(most, *x.shape), svd_solver=solver).fit(scaler.transform(x))


def _ridge(found: NDArray[np.float64], y: NDArray[np.float64], penalty: float) -> Any:
    from sklearn import linear_model

    return linear_model.Ridge(penalty, solver="cholesky").fit(found, y)


def _leave_one_out(
    found: NDArray[np.float64], y: NDArray[np.float64], penalties: tuple[float, ...]
) -> NDArray[np.float64]:
    from sklearn.linear_model import RidgeCV

    return np.array([-RidgeCV([penalty]).fit(found, y).best_score_ for penalty in penalties])


def classify(
    found: NDArray[np.float64], labels: NDArray[np.int64], n_classes: int, penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coefficients `(n_classes, k)` and intercepts `(n_classes,)` of a multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression

    known = labels >= 0
    classes = np.unique(labels[known])
    coefficients, intercept = np.zeros((n_classes, found.shape[1])), np.full(n_classes, ABSENT)
    intercept[classes] = 0.0
    if len(classes) > 1:
        solved = LogisticRegression(C=1 / penalty, max_iter=1000).fit(found[known], labels[known])
        # Of two classes, scikit-learn gives the logit of the second alone.
        rows = classes if len(classes) > 2 else classes[1:]
        coefficients[rows], intercept[rows] = solved.coef_, solved.intercept_
    return coefficients, intercept


def _cross_entropy(
    found: NDArray[np.float64],
    labels: NDArray[np.int64],
    coefficients: NDArray[np.float64],
    intercept: NDArray[np.float64],
) -> float:
    known = np.flatnonzero(labels >= 0)
    log_probability = log_softmax(found[known] @ coefficients.T + intercept, axis=1)
    return -float(log_probability[np.arange(len(known)), labels[known]].sum())
