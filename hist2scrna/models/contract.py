"""What a model receives and what it returns: one batch of spots in, one prediction out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hist2scrna.metrics.scales import LEAST_TOTAL, TARGET_SUM
from hist2scrna.zinb import NB, ZINB, Poisson

if TYPE_CHECKING:
    from typing import Self

Likelihood = Literal["zinb", "nb", "poisson", "mse"]
LIKELIHOODS: tuple[Likelihood, ...] = ("zinb", "nb", "poisson", "mse")
# What `mse` models predict: the logarithm of 1 + 1e4 x / library size, or that of 1 + x.
Target = Literal["log_normalized", "log_counts"]


@dataclass(frozen=True)
class Context:
    """Which other spots a model must see to predict one.

    Parameters
    ----------
    kind
        `"spot"`: none. `"hops"`: the graph neighbors up to `hops` edges away. `"section"`: the whole section at once.
    hops
        Number of edges, for `"hops"`.
    """

    kind: Literal["spot", "hops", "section"]
    hops: int = 0


@dataclass
class SpotBatch:
    """A subgraph of `n` spots, of which the first `n_core` are those to predict.

    Parameters
    ----------
    n_core
        Number of spots to predict; the others are their halo.
    xy
        `(n, 2)` float32, coordinates in units of the section's neighbor distance, x right, y down.
    edge_index
        `(2, e)` int64, source and target of each directed edge within the batch, without self loops.
    section
        `(n,)` int64, number of the section of each spot.
    patches
        `(n, 3, H, W)`, uint8, or float in 0..1 after augmentation; more channels for several stains.
    features
        `(n, d)` float32, in place of patches for models on pre-extracted features.
    grid
        `(n, 2)` float32, array column and row, for models that read these.
    counts
        `(n_core, G)` float32 whole numbers, in training.
    log_library
        `(n_core,)` float32, natural logarithm of the library size. Absent: the model's own is used.
    label
        `(n_core,)` int64, class of each spot, -1 where unknown.
    """

    n_core: int
    xy: Tensor
    edge_index: Tensor
    section: Tensor
    patches: Tensor | None = None
    features: Tensor | None = None
    grid: Tensor | None = None
    counts: Tensor | None = None
    log_library: Tensor | None = None
    label: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with all tensors on `device`."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    @property
    def seed_edges(self) -> Tensor:
        """`(2, e')` int64, the edges between two core spots."""
        return self.edge_index[:, (self.edge_index < self.n_core).all(dim=0)]


@dataclass
class Prediction:
    """What a model says of the `n_core` spots of a batch.

    Count models fill `log_mu` and what their likelihood has beside it; `mse` models fill `value`, and may fill the
    others too: the prediction is then `value`.

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
    log_library
        `(n_core,)`, the library size that the model reads from the tissue.
    label_logits
        `(n_core, C)`.
    view_score
        `(n_core, 1)`, how much this view of the spots counts among augmented ones.
    views
        Predictions from augmented views of the same spots, in training with distillation.
    log_normalized
        `(n_core, G)`, expected ln(1 + 1e4 x / library size), of count models that estimate it beside the distribution.
    tissue_distance
        `(n_core,)`, how unlike the training tissue a spot is: 1 is as far as the farthest 1 % of the training spots
        are from the other sections.
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
    view_score: Tensor | None = None
    views: Sequence[Prediction] = ()
    log_normalized: Tensor | None = None
    tissue_distance: Tensor | None = None

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
    def read_out(self) -> Tensor:
        """`(n_core, G)`, expected ln(1 + 1e4 x / library size).

        What the model says of it, as `value` or as `log_normalized`; else the expectation under the predicted
        distribution, with the sum of the means of the spot for its library size.
        """
        if self.value is not None and self.target == "log_normalized":
            return self.mean
        if self.value is not None:
            return torch.log1p(self.mean * (TARGET_SUM / self.mean.sum(dim=1, keepdim=True).clamp(min=LEAST_TOTAL)))
        if self.log_normalized is not None:
            return self.log_normalized
        if self.distribution is None:
            raise ValueError("The prediction has neither `log_mu` nor `value`.")
        total = self.mean.sum(dim=1, keepdim=True).clamp(min=LEAST_TOTAL)
        return self.distribution.expected_log1p(TARGET_SUM / total)

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


Term = Callable[[Prediction, SpotBatch], Tensor]


class SpotModel(nn.Module):
    """Base of every model: encode each spot alone, then read the encodings in their spatial context.

    The two steps are apart so that prediction encodes every spot once, whatever the overlap of the neighborhoods.

    Attributes
    ----------
    context
        Which other spots the model must see.
    needs
        What it reads of each spot.
    likelihood
        What it predicts: the distribution of the counts, or `"mse"` for log-normalized expression.
    on_array
        It reads array columns and rows, and its neighbors are the nearest four on the array.
    estimates_log
        It fills :attr:`Prediction.log_normalized` beside a distribution of counts.
    target
        What `mse` models predict; see :class:`Prediction`. With `"log_counts"`, values that are not whole are taken.
    observation
        What a row of AnnData is: a `"spot"` (or a cell), or a `"slide"`, which has no place in an image.
    frozen_encoder
        Its encoder is pretrained and not trained on: it may be run in bfloat16 on a CPU too.
    """

    context: Context
    needs: Literal["patches", "features"]
    likelihood: Likelihood
    target: Target = "log_normalized"
    observation: ClassVar[Literal["spot", "slide"]] = "spot"
    on_array: ClassVar[bool] = False
    estimates_log: ClassVar[bool] = False
    frozen_encoder: ClassVar[bool] = False

    @property
    def terms(self) -> Mapping[str, float | tuple[Term, float]]:
        """Loss terms of the model's own: a weight for a known name, or a function and its weight."""
        return {}

    @property
    def n_views(self) -> int:
        """Augmented views of each batch, where the loss has a distillation term."""
        return 2

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return `(n, d)`, one vector a spot, from its own patch or features alone."""
        raise NotImplementedError

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict the core spots of `batch` from the `(n, d)` encodings of all its spots."""
        raise NotImplementedError

    def forward(self, batch: SpotBatch) -> Prediction:
        """Predict the core spots of `batch`."""
        return self.decode(self.encode(batch), batch)
