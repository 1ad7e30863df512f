"""Log-likelihoods of counts with their slopes, computed together in one pass over the rows.

Differentiating the formula step by step would keep some thirty tables of the size of the counts. Here each block of
rows, small enough for the cache of a processor, gives its values and the slopes along each parameter, and nothing else
is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from hist2scrna.zinb.special import log_ratio, stirling, stirling_slope

if TYPE_CHECKING:
    from collections.abc import Sequence

# Values of a block on a CPU: a few dozen tables of them stay in its cache. A GPU takes all rows at once.
BLOCK_VALUES = 2**16
# A finite logarithm for what is nothing.
LEAST = -1e4

Slopes = list[Tensor]


def likelihood_kernel(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return minus half the unit deviance, of the shape to which counts and parameters broadcast; differentiable.

    Parameters
    ----------
    x
        Counts, in the dtype of the parameters.
    parameters
        Logarithm of the mean; of the inverse dispersion; logit of dropout: one (Poisson), two (NB) or three (ZINB).
    """
    value: Tensor = _Likelihood.apply(x, False, *parameters)
    return value


def log_likelihood(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return log P(X = x); arguments as of :func:`likelihood_kernel`."""
    value: Tensor = _Likelihood.apply(x, True, *parameters)
    return value


class _Likelihood(torch.autograd.Function):
    """Values whose slopes along the parameters are computed with them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, saturated: bool, *parameters: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(x.shape, *(parameter.shape for parameter in parameters))
        needed = ctx.needs_input_grad[2:]
        value = parameters[0].new_empty(shape)
        slopes = [value.new_empty(shape) if need else None for need in needed]
        for rows in _blocks(shape, value.device):
            own = [_rows(tensor, shape, rows) for tensor in (x, *parameters)]
            part, along = _with_slopes(own[0], own[1:], saturated, any(needed))
            value[rows] = part
            for slope, own_slope in zip(slopes, along, strict=True):
                if slope is not None:
                    slope[rows] = own_slope
        ctx.shapes = [parameter.shape for parameter in parameters]
        ctx.save_for_backward(*slopes)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = []
        for shape, slope in zip(ctx.shapes, ctx.saved_tensors, strict=True):
            gradients.append(None if slope is None else _summed(grad, slope, shape))
        return None, None, *gradients


def _blocks(shape: torch.Size, device: torch.device) -> list[slice | tuple[()]]:
    if not shape:
        return [()]
    size = max(1, BLOCK_VALUES // max(1, math.prod(shape[1:]))) if device.type == "cpu" else max(1, shape[0])
    return [slice(start, start + size) for start in range(0, shape[0], size)]


def _rows(tensor: Tensor, shape: torch.Size, rows: slice | tuple[()]) -> Tensor:
    """Return the part of a tensor that some rows of the whole need."""
    return tensor[rows] if tensor.ndim == len(shape) and shape and tensor.shape[0] == shape[0] else tensor


def _summed(grad: Tensor, slope: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient of a parameter of this shape; the product is never whole in memory where it is summed."""
    if shape == slope.shape:
        return grad * slope
    if slope.ndim < 2 or shape[:1] == slope.shape[:1]:
        return (grad * slope).sum_to_size(shape)
    total = slope.new_zeros(shape)
    for rows in _blocks(slope.shape, slope.device):
        total += (grad[rows] * slope[rows]).sum_to_size(shape)
    return total


def _with_slopes(x: Tensor, parameters: Sequence[Tensor], saturated: bool, wanted: bool) -> tuple[Tensor, Slopes]:
    """Return the values and the slopes along each parameter; most counts are zero, and what zeros need is less."""
    shape = torch.broadcast_shapes(x.shape, *(parameter.shape for parameter in parameters))
    value, slopes = _at_zero(shape, *parameters)
    counted = (x != 0).expand(shape).reshape(-1).nonzero().squeeze(1)
    if not len(counted):
        return value, slopes
    own = [_taken(tensor, shape, counted) for tensor in (x, *parameters)]
    at_counts, slopes_there = _at_counts(own[0], own[1:], saturated, wanted)
    for whole, part in zip((value, *slopes), (at_counts, *slopes_there), strict=True):
        whole.view(-1).index_copy_(0, counted, part)
    return value, slopes


def _taken(tensor: Tensor, shape: torch.Size, places: Tensor) -> Tensor:
    """Return the values of a tensor at places of the shape that it broadcasts to, counted row by row."""
    if tensor.numel() == 1:
        return tensor.reshape(1).expand(len(places))
    if tensor.shape == shape[-1:]:
        return tensor.index_select(0, places % shape[-1])
    return tensor.expand(shape).reshape(-1).index_select(0, places)


def _at_zero(
    shape: torch.Size, log_mu: Tensor, log_theta: Tensor | None = None, logits: Tensor | None = None
) -> tuple[Tensor, Slopes]:
    """`-mu`, or `-theta log(1 + mu / theta)`; with dropout `log(pi + (1 - pi) exp(that))`; of the saturated model 0."""
    mu = log_mu.exp()
    if log_theta is None:
        return -mu.expand(shape).clone(), [-mu.expand(shape).clone()]
    theta = log_theta.exp()
    ratio = mu / theta
    kernel = torch.log1p(ratio).mul_(-theta)
    share = ratio.div_(1 + ratio)
    slopes = [-theta * share, kernel + theta * share]
    if logits is not None:
        kernel, along_kernel, along_logits = _zero_inflated(kernel, logits)
        slopes = [
            *(slope.mul_(along_kernel) if slope.shape == kernel.shape else slope * along_kernel for slope in slopes),
            along_logits,
        ]
    return _whole(kernel, shape), [_whole(slope, shape) for slope in slopes]


def _whole(tensor: Tensor, shape: torch.Size) -> Tensor:
    return tensor if tensor.shape == shape else tensor.expand(shape).clone()


def _zero_inflated(kernel: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`log(pi + (1 - pi) exp(kernel))`, and its slopes along both."""
    present = torch.sigmoid(-logits)
    less = torch.expm1(kernel) * present
    # Where zeros are likely, 1 + less is near 1; else its two terms are added in log space, where present is over 1/2.
    log_present = present.log_().clamp_(min=LEAST)
    far = torch.logaddexp(log_present + kernel, log_present.add_(logits))
    likely = (less < -0.5).to(kernel.dtype)
    value = less.clamp(min=-0.5).log1p_().lerp_(far, likely)
    off = logits - kernel
    along_logits = less.neg_().mul_(torch.sigmoid(off))
    return value, off.neg_().sigmoid_(), along_logits


def _at_counts(x: Tensor, parameters: Sequence[Tensor], saturated: bool, wanted: bool) -> tuple[Tensor, Slopes]:
    """Return values and slopes at counts above zero; all arguments are of one shape."""
    value, slopes = _poisson(x, *parameters) if len(parameters) == 1 else _negative_binomial(x, *parameters[:2])
    if len(parameters) == 3:
        value = value - softplus(parameters[2], threshold=40)
        slopes.append(-torch.sigmoid(parameters[2]))
    if saturated:
        value = value - stirling(x) - x.log()
    if saturated and len(parameters) > 1:
        theta = parameters[1].exp()
        value = value + (stirling(x + theta) - stirling(theta))
        if wanted:
            slopes[1] = slopes[1] + theta * (stirling_slope(x + theta) - stirling_slope(theta))
    return value, slopes


def _poisson(x: Tensor, log_mu: Tensor) -> tuple[Tensor, Slopes]:
    """`x log(mu / x) - mu + x`."""
    score = x - log_mu.exp()
    value = score + x * log_ratio(-score / x, log_mu - x.log())
    return value.clamp(max=0), [score]


def _negative_binomial(x: Tensor, log_mu: Tensor, log_theta: Tensor) -> tuple[Tensor, Slopes]:
    """`x log(mu / x) - (x + theta) log((mu + theta) / (x + theta))`, as `x log(1 + u_x) + theta log(1 + u_theta)`."""
    mu, theta = log_mu.exp(), log_theta.exp()
    log_odds = log_mu - log_theta
    log_spread = softplus(log_odds, threshold=40)  # log(1 + mu / theta)
    log_n = (x + theta).log()
    u_theta = (x - mu) / (theta + mu)
    score = theta * u_theta
    log_theta_ratio = log_ratio(u_theta, log_n - log_theta - log_spread)
    log_x_ratio = log_ratio(-score / x, log_n - x.log() + log_odds - log_spread)
    value = x * log_x_ratio + theta * log_theta_ratio
    return value.clamp(max=0), [score, theta * (log_theta_ratio - u_theta)]
