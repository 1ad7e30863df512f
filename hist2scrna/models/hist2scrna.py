"""The full model: a vision transformer on each patch, graph attention over the spots, count and cell-type heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from hist2scrna.models.contract import Context, Likelihood, Prediction, SpotBatch, SpotModel
from hist2scrna.models.heads import Dispersion, ExpressionHeads
from hist2scrna.models.layers import PatchNormalization, perceptron
from hist2scrna.models.reference import load_renamed
from hist2scrna.models.registry import OPTIONAL_ARGUMENTS, register
from hist2scrna.models.training import FIELDS
from hist2scrna.models.vit import VisionTransformer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = [
    (r"mu_decoder\.(.*)", r"heads.rate.\1"),
    (r"theta_decoder\.(.*)", r"heads.spot_dispersion.\1"),
    (r"pi_decoder\.(.*)", r"heads.dropout.\1"),
    (r"cell_type_head\.(.*)", r"heads.cell_type.\1"),
]


class SpatialGraphAttention(nn.Module):
    """Two graph attention layers, the first with several heads, the second with one.

    Source: Velickovic et al., Graph Attention Networks, ICLR 2018. Self loops are added by the layers.

    Parameters
    ----------
    width, hidden, heads
        Width of the input, of one head (and of the output), number of heads of the first layer.
    dropout
        Rate on the attention weights and between the layers.
    """

    def __init__(self, width: int, hidden: int, heads: int, dropout: float) -> None:
        from torch_geometric.nn import GATConv

        super().__init__()
        self.gat1 = GATConv(width, hidden, heads=heads, dropout=dropout)
        self.gat2 = GATConv(heads * hidden, hidden, heads=1, concat=False, dropout=dropout)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, edge_index: Tensor) -> Tensor:
        """Map `(n, width)` to `(n, hidden)` over the edges `(2, e)`."""
        return self.gat2(self.drop(F.elu(self.gat1(tokens, edge_index))), edge_index)


class Hist2scRNA(SpotModel):
    """Vision transformer, graph attention, and the parameters of a zero-inflated negative binomial.

    Each patch gives one class token; two graph attention layers mix the tokens of neighboring spots; a shared decoder
    feeds the heads. So a spot sees its neighbors two edges away, and no further: context `hops(2)`.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0: no cell-type head).
    patch_px
        Side of a patch in pixels, a multiple of `token_px`.
    token_px
        Side of the square tokens that a patch is cut into, in pixels.
    width
        Width of the tokens in the vision transformer, a multiple of `heads`.
    depth
        Number of blocks of the vision transformer.
    heads
        Number of attention heads of each block.
    graph_width
        Width of one head of graph attention, and of what the graph layers give.
    graph_heads
        Number of heads of the first graph layer; the second has one.
    decoder
        Widths of the layers of the shared decoder between the graph layers and the heads; empty for none.
    dropout
        Rate of dropout in the vision transformer, the graph layers and the decoder.
    likelihood
        Distribution of the counts: `"zinb"`, `"nb"`, `"poisson"`; or `"mse"`, the squared error of log-normalized
        expression, without a distribution.
    dispersion
        `"gene"`: one inverse dispersion a gene, shared by all spots, which few spots can support. `"spot"`: one for
        each gene and spot, as in the first publication.
    graph
        False cuts all edges: each spot is predicted from its own patch. For ablations.
    residual
        Add a linear map of the spot's own token to the graph's output. Graph attention averages a spot with its
        neighbors; without this term the two are hard to tell apart. False gives the architecture of the first
        publication.
    channels
        Channels of a patch: 3, and more for several stains of a section; `fit` takes it from the images.
    n_programs
        Rates are made of so many gene programs, whose loadings are learned from the counts alone before training, with
        those of donors without images (`expression=`, which sets it to 10 unless it is given), and kept. 0: rates are a
        linear map of the decoder's output, learned with the rest.

    Examples
    --------
    >>> h2s.models.Hist2scRNA(20, patch_px=48, token_px=8, width=96, depth=2, heads=4).token_grid
    (6, 6)
    """

    needs = "patches"
    has_attention = True

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        patch_px: int = 224,
        token_px: int = 16,
        width: int = 384,
        depth: int = 6,
        heads: int = 6,
        graph_width: int = 512,
        graph_heads: int = 4,
        decoder: Sequence[int] = (1024, 2048),
        dropout: float = 0.1,
        likelihood: Likelihood = "zinb",
        dispersion: Dispersion = "gene",
        graph: bool = True,
        residual: bool = True,
        channels: int = 3,
        n_programs: int = 0,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.starting_programs = n_programs
        self.context = Context("hops", 2) if graph else Context("spot")
        self.normalize = PatchNormalization(channels)
        self.vit = VisionTransformer(patch_px, token_px, width, depth, heads, dropout, channels)
        self.spatial_gnn = SpatialGraphAttention(width, graph_width, graph_heads, dropout)
        self.residual = nn.Linear(width, graph_width) if residual else None
        self.decoder = perceptron(graph_width, decoder, dropout)
        self.heads = ExpressionHeads(
            [graph_width, *decoder][-1], n_genes, n_classes, likelihood, dispersion, n_programs
        )

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of the vision transformer."""
        return self.vit.grid

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the class token of each patch, `(n, width)`."""
        if batch.patches is None:
            raise ValueError("hist2scrna reads patches, but the batch holds none.")
        return self.vit(self.normalize(batch.patches))

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Mix the tokens over the graph and predict the core spots."""
        edges = batch.edge_index if self.context.kind == "hops" else batch.edge_index[:, :0]
        mixed = self.spatial_gnn(tokens, edges)
        if self.residual is not None:
            mixed = mixed + self.residual(tokens)
        embedding = mixed[: batch.n_core]
        return self.heads(self.decoder(embedding), embedding, batch.log_library)

    def load_reference_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the first publication's state dict, as `torch.load(path, weights_only=True)` gives it.

        This model must have been made with `residual=False` and `dispersion="spot"`. The library-size head, which the
        original lacks, keeps its weights.

        Raises
        ------
        ValueError
            If this model was made with other options than the checkpoint; nothing is loaded then.
        """
        load_renamed(self, state, NAMES, may_lack=("heads.library.", "heads.reference_log", "heads.log_library_scale"))


register(
    "hist2scrna",
    Hist2scRNA,
    presets={
        "tiny": {
            "patch_px": 48,
            "token_px": 8,
            "width": 96,
            "depth": 2,
            "heads": 4,
            "graph_width": 96,
            "graph_heads": 2,
            "decoder": (192, 192),
        },
        "small": {},
        "base": {"width": 768, "depth": 12, "heads": 12},
    },
    default="small",
    uses=(*FIELDS, *OPTIONAL_ARGUMENTS),
)
