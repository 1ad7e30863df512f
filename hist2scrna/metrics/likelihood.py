"""Likelihood and deviance of counts under predicted distributions, gene by gene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hist2scrna.metrics.blocks import Floats
from hist2scrna.zinb import NB, ZINB, Poisson

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


@dataclass(frozen=True, eq=False)
class CountBlock:
    """Counts of some genes, and the distributions that are predicted for them.

    Attributes
    ----------
    counts
        `(genes, spots)`.
    mu, dispersion, dropout
        Mean of the count component, inverse dispersion and zero inflation, of that shape; None where the likelihood
        has none.
    """

    counts: Floats
    mu: Any
    dispersion: Any = None
    dropout: Any = None

    @cached_property
    def distribution(self) -> ZINB | NB | Poisson:
        """The predicted distributions."""
        return distribution(self.mu, self.dispersion, self.dropout)

    @cached_property
    def log_probability(self) -> Floats:
        """Natural logarithm of the probability of each count."""
        values: Floats = self.distribution.log_prob(torch.from_numpy(self.counts)).numpy()
        return values

    @cached_property
    def mean(self) -> Floats:
        """Expected counts."""
        values: Floats = self.distribution.mean.numpy()
        return values

    @cached_property
    def p_zero(self) -> Floats:
        """Probability of a zero."""
        values: Floats = self.distribution.p_zero.numpy()
        return values


def log_likelihood(block: CountBlock) -> Floats:
    """Return the mean log-likelihood of a count of each gene, in nats."""
    return np.asarray(block.log_probability.mean(axis=1))


def deviance(block: CountBlock) -> Floats:
    """Return the mean deviance of each gene from the best distribution of the same dispersion."""
    return _mean_deviance(block.distribution, block.counts)


def poisson_deviance(block: CountBlock) -> Floats:
    """Return the mean Poisson deviance of the expected counts of each gene, comparable between likelihoods."""
    return _mean_deviance(distribution(block.mean), block.counts)


def _mean_deviance(predicted: ZINB | NB | Poisson, counts: Floats) -> Floats:
    values: Floats = predicted.deviance(torch.from_numpy(counts)).mean(dim=1).numpy()
    return values


def zero_probability(block: CountBlock) -> Floats:
    """Return the mean probability of a zero of each gene."""
    return np.asarray(block.p_zero.mean(axis=1))


BY_GENE: Mapping[str, Callable[[CountBlock], Floats]] = {
    "log_likelihood": log_likelihood,
    "deviance": deviance,
    "poisson_deviance": poisson_deviance,
    "p_zero": zero_probability,
}
