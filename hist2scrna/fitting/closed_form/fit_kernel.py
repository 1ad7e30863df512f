"""The kernel model, fitted in closed form: components, landmarks, programs, regressions, counts, cell types."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from hist2scrna.fitting.closed_form.components import as_buffer, write_rows
from hist2scrna.fitting.closed_form.counts import fit_decoder
from hist2scrna.fitting.closed_form.donors import (
    PRIOR_COUNTS,
    DonorCounts,
    Donors,
    depth_factor,
    log_shares,
    population_log_shares,
)
from hist2scrna.fitting.closed_form.folds import left_out_groups
from hist2scrna.fitting.closed_form.kernel import PENALTIES, regress
from hist2scrna.fitting.closed_form.labels import classify, one_hot
from hist2scrna.fitting.closed_form.programs import Programs
from hist2scrna.fitting.closed_form.spaces import Space, fit_components, see
from hist2scrna.fitting.result import FitResult, FitSettings, Split
from hist2scrna.messages import percent
from hist2scrna.metrics.blocks import Floats
from hist2scrna.models.kernel import NEAREST, KernelRegression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

# Spots that programs and the decoder are estimated on: more tell little more, and are held dense.
MOST_DENSE = 5000
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
    looks = [look[training] for look in (spots.features, spots.second_look) if look is not None]
    group, what = left_out_groups(spots, training)
    fit_components(model, looks)
    landmarks = _some(rng, len(training), model.n_landmarks)
    spaces = see(model, looks, landmarks)
    mean_distance = limit_distance(model, looks[0], landmarks, group)
    if len(np.unique(spots.section[training])) > 1:
        model.section_distance.fill_(mean_distance * (ANOTHER if len(looks) == 1 else ANOTHER_VARIED))

    counts = spots.counts[training]
    donors = Donors(np.zeros(len(training), dtype=np.int64) if spots.group is None else spots.group[training])
    dense = _some(rng, len(training), MOST_DENSE)
    programs = Programs.fit(counts, model.n_programs, dense, donors, settings.expression)
    targets = programs.scores
    label = spots.label[training] if model.n_classes and spots.label is not None else None
    if label is not None:
        targets = np.concatenate([targets, one_hot(label, model.n_classes)], axis=1)
    left_out, by_penalty = average(model, spaces, targets, group, donors)
    n_scores = programs.scores.shape[1]
    predicted = left_out[:, :n_scores].copy()
    # Depth as it is predicted of a donor whose level is known.
    predicted[:, 0] += programs.levels[donors.code]
    decoder = fit_decoder(counts[dense], programs.scores[dense], predicted[dense], model.likelihood, donors.code[dense])
    model.log_library_mean.fill_(programs.log_library_mean)
    write_rows(model.log_loadings, programs.log_loadings)
    write_rows(model.log_intercept, programs.log_intercept)
    for name in ("loadings", "intercept", "log_dispersion", "dropout_logits"):
        write_rows(getattr(model, name), getattr(decoder, name))
    set_levels(model, counts, predicted, programs.levels, donors, settings.expression)
    shrink_programs(model, donors, predicted)
    if label is not None:
        # Regressed classes become probabilities by a logistic regression on spots left out.
        weights, intercept = classify(left_out[:, n_scores:], label, model.n_classes, LABEL_PENALTY)
        write_rows(model.label_weights, weights)
        write_rows(model.label_intercept, intercept)
    return _result(by_penalty[:, :n_scores], left_out[:, :n_scores], programs, what, start)


def _some(rng: np.random.Generator, n: int, most: int) -> NDArray[np.int64]:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def limit_distance(
    model: KernelRegression, look: NDArray[np.float32], landmarks: NDArray[np.int64], group: NDArray[np.int64]
) -> float:
    """Set the distance from other sections that all but 1 % of the spots are within; return its mean, as a share.

    It is not by the metric of the kernel, which is blind to much that tells other tissue.
    """
    once = model.rotate(model.standardize(torch.from_numpy(look)))
    squares = model.distances(once).numpy().astype(np.float64)
    elsewhere = np.where(group[:, None] == group[landmarks], np.inf, squares)
    nearest = np.partition(elsewhere, min(NEAREST, len(landmarks) - 1), axis=1)[:, :NEAREST]
    within = np.isfinite(nearest).all(axis=1)
    distance = np.sqrt(nearest[within].mean(axis=1)) if within.any() else np.sqrt(np.median(squares, keepdims=True))
    limit = max(float(np.quantile(distance, FAR)), 1e-6)
    model.distance_limit.fill_(limit)
    return float(distance.mean()) / limit


def average(
    model: KernelRegression, spaces: Sequence[Space], targets: Floats, group: NDArray[np.int64], donors: Donors
) -> tuple[Floats, Floats]:
    """Regress on each space within donors, and set the weights of the mean of the regressions.

    Returns
    -------
    `(n, targets)`, each spot predicted without its group, at the level of its donor; `(penalties, targets)`, the
    squared error of that, by the penalty of all.
    """
    level = donors.means(targets)
    within = donors.centered(targets)
    offset = level.mean(axis=0)
    of_depth = sum(space.of_depth for space in spaces)
    left_out, tried = level[donors.code], np.tile(level[donors.code], (len(PENALTIES), 1, 1))
    for space in spaces:
        centered, seen = donors.centered(space.spots), donors.centered(space.seen)
        regression = regress(centered, seen, within, group)
        share = np.full(targets.shape[1], 1 / len(spaces))
        share[0] = space.of_depth / of_depth
        setattr(model, space.buffer, as_buffer(space.weights(regression.weights) * share))
        offset = offset - donors.means(space.spots).mean(axis=0) @ regression.weights * share
        left_out = left_out + donors.centered(regression.best_left_out) * share
        tried += (regression.left_out - _means(regression.left_out, donors)) * share
    write_rows(model.offset, offset)
    return left_out, np.square(tried - targets).mean(axis=1)


def _means(left_out: Floats, donors: Donors) -> Floats:
    """Return the mean of its donor for each row of each of several tables, `(tables, n, k)`."""
    return np.stack([donors.means(table)[donors.code] for table in left_out])


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
    log_mu = predicted @ model.loadings.numpy().astype(np.float64) + model.intercept.numpy()
    for donor in donors.present if len(donors.present) > 1 else ():
        members = donors.code == donor
        measured = np.asarray(counts[members].sum(axis=0), dtype=np.float64).ravel()
        expected = np.exp(log_mu[members]).sum(axis=0)
        model.donor_rates[donor] = as_buffer(np.log((measured + PRIOR_COUNTS) / (expected + PRIOR_COUNTS)))
    shift = population_log_shares(counts, donors, others) - log_shares(counts)
    # As the mean spot is as deep as before.
    change = np.log(np.exp(log_mu + shift).sum(axis=1)) - np.log(np.exp(log_mu).sum(axis=1))
    write_rows(model.rate_shift, shift - change.mean())


def shrink_programs(model: KernelRegression, donors: Donors, predicted: Floats) -> None:
    """Set how far each program is the same in another donor.

    With two donors or more, penalties are those of donors left out, and nothing is shrunk.
    """
    if len(donors.present) > 1:
        return
    moves = np.square(model.loadings[1:].numpy().astype(np.float64)).sum(axis=1) * predicted[:, 1:].var(axis=0)
    if moves.max() > 0:
        write_rows(model.program_shares, moves / (moves + PROGRAM_PRIOR * moves.max()))


def _result(by_penalty: Floats, predicted: Floats, programs: Programs, what: str, start: float) -> FitResult:
    """Return the history, and the share of expression's variance that is explained of what depth and programs hold."""
    scores = programs.scores
    moves = np.square(programs.log_loadings).sum(axis=1)
    variance = scores.var(axis=0) @ moves
    share = by_penalty @ moves / variance
    history = pd.DataFrame({"penalty": PENALTIES, "validation_loss": share})
    history["seconds"] = time.perf_counter() - start
    history.index.name = "epoch"
    explained = float(1 - np.square(predicted - scores).mean(axis=0) @ moves / variance)
    log.info(
        "Of the expression that depth and %d programs of %d spots hold, %s is explained in what was left out",
        scores.shape[1] - 1,
        len(scores),
        percent(explained),
    )
    notes = {"variance_explained": explained}
    validation = f"{what}, for penalties and dispersion"
    return FitResult(history, int(share.argmin()), time.perf_counter() - start, validation, notes)
