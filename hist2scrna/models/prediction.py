"""What a model says of spots: the parameters of their counts, cell types, an embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hist2scrna.metrics.scales import LEAST_TOTAL, TARGET_SUM
from hist2scrna.zinb import NB, ZINB, Poisson

Likelihood = Literal["zinb", "nb", "poisson", "mse"]
# The least 1 / theta that is left when a factor of depth is taken out.
LEAST_SPREAD = 1e-4
LIKELIHOODS: tuple[Likelihood, ...] = ("zinb", "nb", "poisson", "mse")
# What `mse` models predict: the logarithm of 1 + 1e4 x / library size, or that of 1 + x.
Target = Literal["log_normalized", "log_counts"]


@dataclass
class Prediction:
    """What a model says of the `n_core` spots of a batch.

    Count models fill `log_mu` and the other parameters of their likelihood; `mse` models fill `value`, and may fill
    these parameters too: the prediction is then `value`.

    Parameters
    ----------
    embedding
        `(n_core, d)` float, the representation before the heads.
    log_mu
        `(n_core, G)`, logarithm of the mean of the count component, at the library size in use.
    log_dispersion
        `(n_core, G)` or `(G,)`, logarithm of the inverse dispersion theta.
    dropout_logits
        `(n_core, G)`, logit of the zero-inflation probability.
    value
        `(n_core, G)`, for `mse`: log(1 + 1e4 x / library size) to the base `log_base`, or log(1 + x) where `target` is
        `"log_counts"`.
    log_base
        Base of the logarithm in which `value` stands, and in which its squared error is taken.
    target
        Of what `value` is the logarithm.
    target_factor
        By which `value` is multiplied before its squared error is taken.
    log_library
        `(n_core,)`, the library size that the model reads from the tissue.
    label_logits
        `(n_core, C)`.
    view_score
        `(n_core, 1)`, how much this view of the spots counts among augmented ones.
    views
        Predictions from augmented views of the same spots, in training with distillation.
    depth_variance
        `(n_core,)`, variance of the factor, of mean 1 and a Gamma distribution, by which all means of a section may be
        off; the dispersion holds it. None: there is no such factor.
    composition
        `(n_core, C)`, estimated share of each class in the tile that shows the nucleus.
    extras
        What only the model's own loss terms read.

    Examples
    --------
    >>> import torch
    >>> prediction = h2s.models.Prediction(
    ...     embedding=torch.zeros(2, 1),
    ...     log_mu=torch.zeros(2, 3),
    ...     log_dispersion=torch.zeros(3),
    ...     dropout_logits=torch.zeros(2, 3),
    ... )
    >>> prediction.mean
    tensor([[0.5000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000]])
    >>> type(prediction.distribution).__name__
    'ZINB'
    """

    embedding: Tensor
    log_mu: Tensor | None = None
    log_dispersion: Tensor | None = None
    dropout_logits: Tensor | None = None
    value: Tensor | None = None
    log_library: Tensor | None = None
    label_logits: Tensor | None = None
    log_base: float = math.e
    target: Target = "log_normalized"
    target_factor: float = 1.0
    view_score: Tensor | None = None
    views: Sequence[Prediction] = ()
    depth_variance: Tensor | None = None
    composition: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def distribution(self) -> ZINB | NB | Poisson | None:
        """Predicted distribution of the counts; None where none is predicted."""
        if self.log_mu is None:
            return None
        if self.log_dispersion is None:
            return Poisson(self.log_mu)
        if self.dropout_logits is None:
            return NB(self.log_mu, self.log_dispersion)
        return ZINB(self.log_mu, self.log_dispersion, self.dropout_logits)

    @property
    def mean(self) -> Tensor:
        """`(n_core, G)`, expected count; for `mse` models ln(1 + 1e4 x / library size), the natural logarithm.

        Where the target is `"log_counts"`, the logarithm is undone: the result is in units of the counts, and lies
        below their mean, as a mean of logarithms does.
        """
        if self.value is not None:
            natural = self.value if self.log_base == math.e else self.value * math.log(self.log_base)
            return natural if self.target == "log_normalized" else torch.expm1(natural).clamp(min=0)
        if self.log_mu is None:
            raise ValueError("The prediction has neither `log_mu` nor `value`.")
        mu = self.log_mu.float().exp()
        return mu if self.dropout_logits is None else mu * torch.sigmoid(-self.dropout_logits.float())

    @property
    def log_normalized(self) -> Tensor:
        """`(n_core, G)`, expected ln(1 + 1e4 x / library size), never negative for models of counts.

        `value`, where that is what the model predicts; else the expectation under the predicted distribution, with the
        sum of the means of the spot for its library size. For the same expression, fewer counts read lower; so where
        all means may be off by a common factor of depth, it must be told at what depth they are read: one standard
        deviation of the logarithm of the factor below its median. Read as deeper than it was, a section correlates
        much less with what was measured in it, and as shallower by as much hardly less.
        """
        if self.value is not None and self.target == "log_normalized":
            return self.mean
        total = self.mean.sum(dim=1, keepdim=True).clamp(min=LEAST_TOTAL)
        if self.value is not None:
            return torch.log1p(self.mean * (TARGET_SUM / total))
        distribution = self.distribution
        if distribution is None:
            raise ValueError("The prediction has neither `log_mu` nor `value`.")
        expected = distribution.expected_log1p(TARGET_SUM / total)
        if self.depth_variance is None or self.log_dispersion is None:
            return expected
        for variance in self.depth_variance.unique().tolist():
            rows = self.depth_variance == variance
            if variance > 0:
                expected[rows] = self._read_shallow(variance, rows, total[rows])
        return expected

    def _read_shallow(self, variance: float, rows: Tensor, total: Tensor) -> Tensor:
        """Return expected ln(1 + 1e4 x / library size) of some spots whose depth may be off by a factor."""
        assert self.log_mu is not None and self.log_dispersion is not None
        widened = self.log_dispersion.float().expand_as(self.log_mu)[rows]
        within = -torch.log((torch.exp(-widened) - variance).clamp(min=LEAST_SPREAD))
        log_factor = log_reading_factor(variance)
        log_mu = self.log_mu[rows].float() + log_factor
        scale = TARGET_SUM / (math.exp(log_factor) * total)
        if self.dropout_logits is None:
            return NB(log_mu, within).expected_log1p(scale)
        return ZINB(log_mu, within, self.dropout_logits[rows]).expected_log1p(scale)

    @property
    def uncertainty(self) -> Tensor | None:
        """`(n_core, G)`, standard deviation of the predicted distribution of the counts."""
        return None if self.distribution is None else self.distribution.variance.sqrt()

    @property
    def mu(self) -> Tensor | None:
        """`(n_core, G)`, mean of the count component."""
        return None if self.log_mu is None else self.log_mu.float().exp()

    @property
    def dispersion(self) -> Tensor | None:
        """`(n_core, G)` inverse dispersion theta."""
        if self.log_dispersion is None or self.log_mu is None:
            return None
        return self.log_dispersion.float().exp().expand_as(self.log_mu)

    @property
    def dropout(self) -> Tensor | None:
        """`(n_core, G)` zero-inflation probability."""
        return None if self.dropout_logits is None else torch.sigmoid(self.dropout_logits.float())


def log_median(variance: float) -> float:
    """Return the logarithm of the median of the Gamma distribution of mean 1 and this variance."""
    from scipy.special import gammaincinv

    return float(np.log(gammaincinv(1 / variance, 0.5) * variance))


def log_reading_factor(variance: float) -> float:
    """Return the logarithm of the factor of depth at which tissue of another donor is read, relative to its means.

    One standard deviation of the logarithm of the factor below its median.
    """
    from scipy.special import polygamma

    return log_median(variance) - float(np.sqrt(polygamma(1, 1 / variance)))
