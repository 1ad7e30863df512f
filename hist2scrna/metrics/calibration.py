"""Calibration of predicted distributions of counts: coverage, widths and probability integral transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from hist2scrna.metrics.blocks import Floats, Table, as_table, blocks, dense
from hist2scrna.metrics.likelihood import BY_GENE, CountBlock, distribution
from hist2scrna.metrics.zeros import ZeroTally
from hist2scrna.zinb import CountDistribution

LEVELS = (0.5, 0.8, 0.95)
LEVEL_NAMES = ("50", "80", "95")
PIT_BINS = 20
FINE_BINS = 1000
# Values of which intervals are measured: quantiles take long, and the mean over so many is known to a per cent.
MOST_MEASURED = 20_000


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
    inside = _share_within(lower, upper, low, high)
    between = (ends[1] - ends[0]).numpy()
    return np.where(between > 0, inside.sum(axis=0) + between - 1, inside[0])


class CountTally:
    """Adds up blocks of genes x spots.

    Parameters
    ----------
    n_genes
        Number of genes.
    seed
        Seed of the randomized probability integral transform, and of the spots whose intervals are measured.
    by_gene
        Functions of a block that give one number per gene, by name.
    """

    def __init__(
        self, n_genes: int, seed: int, by_gene: Mapping[str, Callable[[CountBlock], Floats]] = BY_GENE
    ) -> None:
        self.rng, self.spot_rng = np.random.default_rng(seed), np.random.default_rng(seed)
        self.measured_spots: NDArray[np.int64] | None = None
        self.functions = by_gene
        self.by_gene = {name: np.full(n_genes, np.nan) for name in by_gene}
        self.zeros = ZeroTally()
        self.n_genes = n_genes
        self.covered = np.zeros((2, len(LEVELS)))
        self.widths = np.zeros((len(LEVELS), n_genes))
        self.fine = np.zeros(FINE_BINS, dtype=np.int64)

    def add(self, genes: slice, block: CountBlock) -> None:
        """Take the block of some genes."""
        for name, function in self.functions.items():
            self.by_gene[name][genes] = function(block)
        self.zeros.add(block.counts, block.p_zero, block.mean)
        parameters = block.mu, block.dispersion, block.dropout
        lower, upper = bounds(block.counts, block.p_zero, np.exp(block.log_probability), *parameters)
        for i, level in enumerate(LEVELS):
            low, high = (1 - level) / 2, (1 + level) / 2
            self.covered[0, i] += _share_within(lower, upper, low, high).sum()
            self.covered[1, i] += np.count_nonzero((upper >= low) & (lower < high))
        self._measure(genes, block.counts.shape, *parameters)
        u = lower + self.rng.random(lower.shape) * (upper - lower)
        self.fine += np.bincount(
            np.minimum((u * FINE_BINS).astype(np.int64), FINE_BINS - 1).ravel(), minlength=FINE_BINS
        )

    def _measure(self, genes: slice, shape: tuple[int, ...], *parameters: Any) -> None:
        """Measure the intervals of each gene on the same few spots."""
        if self.measured_spots is None:
            most = min(shape[1], max(1, MOST_MEASURED // self.n_genes))
            self.measured_spots = np.sort(self.spot_rng.choice(shape[1], most, replace=False))
        some = [None if p is None else np.broadcast_to(p, shape)[:, self.measured_spots] for p in parameters]
        predicted = distribution(*some)
        for i, level in enumerate(LEVELS):
            self.widths[i, genes] = interval_widths(predicted, level).mean(axis=1)

    @property
    def n_values(self) -> int:
        """Number of counts, at least 1."""
        return max(1, int(self.fine.sum()))

    @property
    def coverage(self) -> dict[str, float]:
        """Share of counts within the central interval of each level; those on its edge count in part."""
        return _by_level(self.covered[0] / self.n_values)

    @property
    def interval_coverage(self) -> dict[str, float]:
        """Share of counts within the closed interval of each level."""
        return _by_level(self.covered[1] / self.n_values)

    @property
    def width(self) -> dict[str, float]:
        """Number of counts within the central interval of each level, median gene."""
        return _by_level(np.median(self.widths, axis=1))

    @property
    def pit(self) -> list[float]:
        """Share of the randomized probability integral transform in each of 20 bins."""
        shares: list[float] = (self.fine.reshape(PIT_BINS, -1).sum(axis=1) / self.n_values).tolist()
        return shares

    @property
    def pit_distance(self) -> float:
        """Largest distance of the distribution function of that transform from the uniform."""
        steps = np.concatenate([[0.0], np.cumsum(self.fine) / self.n_values])
        return float(np.abs(steps - np.linspace(0, 1, FINE_BINS + 1)).max())

    def scores(self) -> dict[str, Any]:
        """Return all scores over all values."""
        names = ("coverage", "interval_coverage", "width", "pit", "pit_distance")
        means = {name: float(np.mean(values)) for name, values in self.by_gene.items() if name != "p_zero"}
        return means | {name: getattr(self, name) for name in names}


def _by_level(values: Floats) -> dict[str, float]:
    return {name: float(value) for name, value in zip(LEVEL_NAMES, values, strict=True)}


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
        Seed of the randomized probability integral transform, and of the choice of spots whose intervals are measured.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Czado, Gneiting and Held, Predictive model assessment for count data, Biometrics 65:1254 (2009).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.poisson(4.0, size=(500, 2))
    >>> scores = h2s.metrics.count_scores(counts, np.full(counts.shape, 4.0))
    >>> 0.75 < scores.scores["coverage"]["80"] < 0.85
    True
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
        tally.add(genes, CountBlock(dense(table[:, genes].T), *parts))
    return CountScores(tally.scores(), **tally.by_gene)
