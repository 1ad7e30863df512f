"""Count distributions of gene expression: zero-inflated negative binomial, negative binomial, Poisson.

They share one interface and are made from log parameters, so that training never leaves log space. Counts are
non-negative and finite (the caller's duty); values between integers give the continuous extension. Values and first
derivatives by the parameters are finite for `mu` and `theta` in [1e-8, 1e8], dropout logits within +-50 and counts to
1e6, in float64 and in float32 (exact for integers to 2**24). Half precision is raised to float32, under autocast too.

As in C. Loader, "Fast and accurate computation of binomial probabilities" (2000), a log-likelihood is the sum of minus
half the deviance (the *kernel*) and the log-likelihood of the saturated model, neither of which cancels.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Self

import numpy as np
import torch
from scipy import special
from torch import Tensor

from hist2scrna.zinb.likelihood import likelihood_kernel, log_likelihood
from hist2scrna.zinb.special import expected_log1p

ArrayLike = Tensor | np.ndarray | float


def _tensors(**values: ArrayLike) -> dict[str, Tensor]:
    """Parameters on one device, in one dtype: float64 if any is, else float32."""
    device = next((value.device for value in values.values() if isinstance(value, Tensor)), None)
    dtype = reduce(torch.promote_types, (torch.as_tensor(value).dtype for value in values.values()), torch.float32)
    return {name: torch.as_tensor(value, dtype=dtype, device=device) for name, value in values.items()}


def _logs(**values: ArrayLike) -> list[Tensor]:
    """Logarithms of mean and inverse dispersion, logit of dropout; a value out of range is refused by name."""
    logs = []
    for name, value in _tensors(**values).items():
        is_dropout = name == "dropout"
        bad = value[~((value >= 0) & (value <= 1) if is_dropout else (value > 0) & value.isfinite())]
        if bad.numel():
            allowed = "in [0, 1]; logits go to the constructor" if is_dropout else "positive and finite"
            raise ValueError(f"{name} must be {allowed}. Found {bad[0].item()}, {bad.numel()} such of {value.numel()}.")
        logs.append(value.logit().clamp(-1e4, 1e4) if is_dropout else value.log())
    return logs


def _cdf(k: np.ndarray, log_mu: np.ndarray, log_theta: np.ndarray | None = None, logits: Any = -np.inf) -> np.ndarray:
    """P(X <= k) for integers `k >= 0`."""
    if log_theta is None:
        return special.pdtr(k, np.exp(log_mu))
    theta, p, q = np.exp(log_theta), special.expit(log_theta - log_mu), special.expit(log_mu - log_theta)
    count = np.empty(np.broadcast_shapes(k.shape, p.shape))
    special.betainc(theta, k + 1, p, out=count, where=p < q)
    special.betaincc(k + 1, theta, q, out=count, where=~(p < q))
    return count + special.expit(logits) * (1 - count)


class CountDistribution:
    """Interface of :class:`ZINB`, :class:`NB` and :class:`Poisson`; all results are in the dtype of the parameters."""

    def __init__(self, **parameters: ArrayLike) -> None:
        tensors = _tensors(**parameters)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        try:
            self.shape = torch.broadcast_shapes(*shapes.values())
        except RuntimeError:
            raise ValueError(f"Shapes must broadcast, e.g. (spots, genes) and (genes,). Found {shapes}.") from None
        self._parameters = list(tensors.values())
        self._log_mu = tensors["log_mu"]
        self._log_theta, self._logits = tensors.get("log_theta"), tensors.get("dropout_logits")

    @property
    def mu(self) -> Tensor:
        """Mean of the count component, before dropout."""
        return self._log_mu.exp()

    @property
    def theta(self) -> Tensor:
        """Inverse dispersion, infinite for Poisson."""
        return torch.full_like(self._log_mu, torch.inf) if self._log_theta is None else self._log_theta.exp()

    @property
    def dropout(self) -> Tensor:
        """Probability of an extra zero, 0 for Poisson and NB."""
        return torch.zeros_like(self._log_mu) if self._logits is None else self._logits.sigmoid()

    @property
    def mean(self) -> Tensor:
        """Expected count, `(1 - dropout) mu`."""
        return (self.mu if self._logits is None else self.mu * (-self._logits).sigmoid()).expand(self.shape)

    @property
    def variance(self) -> Tensor:
        """Variance of the count, `mean (1 + mu (dropout + 1 / theta))`."""
        return self.mean * (1 + self.mu * (self.dropout + 1 / self.theta))

    @property
    def p_zero(self) -> Tensor:
        """P(X = 0)."""
        return self.log_prob(0).exp()

    def expected_log1p(self, scale: ArrayLike) -> Tensor:
        """E[log(1 + scale X)] for a finite `scale >= 0` (ValueError otherwise), to a relative 2e-6; differentiable.

        `scale` broadcasts against the parameters, e.g. (spots, 1) for 1e4 over the library size: the prediction of
        log-normalized expression that has the least squared error. The logarithm of the mean lies above it (Jensen).
        """
        factor = self._values(scale)
        if not ((factor >= 0) & factor.isfinite()).all():
            raise ValueError(f"scale must be finite and not negative. Found {factor.min()} to {factor.max()}.")
        value = expected_log1p(factor, self.mu, None if self._log_theta is None else self.theta)
        return value if self._logits is None else value * (-self._logits).sigmoid()

    def _values(self, x: ArrayLike) -> Tensor:
        return torch.as_tensor(x, dtype=self._log_mu.dtype, device=self._log_mu.device)

    def log_prob(self, x: ArrayLike) -> Tensor:
        """Natural logarithm of P(X = x), of the shape to which `x` and the parameters broadcast; differentiable."""
        with torch.autocast(self._log_mu.device.type, enabled=False):
            return log_likelihood(self._values(x), self._parameters)

    def deviance(self, x: ArrayLike) -> Tensor:
        """Twice the log-likelihood by which the saturated model exceeds this one: unit deviance, >= 0, differentiable.

        The saturated model of Poisson and NB has `mu = x` at the same `theta`. That of ZINB is the best over `mu` and
        dropout at the same `theta`: log-likelihood 0 at `x = 0`, else no dropout and `mu = x`.
        """
        with torch.autocast(self._log_mu.device.type, enabled=False):
            return -2 * likelihood_kernel(self._values(x), self._parameters)

    def cdf(self, x: ArrayLike) -> Tensor:
        """P(X <= x), 0 for negative `x`; through SciPy on CPU, without gradient."""
        values = self._values(x)
        k, *parameters = (tensor.detach().cpu().double().numpy() for tensor in (values.floor(), *self._parameters))
        return torch.as_tensor(_cdf(np.maximum(k, 0), *parameters) * (k >= 0)).to(values)

    def quantile(self, q: ArrayLike) -> Tensor:
        """Smallest integer `k >= 0` whose `cdf(k)`, as rounded, reaches `q`, in [0, 1] or ValueError; no gradient."""
        values = self._values(q)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"q must lie in [0, 1], found {values.min().item()} to {values.max().item()}.")
        tensors = torch.broadcast_tensors(values, self.mean, self.variance, *self._parameters)
        level, mean, variance, *parameters = (tensor.detach().cpu().double().numpy().ravel() for tensor in tensors)
        low, high = np.full_like(mean, -1), np.where(np.isnan(variance), np.nan, np.inf)
        probe = np.floor(np.maximum(mean + np.sqrt(variance) * special.ndtri(level.clip(0.01, 0.99)), 0))
        rows = np.arange(len(probe))
        # cdf(low) < q <= cdf(high) throughout; rows whose two ends have met drop out.
        while (rows := rows[(probe[rows] > low[rows]) & (probe[rows] < high[rows])]).size:
            reached = _cdf(probe[rows], *(parameter[rows] for parameter in parameters))
            under = reached.astype(values.numpy(force=True).dtype) < level[rows]
            low[rows], high[rows] = np.where(under, (probe[rows], high[rows]), (low[rows], probe[rows]))
            probe[rows] = np.where(np.isinf(high[rows]), 2 * low[rows] + 2, np.floor((low[rows] + high[rows]) / 2))
        return torch.as_tensor(high.reshape(tensors[0].shape)).to(values)

    @torch.no_grad()
    def sample(self, generator: torch.Generator | None = None, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw counts of shape `(*sample_shape, *shape)`; `generator` (default: torch's own) is on their device."""
        log_rate = self._log_mu.expand(*sample_shape, *self.shape)
        if self._log_theta is not None:
            gamma = torch._standard_gamma(self.theta.expand_as(log_rate), generator=generator)
            log_rate = log_rate + gamma.log() - self._log_theta
        rate = log_rate.exp()
        # Above 1e9 the relative spread is below 3e-5, and samplers on GPU would overflow.
        counts = torch.where(rate > 1e9, rate.round(), torch.poisson(rate.clamp(max=1e9), generator=generator))
        if self._logits is None:
            return counts
        return counts * torch.bernoulli((-self._logits).sigmoid().expand_as(counts), generator=generator)


class Poisson(CountDistribution):
    """Poisson distribution, from the logarithm of its mean `mu`.

    Examples
    --------
    >>> count = h2s.zinb.Poisson.from_parameters(mu=4.0)
    >>> round(count.variance.item(), 2), round(count.p_zero.item(), 3)
    (4.0, 0.018)
    """

    def __init__(self, log_mu: ArrayLike) -> None:
        super().__init__(log_mu=log_mu)

    @classmethod
    def from_parameters(cls, mu: ArrayLike) -> Self:
        """From the mean, positive (ValueError otherwise)."""
        return cls(*_logs(mu=mu))


class NB(CountDistribution):
    """Negative binomial of variance `mu + mu^2 / theta`, from the logarithms of mean and inverse dispersion.

    Examples
    --------
    >>> count = h2s.zinb.NB.from_parameters(mu=4.0, theta=2.0)
    >>> round(count.variance.item(), 2), int(count.quantile(0.95))
    (12.0, 11)
    """

    def __init__(self, log_mu: ArrayLike, log_theta: ArrayLike) -> None:
        super().__init__(log_mu=log_mu, log_theta=log_theta)

    @classmethod
    def from_parameters(cls, mu: ArrayLike, theta: ArrayLike) -> Self:
        """From mean and inverse dispersion, both positive (ValueError otherwise)."""
        return cls(*_logs(mu=mu, theta=theta))


class ZINB(CountDistribution):
    """Zero-inflated negative binomial: 0 with probability `dropout`, else :class:`NB`.

    Parameters
    ----------
    log_mu, log_theta
        Natural logarithms of mean and inverse dispersion of the count component, e.g. (spots, genes) and (genes,).
    dropout_logits
        Log-odds of the dropout. All three broadcast against each other and against counts.

    Examples
    --------
    >>> count = h2s.zinb.ZINB.from_parameters(mu=4.0, theta=2.0, dropout=0.1)
    >>> round(count.mean.item(), 2), round(count.variance.item(), 2), round(count.p_zero.item(), 2)
    (3.6, 12.24, 0.2)
    """

    def __init__(self, log_mu: ArrayLike, log_theta: ArrayLike, dropout_logits: ArrayLike) -> None:
        super().__init__(log_mu=log_mu, log_theta=log_theta, dropout_logits=dropout_logits)

    @classmethod
    def from_parameters(cls, mu: ArrayLike, theta: ArrayLike, dropout: ArrayLike) -> Self:
        """From mean and inverse dispersion, positive, and dropout, in [0, 1]: 0 and 1 become logits of -1e4 and 1e4."""
        return cls(*_logs(mu=mu, theta=theta, dropout=dropout))
