"""Gene by gene, a count regression on the scores of a few programs, by maximum likelihood with weak priors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from hist2scrna.metrics.blocks import Floats
from hist2scrna.models.heads import LOG_DISPERSION_BOUNDS, LOGIT_BOUND
from hist2scrna.zinb import NB, ZINB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.models.contract import Likelihood

# Values, spots x genes, of one solution: bounds the memory.
BLOCK_VALUES = 2_000_000
MOST_STEPS = 50
TOLERANCE = 1e-5
# Largest change of a log mean, a log dispersion or a logit in one step; how far off the second slope is taken.
LARGEST_STEP, ASIDE, LEAST_CURVATURE = 2.0, 1e-4, 1e-3
# Strength of the Gaussian priors, in squared units of each parameter: weights about 1 for the library size and 0 for
# programs, log dispersion about 0, the logit of dropout about -3, the intercept about the mean baseline.
WEIGHT_PRIOR, DISPERSION_PRIOR, DROPOUT_PRIOR, INTERCEPT_PRIOR = 20.0, 0.05, 0.1, 0.01
PRIORS = torch.tensor([DISPERSION_PRIOR, DROPOUT_PRIOR], dtype=torch.float64)
DROPOUT_START = -3.0


@dataclass(frozen=True)
class CountDecoder:
    """Parameters of the counts: `log mu = intercept + scores @ loadings`.

    Attributes
    ----------
    loadings
        `(1 + programs, genes)`.
    intercept, log_dispersion, dropout_logits
        `(genes,)`; the last two keep their prior where the likelihood has no such parameter.
    """

    loadings: Floats
    intercept: Floats
    log_dispersion: Floats
    dropout_logits: Floats


def fit_decoder(
    counts: sparse.csr_array,
    true_scores: Floats,
    predicted_scores: Floats,
    likelihood: Likelihood,
    donor: NDArray[np.int64] | None = None,
) -> CountDecoder:
    """Estimate what each program does to a gene from the true scores, and what is left over from predicted ones.

    Loadings come from a negative binomial regression on the true scores, which are nearly free of noise. With these
    fixed, dispersion and dropout are estimated on the scores that were predicted for spots left out, and the intercept
    so that each gene has its total there: the dispersion then holds the error of the prediction.

    Parameters
    ----------
    counts
        `(n, genes)`.
    true_scores, predicted_scores
        `(n, 1 + programs)`: the centered log library size, and programs in units of their standard deviation.
    likelihood
        `"zinb"`, `"nb"` or `"poisson"`; `"mse"` estimates nothing.
    donor
        `(n,)`, number of the donor of each spot: each gene has a level of its own in each while loadings are estimated.
        None: they are of one donor.
    """
    n_genes = counts.shape[1]
    if likelihood == "mse":
        return CountDecoder(np.zeros((true_scores.shape[1], n_genes)), *np.zeros((3, n_genes)))
    loadings = fit_loadings(counts, true_scores, donor)
    rest = np.zeros((3, n_genes))
    predicted = torch.from_numpy(predicted_scores)
    for genes, block in _gene_blocks(counts):
        log_mu = predicted @ torch.from_numpy(loadings[:, genes])
        rest[:, genes] = _remainder(block, log_mu, likelihood).numpy()
    return CountDecoder(loadings, *rest)


def fit_loadings(counts: sparse.csr_array, true_scores: Floats, donor: NDArray[np.int64] | None = None) -> Floats:
    """Return what each score does to the log mean of each gene, `(1 + programs, genes)`; see :func:`fit_decoder`."""
    donor = np.zeros(counts.shape[0], dtype=np.int64) if donor is None else donor
    loadings = np.zeros((true_scores.shape[1], counts.shape[1]))
    true = torch.from_numpy(true_scores)
    for genes, block in _gene_blocks(counts):
        loadings[:, genes] = _loadings(block, true, donor).numpy()
    return loadings


def _gene_blocks(counts: sparse.csr_array) -> Iterator[tuple[slice, Tensor]]:
    """Yield the counts of some genes at a time, dense."""
    n, n_genes = counts.shape
    by_gene = counts.tocsc()
    size = max(1, BLOCK_VALUES // n)
    for start in range(0, n_genes, size):
        genes = slice(start, start + size)
        yield genes, torch.from_numpy(by_gene[:, genes].toarray().astype(np.float64))


def _start(counts: Tensor, log_mu: Tensor) -> Tensor:
    """Return the logarithm of the factor that gives each gene its total; half a count where there is none."""
    return ((counts.sum(dim=0) + 0.5) / (log_mu.exp().sum(dim=0) + 0.5)).log()


def _loadings(counts: Tensor, scores: Tensor, donor: NDArray[np.int64]) -> Tensor:
    """Return the likeliest weights, `(1 + programs, genes)`: Newton steps in the weights and the dispersion in turn.

    The two are orthogonal in expectation, and the likelihood is concave in the weights.
    """
    codes = torch.from_numpy(np.unique(donor, return_inverse=True)[1])
    design = torch.cat([scores, torch.nn.functional.one_hot(codes).to(scores.dtype)], dim=1)
    n_scores = scores.shape[1]
    width = design.shape[1]
    pairs = (design[:, :, None] * design[:, None, :]).flatten(1)
    prior = torch.zeros(width, counts.shape[1], dtype=torch.float64)
    prior[0] = 1.0
    for level in range(n_scores, width):
        members = codes == level - n_scores
        prior[level] = _start(counts[members], scores[members, :1])
    strength = torch.full((width, 1), WEIGHT_PRIOR, dtype=torch.float64)
    strength[n_scores:] = INTERCEPT_PRIOR
    weights = prior.clone()
    dispersion = _Climber(torch.zeros(1, counts.shape[1], dtype=torch.float64))
    going = torch.arange(counts.shape[1])
    for _ in range(MOST_STEPS):
        some, weight = counts[:, going], weights[:, going]
        mu, theta = (design @ weight).exp(), dispersion.value[:, going].exp()
        slope = design.T @ ((some - mu) * theta / (theta + mu)) - 2 * strength * (weight - prior[:, going])
        curvature = pairs.T @ ((some + theta) * mu * theta / (theta + mu).square())
        curvature = curvature.T.unflatten(1, (width, width)) + torch.diag(2 * strength[:, 0])
        step = torch.linalg.solve(curvature, slope.T).T
        change = (design @ step).abs().amax(dim=0)
        weights[:, going] = weight + step * (LARGEST_STEP / change).clamp(max=1)
        moved = dispersion.step(partial(_with_dispersion, some, design @ weights[:, going]), going)
        going = going[torch.maximum(change, moved) >= TOLERANCE]
        if not len(going):
            break
    return weights[:n_scores]


def _with_dispersion(counts: Tensor, log_mu: Tensor, value: Tensor) -> Tensor:
    likelihood = NB(log_mu, value[0]).log_prob(counts).sum(dim=0)
    return likelihood - DISPERSION_PRIOR * value[0].square()


def _remainder(counts: Tensor, log_mu: Tensor, likelihood: Likelihood) -> Tensor:
    """Return intercept, log dispersion and dropout logit, `(3, genes)`, about a given log mean.

    The intercept is not the likeliest one: where a few spots are predicted far too low, as in a gene that differs
    between batches, it would lift all others many times over to make these possible.
    """
    start = _start(counts, log_mu)
    kept = torch.stack([torch.zeros_like(start), torch.full_like(start, DROPOUT_START)])

    def intercept(value: Tensor, start: Tensor) -> Tensor:
        return start + softplus(value[1]) if likelihood == "zinb" else start

    def objective(some: Tensor, log_mean: Tensor, start: Tensor, middle: Tensor, value: Tensor) -> Tensor:
        mean = log_mean + intercept(value, start)
        counted = ZINB(mean, *value).log_prob(some) if likelihood == "zinb" else NB(mean, value[0]).log_prob(some)
        return counted.sum(dim=0) - PRIORS[: len(value)] @ (value - middle).square()

    n_free = {"poisson": 0, "nb": 1, "zinb": 2}[likelihood]
    if n_free:
        climber, going = _Climber(kept[:n_free]), torch.arange(counts.shape[1])
        for _ in range(MOST_STEPS):
            of_genes = (counts[:, going], log_mu[:, going], start[going], kept[:n_free, going])
            going = going[climber.step(partial(objective, *of_genes), going) >= TOLERANCE]
            if not len(going):
                break
        kept = torch.cat([climber.value, kept[n_free:]])
    return torch.stack([intercept(kept, start), *kept])


class _Climber:
    """A few parameters of each gene, `(k, genes)`, that go uphill by Newton's method, within their bounds.

    The Hessian is the difference of slopes, its eigenvalues taken as negative (Dauphin et al., NIPS 2014), so that each
    step leads up; where a slope changes its sign, steps become shorter, and else longer again. What a bound holds stays
    out of it.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value.clone()
        bounds = torch.tensor([LOG_DISPERSION_BOUNDS, (-LOGIT_BOUND, LOGIT_BOUND)], dtype=torch.float64)
        self.lowest, self.highest = bounds[: len(value)].T[:, :, None]
        self.longest = torch.full_like(value, LARGEST_STEP)
        self.last_slope = torch.zeros_like(value)

    def step(self, objective: Callable[[Tensor], Tensor], genes: Tensor) -> Tensor:
        """Go a step up an objective of some genes, one value a gene; return how far each parameter moved at most.

        The others have arrived: most genes need a few steps, and some ten times as many.
        """
        value = self.value[:, genes]
        slope = _slope(objective, value)
        columns = []
        for i in range(len(value)):
            aside = value.clone()
            aside[i] += ASIDE
            columns.append((_slope(objective, aside) - slope) / ASIDE)
        stuck = ((value <= self.lowest) & (slope < 0)) | ((value >= self.highest) & (slope > 0))
        slope = slope.masked_fill(stuck, 0.0)
        hessian = torch.stack(columns).permute(2, 0, 1) * ~stuck.T[:, :, None] * ~stuck.T[:, None, :]
        curvature, axes = torch.linalg.eigh((hessian + hessian.mT) / 2)
        along = axes.mT @ slope.T[:, :, None] / curvature.abs().clamp(min=LEAST_CURVATURE)[:, :, None]
        longest = self.longest[:, genes]
        turned = slope * self.last_slope[:, genes] < 0
        longest = torch.where(turned, longest / 2, longest * 2).clamp(max=LARGEST_STEP)
        change = (axes @ along)[:, :, 0].T.clamp(-longest, longest)
        new = torch.minimum(torch.maximum(value + change, self.lowest), self.highest)
        self.value[:, genes], self.longest[:, genes], self.last_slope[:, genes] = new, longest, slope
        return (new - value).abs().amax(dim=0)


def _slope(objective: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    with torch.enable_grad():
        at = value.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(objective(at).sum(), at)
    return slope
