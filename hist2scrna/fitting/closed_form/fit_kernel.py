"""The kernel model, fitted in closed form: components, landmarks, programs, regression, counts, cell types."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from hist2scrna.fitting.closed_form.components import Components, as_buffer, write_rows
from hist2scrna.fitting.closed_form.counts import fit_decoder
from hist2scrna.fitting.closed_form.folds import left_out_groups
from hist2scrna.fitting.closed_form.kernel import PENALTIES, Regression, regress
from hist2scrna.fitting.closed_form.labels import classify, one_hot
from hist2scrna.fitting.closed_form.programs import Programs
from hist2scrna.fitting.result import FitResult, FitSettings, Split
from hist2scrna.metrics.blocks import Floats
from hist2scrna.models.kernel import NEAREST, KernelRegression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

# Spots that programs and the decoder are estimated on: more tell little more, and are held dense.
MOST_DENSE = 5000
# Share of the training spots within the distance beyond which tissue is unlike the training.
FAR = 0.99
# Share of the mean variance between two encodings that is added to each direction.
SHRINKAGE = 0.1
LABEL_PENALTY = 1.0


def fit_kernel(model: KernelRegression, spots: Spots, split: Split, settings: FitSettings) -> FitResult:
    """Fit the model on the training spots; every penalty is chosen on groups or sections left out in turn.

    With one section, five contiguous blocks take their place. The history has a row for each penalty: the squared
    error over the spots left out, of library size and programs together, as a share of their variance.

    Where each patch was encoded twice (`spots.second_look`), the mean of the two is learned from, and features are
    measured by how these differ. Spots left out are seen as the first encoding has them: so penalties, dispersions and
    the distance beyond which tissue is unlike allow for one look, and for stains that are not quite those of the
    training.

    Raises
    ------
    ValueError
        If the spots were read without counts or features.
    """
    if spots.counts is None or spots.features is None:
        raise ValueError("The kernel model needs spots with counts and features.")
    start = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    training = split.training
    looks = [look[training] for look in (spots.features, spots.second_look) if look is not None]
    group = left_out_groups(spots, training)
    fit_components(model, looks)
    landmarks = _some(rng, len(training), model.n_landmarks)
    kernel, seen_once = place_landmarks(model, looks, landmarks, group)

    counts = spots.counts[training]
    dense = _some(rng, len(training), MOST_DENSE)
    programs = Programs.fit(counts, model.n_programs, dense)
    targets = programs.scores
    label = spots.label[training] if model.n_classes and spots.label is not None else None
    if label is not None:
        targets = np.concatenate([targets, one_hot(label, model.n_classes)], axis=1)
    regression = regress(kernel, seen_once, kernel[landmarks], targets, group)
    n_scores = programs.scores.shape[1]
    predicted = regression.left_out[:, :n_scores]
    decoder = fit_decoder(counts[dense], programs.scores[dense], predicted[dense], model.likelihood)
    model.dual = as_buffer(regression.dual)
    write_rows(model.offset, regression.offset)
    model.log_library_mean.fill_(programs.log_library_mean)
    write_rows(model.log_loadings, programs.log_loadings)
    write_rows(model.log_intercept, programs.log_intercept)
    for name in ("loadings", "intercept", "log_dispersion", "dropout_logits"):
        write_rows(getattr(model, name), getattr(decoder, name))
    if label is not None:
        # Regressed classes become probabilities by a logistic regression on spots left out.
        scores = regression.left_out[:, n_scores:]
        weights, intercept = classify(scores, label, model.n_classes, LABEL_PENALTY)
        write_rows(model.label_weights, weights)
        write_rows(model.label_intercept, intercept)
    return _result(regression, programs.scores, start)


def _some(rng: np.random.Generator, n: int, most: int) -> NDArray[np.int64]:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def fit_components(model: KernelRegression, looks: Sequence[NDArray[np.float32]]) -> None:
    """Set the principal components of the features and, where there are two looks, the metric of the kernel."""
    components = Components.fit(looks[0], model.n_components)
    write_rows(model.feature_mean, components.mean)
    write_rows(model.feature_scale, components.scale)
    model.components = as_buffer(components.axes)
    model.metric = torch.eye(len(model.components))
    if len(looks) > 1:
        one, two = (model.rotate(torch.from_numpy(look)).numpy().astype(np.float64) for look in looks)
        model.metric = as_buffer(whiten(two - one))


def whiten(change: Floats) -> Floats:
    """Return the `(k, k)` that whitens components by how two looks at a spot differ in them.

    The difference of two looks, `(n, k)`, tells nothing of a spot. Its covariance is shrunk towards a multiple of the
    identity: within-class covariance normalization (Hatch and Stolcke, ICASSP 2006), each spot a class.
    """
    values, vectors = np.linalg.eigh(change.T @ change / (2 * len(change)))
    values = np.maximum(values, 0)
    return vectors / np.sqrt(values + max(SHRINKAGE * float(values.mean()), 1e-12))


def place_landmarks(
    model: KernelRegression,
    looks: Sequence[NDArray[np.float32]],
    landmarks: NDArray[np.int64],
    group: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """Set landmarks, bandwidth and the distance beyond which tissue is unlike; return two kernels `(n, landmarks)`.

    The first is of the mean of the looks at each spot, which the landmarks are. A spot to predict is seen once: the
    second is of one look, as are the distances. These are not by the metric of the kernel, which is blind to much that
    tells other tissue.
    """
    mean = torch.stack([torch.from_numpy(look) for look in looks]).mean(dim=0)
    rotated = model.rotate(mean)
    model.landmarks = as_buffer(rotated[torch.from_numpy(landmarks)].numpy())
    among = model.kernel_distances(rotated).numpy().astype(np.float64)
    off_diagonal = among[landmarks][~np.eye(len(landmarks), dtype=bool)]
    bandwidth = max(float(np.median(off_diagonal)), 1e-6) if len(off_diagonal) else 1.0
    model.bandwidth.fill_(bandwidth)
    once = model.rotate(torch.from_numpy(looks[0]))
    squares = model.distances(once).numpy().astype(np.float64)
    elsewhere = np.where(group[:, None] == group[landmarks], np.inf, squares)
    nearest = np.partition(elsewhere, min(NEAREST, len(landmarks) - 1), axis=1)[:, :NEAREST]
    within = np.isfinite(nearest).all(axis=1)
    far = np.quantile(np.sqrt(nearest[within].mean(axis=1)), FAR) if within.any() else np.sqrt(np.median(squares))
    model.distance_limit.fill_(max(float(far), 1e-6))
    seen_once = model.kernel_distances(once).numpy().astype(np.float64)
    return np.exp(-among / bandwidth), np.exp(-seen_once / bandwidth)


def _result(regression: Regression, scores: Floats, start: float) -> FitResult:
    n_scores = scores.shape[1]
    variance = scores.var(axis=0).sum()
    share = regression.errors[:, :n_scores].sum(axis=1) / variance
    history = pd.DataFrame({"penalty": PENALTIES, "validation_loss": share})
    history["seconds"] = time.perf_counter() - start
    history.index.name = "epoch"
    explained = float(1 - regression.errors.min(axis=0)[:n_scores].sum() / variance)
    log.info(
        "Library size and %d programs from %d spots: %.0f %% of their variance in sections left out is explained",
        n_scores - 1,
        len(scores),
        100 * explained,
    )
    left_out = "groups, sections or blocks left out in turn, for penalties and dispersion"
    notes = {"variance_explained": explained}
    return FitResult(history, int(share.argmin()), time.perf_counter() - start, left_out, notes)
