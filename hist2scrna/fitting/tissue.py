"""The tissue that a model was trained on, and how far other tissue is from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import nct, norm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from hist2scrna.metrics.blocks import Floats

# What is compared: the features that the model reads; those of the built-in encoder, of its patches or tiles; or the
# model's own encoding of a patch.
FEATURES, ENCODER, ENCODING = "features", "imagenet", "encoding"
SOURCES = (FEATURES, ENCODER, ENCODING)
# Training spots that are kept, and how many of these, the nearest, a spot is compared with.
MOST_KEPT, NEAREST = 256, 5
# Fewer spots tell nothing of how tissue varies.
FEWEST = 10
# Standard deviations of the training beyond which a feature is taken as so far: of few spots, some hardly vary.
CLIP = 5.0
LEAST_DEVIATION = 1e-6
# Share of spots of tissue left out that are to be within the limit, and how sure it is to be that they are.
FAR, CONFIDENCE = 0.99, 0.95
# From the median absolute deviation to the standard deviation, of a normal distribution.
NORMAL_MAD = 1.4826
# Less sharpness than this is no blur, however alike training pictures are: of H&E a Gaussian of one pixel takes 1.1.
LEAST_BLUR = 0.7
ROWS = 4096


@dataclass(frozen=True)
class Tissue:
    """Some spots of the training, what is compared of them, and how far all of them were from tissue left out.

    Attributes
    ----------
    source
        Which features are compared; one of `SOURCES`.
    mean, scale
        `(d,)` float32, by which features are standardized; they are then clipped at five standard deviations.
    kept
        `(m, d)` float16, m up to 256: standardized features of training spots, drawn at random.
    limit
        Distance beyond which tissue is unlike the training.
    sharp, blurred
        Median :func:`~hist2scrna.images.sharpness.sharpness` of the training, and that below which a picture is
        blurred; NaN where the training had no picture.
    view, side
        How many times as wide as what is looked at for it a patch is, and the pixels to which that is brought: those
        of the coarsest image of the training.
    """

    source: str
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    kept: NDArray[np.float16]
    limit: float
    sharp: float
    blurred: float
    view: int
    side: int

    @classmethod
    def of(
        cls,
        source: str,
        looks: Sequence[NDArray[np.float32]],
        group: NDArray[np.int64],
        rng: np.random.Generator,
        sharpness: NDArray[np.float32] | None = None,
        view: int = 1,
        side: int = 0,
    ) -> Self:
        """Keep some of the training spots, and set the limits.

        Each spot is compared, as one to predict will be, with those that are kept of other groups. The limit is the
        largest of 99 % quantiles of these distances: of each group, and the upper tolerance bound of their logarithms,
        which of few spots lies well above what happened to be seen (95 % sure; Hahn and Meeker, Statistical Intervals,
        1991, section 4.6). A picture is blurred below the 1 % quantile of the training's sharpness, or the tolerance
        bound about its median, or 0.7 below the median, whichever is lowest.

        Parameters
        ----------
        source
            Which features these are.
        looks
            `(n, d)`, features of one look at each spot, as one to predict is seen, and of further looks; the mean of
            all is kept.
        group
            `(n,)`, what is left out together.
        rng
            Draws the spots that are kept.
        sharpness
            `(k,)`, of some of these spots; None: there are no pictures.
        view, side
            See above.
        """
        once = looks[0]
        mean = once.mean(axis=0, dtype=np.float64)
        deviation = once.std(axis=0, dtype=np.float64)
        scale = np.where(deviation > LEAST_DEVIATION, deviation, 1.0)
        mean, scale = mean.astype(np.float32), scale.astype(np.float32)
        chosen = np.sort(rng.permutation(len(once))[:MOST_KEPT])
        kept = np.mean([_standard(look[chosen], mean, scale) for look in looks], axis=0).astype(np.float16)
        distance = np.empty(len(once))
        for number in np.unique(group):
            own, others = group == number, group[chosen] != number
            distance[own] = _nearest(_standard(once[own], mean, scale), kept[others] if others.any() else kept)
        distance = np.maximum(distance, LEAST_DEVIATION)
        by_group = [np.quantile(distance[group == number], FAR) for number in np.unique(group)]
        logarithm = np.log(distance)
        bound = np.exp(logarithm.mean() + tolerance_factor(len(distance)) * logarithm.std(ddof=1))
        sharp = blurred = np.nan
        if sharpness is not None:
            sharp = float(np.median(sharpness))
            spread = max(NORMAL_MAD * float(np.median(np.abs(sharpness - sharp))), LEAST_DEVIATION)
            bound_of_blur = sharp - max(tolerance_factor(len(sharpness)) * spread, LEAST_BLUR)
            blurred = min(float(np.quantile(sharpness, 1 - FAR)), bound_of_blur)
        limit = float(max(bound, *by_group))
        return cls(source, mean, scale, kept, limit, float(sharp), float(blurred), view, side)

    def distance(self, features: NDArray[np.float32], sharpness: NDArray[np.float32] | None = None) -> Floats:
        """Return how far tissue is, `(n,)`: 1 is at the limit, by features or by blur, whichever is farther."""
        far = np.empty(len(features))
        for start in range(0, len(features), ROWS):
            standard = _standard(features[start : start + ROWS], self.mean, self.scale)
            far[start : start + ROWS] = _nearest(standard, self.kept) / self.limit
        if sharpness is None or not np.isfinite(self.blurred):
            return far
        # Of what was not looked at, features alone tell.
        return np.asarray(np.fmax(far, (self.sharp - sharpness) / (self.sharp - self.blurred)), dtype=np.float64)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        named["source"] = SOURCES.index(self.source)
        return {name: np.atleast_1d(np.asarray(value)) for name, value in named.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what :meth:`to_arrays` was called on.

        Raises
        ------
        KeyError
            If one of the arrays is missing.
        TypeError
            If they do not go together.
        """
        mean, scale, kept = (arrays[name] for name in ("mean", "scale", "kept"))
        limit, sharp, blurred = (float(arrays[name].ravel()[0]) for name in ("limit", "sharp", "blurred"))
        source, view, side = (int(arrays[name].ravel()[0]) for name in ("source", "view", "side"))
        fits = mean.ndim == 1 and scale.shape == mean.shape and kept.ndim == 2 and kept.shape[1:] == mean.shape
        known = 0 <= source < len(SOURCES) and len(kept) > 0 and limit > 0 and view > 0
        if not fits or not known:
            raise TypeError(f"arrays of the tissue do not go together: {mean.shape}, {scale.shape}, {kept.shape}")
        return cls(SOURCES[source], mean, scale, kept, limit, sharp, blurred, view, side)


def tolerance_factor(n: int) -> float:
    """Return how many standard deviations above the mean of `n` normal values 99 % of all are, 95 % sure.

    2.33 of infinitely many values, 2.7 of 100, 4.0 of 10.
    """
    root = np.sqrt(n)
    return float(nct.ppf(CONFIDENCE, n - 1, norm.ppf(FAR) * root) / root)


def _standard(features: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]) -> Any:
    return np.clip((features - mean) / scale, -CLIP, CLIP)


def _nearest(standard: Any, kept: Any) -> Floats:
    """Return the root mean squared distance to the nearest of those that are kept, `(n,)`."""
    one, other = np.asarray(standard, dtype=np.float32), np.asarray(kept, dtype=np.float32)
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1) - 2 * one @ other.T
    nearest = min(NEAREST, len(other))
    few = np.partition(np.maximum(squares, 0), nearest - 1, axis=1)[:, :nearest]
    return np.asarray(np.sqrt(few.mean(axis=1)), dtype=np.float64)
