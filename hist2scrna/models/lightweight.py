"""The lightweight model: attention between neighboring spots, on the features of a frozen encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hist2scrna.models.contract import Context, Likelihood, Prediction, SpotBatch, SpotModel, TrainingStatistics
from hist2scrna.models.heads import Dispersion, ExpressionHeads
from hist2scrna.models.layers import feed_forward, perceptron
from hist2scrna.models.registry import OPTIONAL_ARGUMENTS, register
from hist2scrna.models.training import FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence


class NeighborAttention(nn.Module):
    """Pre-norm block in which each spot attends to itself and to its graph neighbors.

    The offset between two spots, in units of the neighbor distance, is embedded and added to the key and the value,
    so that a spot can weigh what lies where. Source: Shi et al., Masked Label Prediction (graph transformer), IJCAI
    2021, with the offset as edge feature.

    Parameters
    ----------
    width, heads
        Width of the tokens, a multiple of `heads`; number of heads.
    dropout
        Rate on the attention weights and in the perceptron.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        from torch_geometric.nn import TransformerConv

        super().__init__()
        if width % heads:
            raise ValueError(f"Expected `width` to be a multiple of `heads`, found {width} and {heads}.")
        self.norm1 = nn.LayerNorm(width)
        self.offset = nn.Sequential(nn.Linear(2, 32), nn.GELU(), nn.Linear(32, 32))
        self.attend = TransformerConv(width, width // heads, heads=heads, edge_dim=32, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = feed_forward(width, dropout)

    def forward(self, tokens: Tensor, edge_index: Tensor, offset: Tensor) -> Tensor:
        """Map `(n, width)` to the same shape, over edges `(2, e)` with offsets `(e, 2)`; self loops included."""
        tokens = tokens + self.attend(self.norm1(tokens), edge_index, self.offset(offset))
        return tokens + self.mlp(self.norm2(tokens))


class Hist2scRNALightweight(SpotModel):
    """Project features of any width, attend over spatial neighbors, predict counts and cell types.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0: no cell-type head).
    n_features
        Width of the features.
    width
        Width of the tokens that the features are projected to, a multiple of `heads`.
    depth
        Number of blocks of attention over neighbors; each reaches one edge further.
    heads
        Number of attention heads of each block.
    decoder
        Widths of the layers of the shared decoder between the blocks and the heads; empty for none.
    dropout
        Rate of dropout in the blocks and the decoder.
    likelihood
        Distribution of the counts: `"zinb"`, `"nb"`, `"poisson"`; or `"mse"`, the squared error of log-normalized
        expression, without a distribution.
    dispersion
        `"gene"`: one inverse dispersion a gene, shared by all spots, which few spots can support. `"spot"`: one for
        each gene and spot, as in the first publication.
    graph
        False cuts all edges: each spot is predicted from its own features. For ablations.
    n_programs
        Rates are made of so many gene programs, whose loadings are learned from the counts alone before training, with
        those of donors without images (`expression=`, which sets it to 10 unless it is given), and kept. 0: rates are a
        linear map of the decoder's output, learned with the rest.

    Examples
    --------
    >>> h2s.models.Hist2scRNALightweight(20, n_features=104, depth=3).context
    Context(kind='hops', hops=3)
    """

    needs = "features"
    has_attention = True
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        n_features: int,
        width: int = 512,
        depth: int = 2,
        heads: int = 8,
        decoder: Sequence[int] = (1024, 2048),
        dropout: float = 0.1,
        likelihood: Likelihood = "zinb",
        dispersion: Dispersion = "gene",
        graph: bool = True,
        n_programs: int = 0,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.starting_programs = n_programs
        self.context = Context("hops", depth) if graph else Context("spot")
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))
        self.project = nn.Sequential(nn.Linear(n_features, width), nn.GELU())
        self.blocks = nn.ModuleList(NeighborAttention(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.decoder = perceptron(width, decoder, dropout)
        self.heads = ExpressionHeads([width, *decoder][-1], n_genes, n_classes, likelihood, dispersion, n_programs)

    @torch.no_grad()
    def start_at(self, statistics: TrainingStatistics) -> None:
        """Standardize features by their mean and deviation in the training spots, and start the heads."""
        super().start_at(statistics)
        if statistics.feature_mean is not None and statistics.feature_scale is not None:
            self.feature_mean.copy_(statistics.feature_mean)
            self.feature_scale.copy_(statistics.feature_scale)

    def encode(self, batch: SpotBatch) -> Tensor:
        """Standardize and project the features of each spot to `(n, width)`."""
        if batch.features is None:
            raise ValueError("hist2scrna-lightweight reads features, but the batch holds none.")
        return self.project((batch.features - self.feature_mean) / self.feature_scale)

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Attend over the graph and predict the core spots."""
        from torch_geometric.utils import add_self_loops

        edges = batch.edge_index if self.context.kind == "hops" else batch.edge_index[:, :0]
        edges, _ = add_self_loops(edges, num_nodes=len(tokens))
        offset = (batch.xy[edges[0]] - batch.xy[edges[1]]).to(torch.float32)
        for block in self.blocks:
            tokens = block(tokens, edges, offset)
        embedding = self.norm(tokens[: batch.n_core])
        return self.heads(self.decoder(embedding), embedding, batch.log_library)


register(
    "hist2scrna-lightweight",
    Hist2scRNALightweight,
    presets={"tiny": {"width": 96, "depth": 2, "heads": 4, "decoder": (192, 192)}, "small": {}},
    default="small",
    # Each patch is encoded once, before training.
    uses=[name for name in (*FIELDS, *OPTIONAL_ARGUMENTS) if name != "augment"],
)
