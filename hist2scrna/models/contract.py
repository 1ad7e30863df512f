"""What a model receives and what it returns: one batch of spots in, one prediction out."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from hist2scrna.zinb import NB, ZINB, Poisson

if TYPE_CHECKING:
    from typing import Self

Likelihood = Literal["zinb", "nb", "poisson", "mse"]
LIKELIHOODS: tuple[Likelihood, ...] = ("zinb", "nb", "poisson", "mse")


@dataclass(frozen=True)
class Context:
    """Which other spots a model must see to predict one.

    Parameters
    ----------
    kind
        `"spot"`: none. `"hops"`: the graph neighbours up to `hops` edges away. `"section"`: the whole section at once.
    hops
        Number of edges, for `"hops"`.
    """

    kind: Literal["spot", "hops", "section"]
    hops: int = 0


@dataclass
class SpotBatch:
    """A subgraph of `n` spots, of which the first `n_seeds` are those to predict.

    Parameters
    ----------
    n_seeds
        Number of spots to predict; the others are their halo.
    xy
        `(n, 2)` float32, coordinates in units of the section's neighbour distance, x right, y down.
    edge_index
        `(2, e)` int64, source and target of each directed edge within the batch, without self loops.
    section
        `(n,)` int64, number of the section of each spot.
    patches
        `(n, 3, H, W)`, uint8, or float in 0..1 after augmentation.
    features
        `(n, d)` float32, in place of patches for models on pre-extracted features.
    grid
        `(n, 2)` int64, array column and row, where the spots lie on a lattice.
    counts
        `(n_seeds, G)` float32 whole numbers, in training.
    log_library
        `(n_seeds,)` float32, natural logarithm of the library size. Absent: the model's own is used.
    label
        `(n_seeds,)` int64, class of each spot, -1 where unknown.
    """

    n_seeds: int
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
        """`(2, e')` int64, the edges between two seeds."""
        return self.edge_index[:, (self.edge_index < self.n_seeds).all(dim=0)]


@dataclass
class Prediction:
    """What a model says of the `n_seeds` spots of a batch.

    Count models fill `log_mu` and what their likelihood has beside it; `mse` models fill `value`.

    Parameters
    ----------
    embedding
        `(n_seeds, d)` float, the representation before the heads.
    log_mu
        `(n_seeds, G)`, logarithm of the mean of the count component, at the library size in use.
    log_dispersion
        `(n_seeds, G)` or `(G,)`, logarithm of the inverse dispersion theta.
    dropout_logits
        `(n_seeds, G)`, logit of the zero-inflation probability.
    value
        `(n_seeds, G)`, log-normalised expression, for `mse`.
    log_library
        `(n_seeds,)`, the library size that the model reads from the tissue.
    label_logits
        `(n_seeds, C)`.
    """

    embedding: Tensor
    log_mu: Tensor | None = None
    log_dispersion: Tensor | None = None
    dropout_logits: Tensor | None = None
    value: Tensor | None = None
    log_library: Tensor | None = None
    label_logits: Tensor | None = None

    @property
    def distribution(self) -> ZINB | NB | Poisson | None:
        """Predicted distribution of the counts; None for `mse` models."""
        if self.log_mu is None:
            return None
        if self.log_dispersion is None:
            return Poisson(self.log_mu)
        if self.dropout_logits is None:
            return NB(self.log_mu, self.log_dispersion)
        return ZINB(self.log_mu, self.log_dispersion, self.dropout_logits)

    @property
    def mean(self) -> Tensor:
        """`(n_seeds, G)`, expected count (log-normalised expression for `mse` models)."""
        if self.value is not None:
            return self.value
        if self.log_mu is None:
            raise ValueError("The prediction has neither `log_mu` nor `value`.")
        mu = self.log_mu.float().exp()
        return mu if self.dropout_logits is None else mu * torch.sigmoid(-self.dropout_logits.float())

    @property
    def mu(self) -> Tensor | None:
        """`(n_seeds, G)`, mean of the count component."""
        return None if self.log_mu is None else self.log_mu.float().exp()

    @property
    def dispersion(self) -> Tensor | None:
        """`(n_seeds, G)` inverse dispersion theta."""
        if self.log_dispersion is None or self.log_mu is None:
            return None
        return self.log_dispersion.float().exp().expand_as(self.log_mu)

    @property
    def dropout(self) -> Tensor | None:
        """`(n_seeds, G)` zero-inflation probability."""
        return None if self.dropout_logits is None else torch.sigmoid(self.dropout_logits.float())


class SpotModel(nn.Module):
    """Base of every model: encode each spot alone, then read the encodings in their spatial context.

    The two steps are apart so that prediction encodes every spot once, whatever the overlap of the neighbourhoods.
    """

    context: Context
    needs: Literal["patches", "features"]

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return `(n, d)`, one vector a spot, from its own patch or features alone."""
        raise NotImplementedError

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict the seeds of `batch` from the `(n, d)` encodings of all its spots."""
        raise NotImplementedError

    def forward(self, batch: SpotBatch) -> Prediction:
        """Predict the seeds of `batch`."""
        return self.decode(self.encode(batch), batch)
