"""The kernel model, fitted in closed form: components, landmarks, programs, regressions, counts, cell types."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from hist2scrna.fitting.closed_form.components import as_buffer, write_rows
from hist2scrna.fitting.closed_form.counts import CountDecoder, fit_decoder
from hist2scrna.fitting.closed_form.donors import (
    PRIOR_COUNTS,
    DonorCounts,
    Donors,
    depth_factor,
    log_shares,
    population_log_shares,
)
from hist2scrna.fitting.closed_form.folds import left_out_groups
from hist2scrna.fitting.closed_form.kernel import PENALTIES, ROWS, Regression, regress
from hist2scrna.fitting.closed_form.labels import classify, one_hot
from hist2scrna.fitting.closed_form.programs import MOST_DENSE, Programs
from hist2scrna.fitting.closed_form.spaces import FeatureTables, fit_components, see
from hist2scrna.fitting.result import FitResult, FitSettings, Split
from hist2scrna.messages import percent
from hist2scrna.metrics.blocks import Floats, blocks, taken
from hist2scrna.models.kernel import NEAREST, KernelRegression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

# Spots that the components of the features are estimated on: more tell little more, and are held dense.
MOST_ROTATED = 20_000
# Share of the training spots within the distance beyond which tissue is unlike the training.
FAR = 0.99
LABEL_PENALTY = 1.0
# Shares of the mean distance between training sections beyond which a section is taken for another donor's. Of her2st,
# sections of one tumor were at .77 to .93, those of another at 1.08 to 1.26; at .74 to .89 and 1.00 to 1.15 where
# training patches were varied, which takes them apart.
ANOTHER, ANOTHER_VARIED = 1.02, 0.95
# What shrinks programs that move little on tissue of another donor, where one was trained on.
PROGRAM_PRIOR = 0.05


def fit_kernel(model: KernelRegression, spots: Spots, split: Split, settings: FitSettings) -> FitResult:
    """Fit the model on the training spots; every penalty is chosen on groups or sections left out in turn.

    With one section, five contiguous blocks take their place. With several donors, everything is learned within donors:
    how deep one was sequenced, and how much of a gene it has, no picture tells. Donors with counts alone
    (`settings.expression`) tell which genes go together, and the levels of another donor. The history has a row for
    each penalty: the squared error over the spots left out, of library size and programs together, each weighted by the
    expression that it moves, as a share of the variance.

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
    looks = [taken(look, training) for look in (spots.features, spots.second_look) if look is not None]
    group, what = left_out_groups(spots, training)
    landmarks = _some(rng, len(training), model.n_landmarks)
    dense = _some(rng, len(training), MOST_DENSE)
    fit_components(model, looks, _some(rng, len(training), MOST_ROTATED))
    tables = see(model, looks, landmarks)
    mean_distance = limit_distance(model, looks[0], landmarks, group)
    if len(np.unique(spots.section[training])) > 1:
        model.section_distance.fill_(mean_distance * (ANOTHER if len(looks) == 1 else ANOTHER_VARIED))

    counts = taken(spots.counts, training)
    donors = Donors(np.zeros(len(training), dtype=np.int64) if spots.group is None else spots.group[training])
    programs = Programs.fit(counts, model.n_programs, dense, donors, settings.expression)
    targets = programs.scores
    label = spots.label[training] if model.n_classes and spots.label is not None else None
    if label is not None:
        targets = np.concatenate([targets, one_hot(label, model.n_classes)], axis=1)
    regression = regress(tables, targets, group, donors)
    _keep(model, tables, regression)
    n_scores = programs.scores.shape[1]
    predicted = regression.left_out[:, :n_scores]
    explained = _explained(predicted, programs)
    # Depth as it is predicted of a donor whose level is known.
    predicted[:, 0] += programs.levels[donors.code]
    decoder = fit_decoder(counts[dense], programs.scores[dense], predicted[dense], model.likelihood, donors.code[dense])
    _keep_decoder(model, programs, decoder)
    with_levels = [other for other in settings.expression if not other.of_cells]
    set_levels(model, counts, predicted, programs.levels, donors, with_levels)
    shrink_programs(model, donors, predicted)
    if label is not None:
        # Regressed classes become probabilities by a logistic regression on spots left out.
        coefficients, intercept = classify(regression.left_out[:, n_scores:], label, model.n_classes, LABEL_PENALTY)
        write_rows(model.label_weights, coefficients)
        write_rows(model.label_intercept, intercept)
    history = _history(regression, programs, start)
    best, validation = int(history["validation_loss"].to_numpy().argmin()), f"{what}, for penalties and dispersion"
    return FitResult(history, best, time.perf_counter() - start, validation, {"variance_explained": explained})


def _some(rng: np.random.Generator, n: int, most: int) -> NDArray[np.int64]:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def limit_distance(
    model: KernelRegression, look: NDArray[np.float32], landmarks: NDArray[np.int64], group: NDArray[np.int64]
) -> float:
    """Set the distance from other sections that all but 1 % of the spots are within; return its mean, as a share.

    It is not by the metric of the kernel, which is blind to much that tells other tissue. Where so few landmarks are of
    other sections that nothing can be said, it is the median distance to any.
    """
    nearest, squares = np.empty(len(look)), np.empty(0)
    few = min(NEAREST, len(landmarks) - 1)
    for start in range(0, len(look), ROWS):
        rows = slice(start, start + ROWS)
        once = model.rotate(model.standardize(torch.from_numpy(look[rows])))
        squares = model.distances(once).numpy().astype(np.float64)
        elsewhere = np.where(group[rows, None] == group[landmarks], np.inf, squares)
        nearest[rows] = np.partition(elsewhere, few, axis=1)[:, :NEAREST].mean(axis=1)
    within = np.isfinite(nearest)
    distance = np.sqrt(nearest[within]) if within.any() else np.sqrt(np.median(squares, keepdims=True))
    limit = max(float(np.quantile(distance, FAR)), 1e-6)
    model.distance_limit.fill_(limit)
    return float(distance.mean()) / limit


def set_levels(
    model: KernelRegression,
    counts: sparse.csr_array,
    predicted: Floats,
    levels: Floats,
    donors: Donors,
    others: Sequence[DonorCounts],
) -> None:
    """Set the levels of depth and of genes of each donor, those of another one, and how far its depth may be off."""
    model.levels = as_buffer(levels)
    means = [*(levels[donors.present] + float(model.log_library_mean)), *(other.mean_log_depth for other in others)]
    log_factor, variance = depth_factor(np.array(means) - np.mean(means))
    model.log_library_shift.fill_(float(np.mean(means)) + log_factor - float(model.log_library_mean))
    model.depth_variance.fill_(variance)
    model.donor_rates = torch.zeros(len(donors), model.intercept.shape[0])
    if len(means) == 1:
        log.info(
            "Trained on one donor: intervals are those of further sections of this donor. On tissue of another they "
            "are wider, as if the depth of the section were off by a factor of variance %.2g",
            float(model.depth_variance),
        )
        return
    shift = population_log_shares(counts, donors, others) - log_shares(counts)
    loadings, intercept = (buffer.numpy().astype(np.float64) for buffer in (model.loadings, model.intercept))
    expected, change = np.zeros((len(donors), len(intercept))), 0.0
    for rows in blocks(len(predicted), len(intercept)):
        mu = np.exp(predicted[rows] @ loadings + intercept)
        expected += (np.arange(len(donors))[:, None] == donors.code[rows]).astype(np.float64) @ mu
        change += float(np.log((mu * np.exp(shift)).sum(axis=1) / mu.sum(axis=1)).sum())
    for donor in donors.present if len(donors.present) > 1 else ():
        measured = np.asarray(counts[donors.code == donor].sum(axis=0), dtype=np.float64).ravel()
        model.donor_rates[donor] = as_buffer(np.log((measured + PRIOR_COUNTS) / (expected[donor] + PRIOR_COUNTS)))
    # As the mean spot is as deep as before.
    write_rows(model.rate_shift, shift - change / len(predicted))


def shrink_programs(model: KernelRegression, donors: Donors, predicted: Floats) -> None:
    """Set how far each program is the same in another donor.

    With two donors or more, penalties are those of donors left out, and nothing is shrunk.
    """
    if len(donors.present) > 1:
        return
    moves = np.square(model.loadings[1:].numpy().astype(np.float64)).sum(axis=1) * predicted[:, 1:].var(axis=0)
    if moves.max() > 0:
        write_rows(model.program_shares, moves / (moves + PROGRAM_PRIOR * moves.max()))


def _keep(model: KernelRegression, tables: FeatureTables, regression: Regression) -> None:
    for space, weights in zip(tables.spaces, regression.weights, strict=True):
        setattr(model, space.buffer, as_buffer(weights))
    write_rows(model.offset, regression.offset)


def _keep_decoder(model: KernelRegression, programs: Programs, decoder: CountDecoder) -> None:
    model.log_library_mean.fill_(programs.log_library_mean)
    write_rows(model.log_loadings, programs.log_loadings)
    write_rows(model.log_intercept, programs.log_intercept)
    for name in ("loadings", "intercept", "log_dispersion", "dropout_logits"):
        write_rows(getattr(model, name), getattr(decoder, name))


def _explained(predicted: Floats, programs: Programs) -> float:
    """Return the share of the variance that is explained of the expression that depth and programs hold."""
    moves = np.square(programs.log_loadings).sum(axis=1)
    columns = zip(predicted.T, programs.scores.T, strict=True)
    error = np.array([np.square(one - other).mean() for one, other in columns])
    explained = float(1 - error @ moves / (programs.scores.var(axis=0) @ moves))
    log.info(
        "Of the expression that depth and %d programs of %d spots hold, %s is explained in what was left out",
        len(moves) - 1,
        len(predicted),
        percent(explained),
    )
    return explained


def _history(regression: Regression, programs: Programs, start: float) -> pd.DataFrame:
    """Return the error by penalty, each score weighted by the expression that it moves, as a share of the variance."""
    moves = np.square(programs.log_loadings).sum(axis=1)
    share = regression.error[:, : len(moves)] @ moves / (programs.scores.var(axis=0) @ moves)
    history = pd.DataFrame({"penalty": PENALTIES, "validation_loss": share})
    history["seconds"] = time.perf_counter() - start
    history.index.name = "epoch"
    return history
