"""Gene by gene, a count regression on the scores of a few programmes, by maximum likelihood with weak priors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from hist2scrna.models.heads import LOG_DISPERSION_BOUNDS, LOGIT_BOUND
from hist2scrna.zinb import NB, ZINB, Poisson

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.models.contract import Likelihood

    Floats = NDArray[np.float64]

# Values, spots x genes, of one solution: bounds the memory.
BLOCK_VALUES = 2_000_000
STEPS = 100
# Strength of the Gaussian priors, in squared units of each parameter: weights about 1 for the library size and 0 for
# programmes, log dispersion about 0, the logit of dropout about -3, the intercept about the mean null.
WEIGHT_PRIOR, DISPERSION_PRIOR, DROPOUT_PRIOR, INTERCEPT_PRIOR = 20.0, 0.05, 0.1, 0.01
DROPOUT_START = -3.0


@dataclass(frozen=True)
class CountDecoder:
    """Parameters of the counts: `log mu = intercept + scores @ loadings`.

    Attributes
    ----------
    loadings
        `(1 + programmes, genes)`.
    intercept, log_dispersion, dropout_logits
        `(genes,)`; the last two keep their prior where the likelihood has no such parameter.
    """

    loadings: Floats
    intercept: Floats
    log_dispersion: Floats
    dropout_logits: Floats


def fit_decoder(
    counts: sparse.csr_array, true_scores: Floats, predicted_scores: Floats, likelihood: Likelihood
) -> CountDecoder:
    """Estimate what each programme does to a gene from the true scores, and what is left over from predicted ones.

    Loadings come from a negative binomial regression on the true scores, which are nearly free of noise. With these
    held, dispersion and dropout are estimated on the scores that were predicted for spots left out, and the intercept
    so that each gene has its total there: the dispersion then holds the error of the prediction.

    Parameters
    ----------
    counts
        `(n, genes)`.
    true_scores, predicted_scores
        `(n, 1 + programmes)`: the centred log library size, and programmes in units of their standard deviation.
    likelihood
        `"zinb"`, `"nb"` or `"poisson"`; `"mse"` estimates nothing.
    """
    n, n_genes = counts.shape
    loadings = np.zeros((true_scores.shape[1], n_genes))
    rest = np.zeros((3, n_genes))
    if likelihood != "mse":
        by_gene = counts.tocsc()
        true, predicted = torch.from_numpy(true_scores), torch.from_numpy(predicted_scores)
        size = max(1, BLOCK_VALUES // n)
        for start in range(0, n_genes, size):
            genes = slice(start, start + size)
            block = torch.from_numpy(by_gene[:, genes].toarray().astype(np.float64))
            weights = _loadings(block, true)
            loadings[:, genes] = weights.numpy()
            rest[:, genes] = _remainder(block, predicted @ weights, likelihood).numpy()
    return CountDecoder(loadings, *rest)


def _start(counts: Tensor, log_mu: Tensor) -> Tensor:
    """Return the logarithm of the factor that gives each gene its total; half a count where there is none."""
    return ((counts.sum(dim=0) + 0.5) / (log_mu.exp().sum(dim=0) + 0.5)).log()


def _loadings(counts: Tensor, scores: Tensor) -> Tensor:
    prior = torch.zeros(scores.shape[1], counts.shape[1], dtype=torch.float64)
    prior[0] = 1.0
    weights = prior.clone()
    start = _start(counts, scores @ prior)
    intercept, dispersion = start.clone(), torch.zeros_like(start)

    def loss() -> Tensor:
        likelihood = NB(intercept + scores @ weights, dispersion.clamp(*LOG_DISPERSION_BOUNDS)).log_prob(counts).sum()
        priors = WEIGHT_PRIOR * (weights - prior).square().sum() + INTERCEPT_PRIOR * (intercept - start).square().sum()
        return priors + DISPERSION_PRIOR * dispersion.square().sum() - likelihood

    _minimise(loss, [weights, intercept, dispersion], len(counts))
    return weights.detach()


def _remainder(counts: Tensor, log_mu: Tensor, likelihood: Likelihood) -> Tensor:
    """Return intercept, log dispersion and dropout logit, `(3, genes)`, about a given log mean.

    The intercept is not the likeliest one: where a few spots are predicted far too low, as in a gene that differs
    between batches, it would lift all others many times over to make these possible.
    """
    start = _start(counts, log_mu)
    dispersion, dropout = torch.zeros_like(start), torch.full_like(start, DROPOUT_START)

    def intercept() -> Tensor:
        return start + softplus(dropout.clamp(-LOGIT_BOUND, LOGIT_BOUND)) if likelihood == "zinb" else start

    def distribution() -> ZINB | NB | Poisson:
        mean, log_theta = log_mu + intercept(), dispersion.clamp(*LOG_DISPERSION_BOUNDS)
        if likelihood == "poisson":
            return Poisson(mean)
        if likelihood == "nb":
            return NB(mean, log_theta)
        return ZINB(mean, log_theta, dropout.clamp(-LOGIT_BOUND, LOGIT_BOUND).expand_as(mean))

    def loss() -> Tensor:
        priors = DISPERSION_PRIOR * dispersion.square().sum() + DROPOUT_PRIOR * (dropout - DROPOUT_START).square().sum()
        return priors - distribution().log_prob(counts).sum()

    if likelihood != "poisson":
        _minimise(loss, [dispersion, dropout], len(counts))
    found = intercept(), dispersion.clamp(*LOG_DISPERSION_BOUNDS), dropout.clamp(-LOGIT_BOUND, LOGIT_BOUND)
    return torch.stack([value.detach() for value in found])


def _minimise(loss: Callable[[], Tensor], parameters: list[Tensor], n: int) -> None:
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.LBFGS(parameters, lr=1, max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss() / n
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)
    for parameter in parameters:
        parameter.requires_grad_(False)
