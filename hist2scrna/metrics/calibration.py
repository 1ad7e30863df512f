"""Predicted distributions against counts: likelihood, deviance, coverage and probability integral transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from hist2scrna.metrics.blocks import Floats, Table, as_table, blocks, dense
from hist2scrna.metrics.zeros import ZeroTally
from hist2scrna.zinb import NB, ZINB, CountDistribution, Poisson

LEVELS = (0.5, 0.8, 0.95)
PIT_BINS = 20
FINE_BINS = 1000
# Values of which intervals are measured: quantiles take long, and the mean over so many is known to a per cent.
MOST_MEASURED = 20_000
# A mean of 0, or a dropout of 1 in float32, would make one stray count infinitely unlikely.
LOWEST_MEAN, HIGHEST_DROPOUT, DISPERSIONS = 1e-8, 1 - 1e-7, (1e-8, 1e8)


def distribution(mu: Any, dispersion: Any = None, dropout: Any = None) -> ZINB | NB | Poisson:
    """Return a Poisson in float64; with `dispersion` a negative binomial, with `dropout` a zero-inflated one."""
    mean = torch.from_numpy(np.maximum(np.asarray(mu, dtype=np.float64), LOWEST_MEAN))
    if dispersion is None:
        return Poisson.from_parameters(mean)
    theta = torch.from_numpy(np.clip(np.asarray(dispersion, dtype=np.float64), *DISPERSIONS))
    if dropout is None:
        return NB.from_parameters(mean, theta)
    pi = np.minimum(np.asarray(dropout, dtype=np.float64), HIGHEST_DROPOUT)
    return ZINB.from_parameters(mean, theta, torch.from_numpy(pi))


def bounds(
    counts: Floats, p_zero: Floats, probability: Floats, mu: Any, dispersion: Any = None, dropout: Any = None
) -> tuple[Floats, Floats]:
    """Return F(x - 1) and F(x) of every count, given P(0) and P(x).

    The distribution function, by far the slowest to compute, is evaluated once, and for counts above zero only.
    """
    lower, upper = np.zeros_like(counts), p_zero.copy()
    above = counts > 0
    parameters = (None if p is None else np.broadcast_to(p, counts.shape)[above] for p in (mu, dispersion, dropout))
    upper[above] = distribution(*parameters).cdf(torch.from_numpy(counts[above])).numpy()
    lower[above] = np.clip(upper[above] - probability[above], 0, None)
    return lower, upper


def interval_widths(predicted: CountDistribution, level: float) -> Floats:
    """Return how many counts the central `level` of each distribution holds.

    A count on the edge is held by the share of its probability that is within, as in the coverage: the width of a
    distribution that is zero with a probability of .9 is .56 counts at 50 %.
    """
    low, high = (1 - level) / 2, (1 + level) / 2
    ends = torch.stack([predicted.quantile(low), predicted.quantile(high)])
    upper, lower = predicted.cdf(ends).numpy(), predicted.cdf(ends - 1).numpy()
    held = _share_within(lower, upper, low, high)
    between = (ends[1] - ends[0]).numpy()
    return np.where(between > 0, held.sum(axis=0) + between - 1, held[0])


class CountTally:
    """Adds up blocks of genes x spots.

    Parameters
    ----------
    n_genes
        Number of genes.
    seed
        Of the randomized probability integral transform, and of the spots whose intervals are measured.
    """

    def __init__(self, n_genes: int, seed: int) -> None:
        self.rng, self.spot_rng = np.random.default_rng(seed), np.random.default_rng(seed)
        self.measured_spots: NDArray[np.int64] | None = None
        self.log_likelihood = np.full(n_genes, np.nan)
        self.deviance = np.full(n_genes, np.nan)
        self.poisson_deviance = np.full(n_genes, np.nan)
        self.p_zero = np.full(n_genes, np.nan)
        self.zeros = ZeroTally()
        self.covered = np.zeros((2, len(LEVELS)))
        self.width = np.zeros((len(LEVELS), n_genes))
        self.fine = np.zeros(FINE_BINS, dtype=np.int64)

    def add(self, genes: slice, counts: Floats, mu: Any, dispersion: Any = None, dropout: Any = None) -> Floats:
        """Take a block, all `(genes, spots)`, and return the probabilities of zero."""
        predicted = distribution(mu, dispersion, dropout)
        x = torch.from_numpy(counts)
        log_probability = predicted.log_prob(x).numpy()
        self.log_likelihood[genes] = log_probability.mean(axis=1)
        self.deviance[genes] = predicted.deviance(x).mean(dim=1).numpy()
        mean = predicted.mean.numpy()
        self.poisson_deviance[genes] = distribution(mean).deviance(x).mean(dim=1).numpy()
        p_zero = predicted.p_zero.numpy()
        self.p_zero[genes] = p_zero.mean(axis=1)
        self.zeros.add(counts, p_zero, mean)
        lower, upper = bounds(counts, p_zero, np.exp(log_probability), mu, dispersion, dropout)
        for i, level in enumerate(LEVELS):
            low, high = (1 - level) / 2, (1 + level) / 2
            self.covered[0, i] += _share_within(lower, upper, low, high).sum()
            self.covered[1, i] += np.count_nonzero((upper >= low) & (lower < high))
        self._measure(genes, counts.shape, mu, dispersion, dropout)
        u = lower + self.rng.random(lower.shape) * (upper - lower)
        self.fine += np.bincount(
            np.minimum((u * FINE_BINS).astype(np.int64), FINE_BINS - 1).ravel(), minlength=FINE_BINS
        )
        return p_zero

    def _measure(self, genes: slice, shape: tuple[int, ...], *parameters: Any) -> None:
        """Measure the intervals of each gene on the same few spots."""
        if self.measured_spots is None:
            most = min(shape[1], max(1, MOST_MEASURED // len(self.deviance)))
            self.measured_spots = np.sort(self.spot_rng.choice(shape[1], most, replace=False))
        some = [None if p is None else np.broadcast_to(p, shape)[:, self.measured_spots] for p in parameters]
        predicted = distribution(*some)
        for i, level in enumerate(LEVELS):
            self.width[i, genes] = interval_widths(predicted, level).mean(axis=1)

    def scores(self) -> dict[str, Any]:
        """Return all scores over all values."""
        n = max(1, int(self.fine.sum()))
        steps = np.concatenate([[0.0], np.cumsum(self.fine) / n])
        names = [f"{level:.0%}".rstrip("%") for level in LEVELS]
        return {
            "log_likelihood": float(np.mean(self.log_likelihood)),
            "deviance": float(np.mean(self.deviance)),
            "poisson_deviance": float(np.mean(self.poisson_deviance)),
            "coverage": {k: float(v) for k, v in zip(names, self.covered[0] / n, strict=True)},
            "interval_coverage": {k: float(v) for k, v in zip(names, self.covered[1] / n, strict=True)},
            "width": {k: float(v) for k, v in zip(names, np.median(self.width, axis=1), strict=True)},
            "pit": (self.fine.reshape(PIT_BINS, -1).sum(axis=1) / n).tolist(),
            "pit_distance": float(np.abs(steps - np.linspace(0, 1, FINE_BINS + 1)).max()),
        }


def _share_within(lower: Floats, upper: Floats, low: float, high: float) -> Floats:
    """Share of each stretch from `lower` to `upper` that lies between `low` and `high`."""
    width = upper - lower
    overlap = np.clip(np.minimum(upper, high) - np.maximum(lower, low), 0, None)
    inside = ((upper >= low) & (lower <= high)).astype(np.float64)
    return np.divide(overlap, width, out=inside, where=width > 0)


@dataclass(frozen=True)
class CountScores:
    """What :func:`count_scores` returns.

    Attributes
    ----------
    scores
        Over all values. `log_likelihood`, `deviance` and `poisson_deviance`, mean per value: the deviance from the best
        distribution of the same dispersion, and the Poisson deviance of the expected count, which alone may be compared
        between dispersions and likelihoods. `coverage`: share of counts within the central
        50, 80 and 95 %, where a count on the edge of the interval is within by the share of its probability that is, so
        that the true distribution scores exactly the nominal level whatever its granularity. `interval_coverage`: share
        of counts within the closed interval of quantiles; at least nominal for the true distribution, and far above for
        sparse counts. `width`: number of counts within the central 50, 80 and 95 %, edges by the same share as in
        `coverage`, which it is to be read with: of two predictions that hold, the narrower knows more. Of the median
        gene, as one of many counts would outweigh all others; each over the same spots at random, some 20,000 values in
        all. `pit`: share of the randomized probability integral transform in each of 20 bins, 0.05 where calibrated;
        `pit_distance`: largest distance of its distribution function from the uniform, on a grid of 0.001.
    log_likelihood, deviance, poisson_deviance, p_zero
        `(genes,)`, mean over the spots.
    """

    scores: dict[str, Any]
    log_likelihood: NDArray[np.float64]
    deviance: NDArray[np.float64]
    poisson_deviance: NDArray[np.float64]
    p_zero: NDArray[np.float64]


def count_scores(
    counts: Table,
    mu: ArrayLike,
    dispersion: ArrayLike | None = None,
    dropout: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> CountScores:
    """Score predicted distributions of counts, in blocks of genes.

    Parameters
    ----------
    counts
        `(spots, genes)` counts, sparse or dense.
    mu
        `(spots, genes)` mean of the count component; 1e-8 at least is used.
    dispersion
        Inverse dispersion theta, broadcast to that shape; None: Poisson.
    dropout
        `(spots, genes)` zero-inflation probability; None: none.
    seed
        Of the randomized probability integral transform, and of the spots whose intervals are measured.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Czado, Gneiting and Held, Predictive model assessment for count data, Biometrics 65:1254 (2009).
    """
    table, mean = as_table(counts, "counts"), np.asarray(mu)
    if mean.shape != table.shape:
        raise ValueError(f"Expected `mu` of the shape of `counts`, {table.shape}, found {mean.shape}.")
    if hasattr(table, "tocsc"):
        table = table.tocsc()
    others = [None if p is None else np.broadcast_to(p, mean.shape) for p in (dispersion, dropout)]
    tally = CountTally(table.shape[1], seed)
    for genes in blocks(table.shape[1], table.shape[0]):
        parts = [None if p is None else dense(p[:, genes].T) for p in (mean, *others)]
        tally.add(genes, dense(table[:, genes].T), *parts)
    return CountScores(tally.scores(), tally.log_likelihood, tally.deviance, tally.poisson_deviance, tally.p_zero)
