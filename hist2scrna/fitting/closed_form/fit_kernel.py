"""The model for few sections, solved: features, programs, kernel regression, counts, cell types."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from hist2scrna.fitting.augment import PictureVariation, StainVariation
from hist2scrna.fitting.closed_form.counts import fit_decoder
from hist2scrna.fitting.closed_form.folds import left_out_groups
from hist2scrna.fitting.closed_form.kernel import PENALTIES, regress
from hist2scrna.fitting.gradient import Trained
from hist2scrna.fitting.inference import encode_spots
from hist2scrna.fitting.objective import log_normalized
from hist2scrna.models.kernel import NEAREST, FewFeatures, FewSections
from hist2scrna.models.ridge import classify

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

    Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

# Spots that the axes of expression and the decoder are estimated on: more tell little more, and are held dense.
MOST_DENSE = 5000
FAR = 0.99
# Share of the mean variance between two looks that is added to each direction.
SHRINKAGE = 0.1


def solve_few(
    model: FewFeatures,
    spots: Spots,
    training: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    augment: bool,
    seed: int,
    progress: bool,
) -> Trained:
    """Solve the model on the training spots; every penalty is chosen on groups or sections left out in turn.

    With one section, five contiguous blocks take their place. The history has a row for each penalty:
    the squared error over the spots left out, of library size and programs together, as a share of their variance.

    Parameters
    ----------
    model
        Solved in place.
    spots
        All spots, with counts, and patches or features.
    training
        Numbers of the spots to solve on.
    batch_size
        Patches encoded at once.
    device
        Where they are encoded.
    augment
        Encode each patch twice: stained otherwise; and stained otherwise, turned, mirrored and out of focus. The mean
        of the two is learned from, and features are measured by how these differ. Spots left out are seen in the first
        way alone: so penalties, dispersions and the distance beyond which tissue is unlike allow for one look, and for
        stains that are not quite those of the training.
    seed
        Of the landmarks, and of the spots that programs are estimated on, where there are too many.
    progress
        Show a bar.
    """
    if spots.counts is None:
        raise ValueError("This model needs spots with counts.")
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    if isinstance(model, FewSections):
        model.load_imagenet()
    looks = [
        encode_spots(
            model,
            spots,
            training,
            batch_size=batch_size,
            device=device,
            progress=progress,
            augmentation=variation,
        )
        for variation in ((StainVariation(), PictureVariation()) if augment else (None,))
    ]
    model.cpu()
    group = left_out_groups(spots, training)
    _set_components(model, looks)
    landmarks = np.sort(_some(rng, len(training), len(model.landmarks)))
    kernel, seen = _place_landmarks(model, looks, landmarks, group)

    counts = spots.counts[training]
    dense = _some(rng, len(training), MOST_DENSE)
    scores, axes = _programs(model, counts, dense)
    targets = np.concatenate([scores, *_one_hot(model, spots, training)], axis=1)
    found = regress(kernel, seen, kernel[landmarks], targets, group)
    _keep(model.dual, found.dual)
    _keep(model.offset, found.offset)
    n_scores = scores.shape[1]
    predicted = found.left_out[:, :n_scores]
    decoder = fit_decoder(counts[dense], scores[dense], predicted[dense], model.likelihood)
    for name in ("loadings", "intercept", "log_dispersion", "dropout_logits"):
        _keep(getattr(model, name), getattr(decoder, name))
    _keep(model.value_loadings, axes[:-1])
    _keep(model.value_intercept, axes[-1])
    if model.n_classes and spots.label is not None:
        # Regressed classes become probabilities by a logistic regression on spots left out.
        weights, intercept = classify(found.left_out[:, n_scores:], spots.label[training], model.n_classes, penalty=1.0)
        _keep(model.label_weights, weights)
        _keep(model.label_intercept, intercept)

    share = found.errors[:, :n_scores].sum(axis=1) / scores.var(axis=0).sum()
    history = pd.DataFrame({"penalty": PENALTIES, "validation_loss": share})
    history["seconds"] = time.perf_counter() - start
    history.index.name = "epoch"
    log.info(
        "Library size and %d programs from %d spots: %.0f %% of their variance in sections left out is explained",
        n_scores - 1,
        len(training),
        100 * (1 - found.errors.min(axis=0)[:n_scores].sum() / scores.var(axis=0).sum()),
    )
    return Trained(history, int(share.argmin()), time.perf_counter() - start)


def _some(rng: np.random.Generator, n: int, most: int) -> NDArray[np.int64]:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _keep(buffer: torch.Tensor, values: Floats) -> None:
    """Write values into the first rows of a buffer; the others stay zero."""
    buffer.zero_()
    place = buffer[: len(values)] if values.ndim else buffer
    if values.ndim == 2:
        place = place[:, : values.shape[1]]
    place.copy_(torch.from_numpy(np.asarray(values)))


def _set_components(model: FewFeatures, looks: list[torch.Tensor]) -> None:
    """Set the principal components of the features and, where they were looked at twice, the metric of the kernel."""
    from sklearn.decomposition import PCA

    mean, scale = looks[0].mean(dim=0), looks[0].std(dim=0, correction=0)
    model.feature_mean.copy_(mean)
    model.feature_scale.copy_(torch.where(scale > 1e-6, scale, 1.0))
    standard = ((looks[0] - model.feature_mean) / model.feature_scale).numpy().astype(np.float64)
    most = min(len(model.components), *standard.shape)
    solver = "covariance_eigh" if len(standard) >= standard.shape[1] else "full"
    _keep(model.components, PCA(most, svd_solver=solver).fit(standard).components_)
    if isinstance(model, FewSections) and len(looks) > 1:
        one, two = (model.rotate(look)[:, :most].numpy().astype(np.float64) for look in looks)
        _keep(model.metric, whiten(two - one))


def whiten(change: Floats) -> Floats:
    """Return the `(k, k)` that whitens components by how two looks at a spot differ in them.

    The difference of two looks, `(n, k)`, tells nothing of a spot. Its covariance is shrunk towards a multiple of the
    identity: within-class covariance normalization (Hatch and Stolcke, ICASSP 2006), each spot a class.
    """
    values, vectors = np.linalg.eigh(change.T @ change / (2 * len(change)))
    values = np.maximum(values, 0)
    return vectors / np.sqrt(values + max(SHRINKAGE * float(values.mean()), 1e-12))


def _place_landmarks(
    model: FewFeatures, looks: list[torch.Tensor], landmarks: NDArray[np.int64], group: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Set landmarks, bandwidth and the distance beyond which tissue is unlike; return two kernels `(n, landmarks)`.

    The first is of the mean of the looks at each spot, which the landmarks are. A spot to predict is seen once: the
    second is of one look, as are the distances. These are not by the metric of the kernel, which is blind to much that
    tells other tissue.
    """
    rotated = model.rotate(torch.stack(looks).mean(dim=0))
    _keep(model.landmarks, rotated[landmarks].numpy())
    model.n_used.fill_(len(landmarks))
    among = model.kernel_distances(rotated).numpy().astype(np.float64)
    off_diagonal = among[landmarks][~np.eye(len(landmarks), dtype=bool)]
    bandwidth = max(float(np.median(off_diagonal)), 1e-6) if len(off_diagonal) else 1.0
    model.bandwidth.fill_(bandwidth)
    once = model.rotate(looks[0])
    squares = model.distances(once).numpy().astype(np.float64)
    elsewhere = np.where(group[:, None] == group[landmarks], np.inf, squares)
    nearest = np.partition(elsewhere, min(NEAREST, len(landmarks) - 1), axis=1)[:, :NEAREST]
    within = np.isfinite(nearest).all(axis=1)
    far = np.quantile(np.sqrt(nearest[within].mean(axis=1)), FAR) if within.any() else np.sqrt(np.median(squares))
    model.distance_limit.fill_(max(float(far), 1e-6))
    seen = model.kernel_distances(once).numpy().astype(np.float64)
    return np.exp(-among / bandwidth), np.exp(-seen / bandwidth)


def _programs(model: FewFeatures, counts: Any, dense: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return centered log library size and program scores, `(n, 1 + p)`, and what they make of expression.

    The second is `(2 + p, genes)`: log-normalized expression for a unit of each score, and its mean. Programs are the
    right singular vectors of log-normalized expression with the log library size regressed out, scores in units of
    their standard deviation.
    """
    from sklearn.utils.extmath import randomized_svd

    library = np.log(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel())
    model.log_library_mean.fill_(float(library.mean()))
    depth = library - library.mean()
    design = np.stack([depth, np.ones_like(depth)], axis=1)
    some = log_normalized(torch.from_numpy(counts[dense].toarray())).numpy().astype(np.float64)
    lines = np.linalg.lstsq(design[dense], some, rcond=None)[0]
    most = min(model.n_programs, len(dense) - 1, some.shape[1] - 1)
    _, _, vectors = randomized_svd(some - design[dense] @ lines, max(1, most), random_state=0)
    # All spots, block by block: a large table is never dense at once.
    scores = np.concatenate(
        [
            log_normalized(torch.from_numpy(counts[start : start + MOST_DENSE].toarray())).numpy() @ vectors.T
            for start in range(0, len(depth), MOST_DENSE)
        ]
    ) - design @ (lines @ vectors.T)
    spread = np.maximum(scores.std(axis=0), 1e-12)
    missing = model.n_programs - len(vectors)
    axes = np.concatenate([lines[:1], vectors * spread[:, None], np.zeros((missing, some.shape[1])), lines[1:]])
    unused = np.zeros((len(depth), missing))
    return np.concatenate([depth[:, None], scores / spread, unused], axis=1), axes


def _one_hot(model: FewFeatures, spots: Spots, training: NDArray[np.int64]) -> list[Floats]:
    """Return the classes as columns; spots without a label have the shares of the others."""
    if not model.n_classes or spots.label is None:
        return []
    label = spots.label[training]
    known = label >= 0
    columns = np.zeros((len(label), model.n_classes))
    columns[known, label[known]] = 1.0
    columns[~known] = columns[known].mean(axis=0) if known.any() else 0.0
    return [columns]
