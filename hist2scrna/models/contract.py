"""What a model is: one batch of spots in, one prediction out; where it starts, and which context it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hist2scrna.models.prediction import LIKELIHOODS, Likelihood, Prediction, Target

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "LIKELIHOODS",
    "Context",
    "Likelihood",
    "Prediction",
    "SpotBatch",
    "SpotModel",
    "Target",
    "Term",
    "TrainingStatistics",
]


@dataclass(frozen=True)
class Context:
    """Which other spots a model must see to predict one.

    Parameters
    ----------
    kind
        `"spot"`: none. `"hops"`: the graph neighbors up to `hops` edges away. `"section"`: the whole section at once.
        `"tile"`: a tile of the image with all nuclei in it.
    hops
        Number of edges, for `"hops"`.

    Examples
    --------
    >>> h2s.models.Context("hops", 2)
    Context(kind='hops', hops=2)
    """

    kind: Literal["spot", "hops", "section", "tile"]
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
    number
        `(n_core,)` int64, number of each spot among all that train. Absent in prediction.
    donor
        `(n_core,)` int64, which donor of the training a spot is of, -1: another. Absent: the first.
    tiles
        `(t, 3, H, W)`, uint8, for models that read tiles: a spot is then a nucleus as it shows in one of them.
    masks
        `(t, H, W)` integers: at each pixel 0, or 1 + the row in the batch of the nucleus that it belongs to.
    tile
        `(n,)` int64, the tile of each nucleus.
    spot
        `(n_core,)` int64, the row of `counts` that each nucleus is counted in, where counts and library sizes are those
        of spots, the sums over the nuclei in them; None: they are those of the nuclei.
    spare
        A repeat that only keeps the processes of a training on several devices in step: nothing is learned from it.

    Examples
    --------
    >>> import torch
    >>> batch = h2s.models.SpotBatch(
    ...     n_core=2,
    ...     xy=torch.zeros(3, 2),
    ...     edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
    ...     section=torch.zeros(3, dtype=torch.int64),
    ... )
    >>> batch.core_edges
    tensor([[0, 1],
            [1, 0]])
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
    number: Tensor | None = None
    donor: Tensor | None = None
    tiles: Tensor | None = None
    masks: Tensor | None = None
    tile: Tensor | None = None
    spot: Tensor | None = None
    spare: bool = False

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with all tensors on `device`."""
        return self._with_each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self) -> Self:
        """Return the batch in page-locked memory, from which a GPU takes it while it computes."""
        return self._with_each(Tensor.pin_memory)

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> Self:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {n: change(value) for n, value in given.items() if isinstance(value, Tensor)}
        return replace(self, **changed)

    @property
    def core_edges(self) -> Tensor:
        """`(2, e')` int64, the edges between two core spots."""
        return self.edge_index[:, (self.edge_index < self.n_core).all(dim=0)]


Term = Callable[[Prediction, SpotBatch], Tensor]


@dataclass(frozen=True)
class TrainingStatistics:
    """What the training spots tell before training: where a model starts.

    Attributes
    ----------
    log_rate
        `(G,)`, logarithm of the share of each gene in all counts.
    mean_log_normalized
        `(G,)`, mean of ln(1 + 1e4 x / library size).
    log_dispersion
        `(G,)`, logarithm of the inverse dispersion about the means.
    log_library
        Median of the log library size, and its standard deviation.
    feature_mean, feature_scale
        `(d,)`, mean and standard deviation of each feature, 1 where it is constant; None without features.
    color_mean, color_scale
        `(3,)`, mean and standard deviation of each color, 0 to 255, within a tile, mean over the training tiles; None
        without tiles.
    program_loadings
        `(G, 1 + p)`, what the log library size (less 1, its own part) and each of `p` gene programs, in standard
        deviations, does to the log mean of a gene; None where the model asks for none.
    """

    log_rate: Tensor
    mean_log_normalized: Tensor
    log_dispersion: Tensor
    log_library: tuple[float, float]
    feature_mean: Tensor | None = None
    feature_scale: Tensor | None = None
    color_mean: Tensor | None = None
    color_scale: Tensor | None = None
    program_loadings: Tensor | None = None


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
        Its log-normalized expression is not the expectation under its distribution of counts alone.
    target
        What `mse` models predict; see :class:`Prediction`. With `"log_counts"`, values that are not whole are taken.
    observation
        What a row of AnnData is: a `"spot"` (or a cell), or a `"slide"`, which has no place in an image.
    starting_programs
        Number of gene programs whose loadings it starts from.
    has_attention
        It has layers that give attention weights between neighboring spots when asked, as those of PyTorch Geometric.

    Examples
    --------
    >>> import torch
    >>> class MeanColor(h2s.models.SpotModel):
    ...     needs, likelihood, context = "patches", "mse", h2s.models.Context("spot")
    ...
    ...     def __init__(self, n_genes, n_classes=0, *, patch_px=32):
    ...         super().__init__()
    ...         self.head = torch.nn.Linear(3, n_genes)
    ...
    ...     def encode(self, batch):
    ...         return batch.patches.float().mean(dim=(2, 3)) / 255
    ...
    ...     def decode(self, tokens, batch):
    ...         core = tokens[: batch.n_core]
    ...         return h2s.models.Prediction(embedding=core, value=self.head(core))
    ...
    >>> h2s.models.register("mean color", MeanColor)
    >>> h2s.tl.fit(train, model="mean color", training={"max_epochs": 1}, progress=False).n_parameters
    48
    """

    context: Context
    needs: Literal["patches", "features", "tiles"]
    likelihood: Likelihood
    target: Target = "log_normalized"
    observation: ClassVar[Literal["spot", "slide"]] = "spot"
    on_array: ClassVar[bool] = False
    estimates_log: ClassVar[bool] = False
    starting_programs: int = 0
    has_attention: ClassVar[bool] = False

    def start_at(self, statistics: TrainingStatistics) -> None:
        """Begin at what the training data tell, before the first step: for instance at the mean of each gene.

        Every part of the model that has such a method, as `ExpressionHeads` has, is
        started. Models with more to start extend this.
        """
        for part in self.children():
            start = getattr(part, "start_at", None)
            if start is not None:
                start(statistics)

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the tokens that a patch is cut into; None where there are none."""
        return None

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

    def farther_than_sections(self, tokens: Tensor, section: Tensor) -> Tensor | None:
        """Tell which spots lie in sections that are farther from the training than its sections are from each other.

        Such tissue is taken for that of another donor, where nobody says whose it is.

        Parameters
        ----------
        tokens
            `(n, d)` encodings of all spots.
        section
            `(n,)` int64, number of the section of each spot.

        Returns
        -------
        `(n,)` bool; None where the model makes no difference between donors.
        """
        return None

    def forward(self, batch: SpotBatch) -> Prediction:
        """Predict the core spots of `batch`."""
        return self.decode(self.encode(batch), batch)
