"""The transformer over a whole section that HisToGene and TransformerST share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from hist2scrna.models.array_position import ArrayPosition
from hist2scrna.models.contract import Context, Prediction, SpotBatch, SpotModel
from hist2scrna.models.layers import TransformerBlock
from hist2scrna.models.reference import load_renamed

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADS = 16
HEAD_WIDTH = 64

NAMES = [
    (r"(patch_embedding\..*)", r"\1"),
    (r"([xy])_embed\.weight", r"position.\1.weight"),
    (r"vit\.transformer\.layers\.(\d+)\.0\.norm\.(.*)", r"blocks.\1.norm1.\2"),
    (r"vit\.transformer\.layers\.(\d+)\.0\.fn\.to_qkv\.(.*)", r"blocks.\1.attn.qkv.\2"),
    (r"vit\.transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"vit\.transformer\.layers\.(\d+)\.1\.norm\.(.*)", r"blocks.\1.norm2.\2"),
    (r"vit\.transformer\.layers\.(\d+)\.1\.fn\.net\.(.*)", r"blocks.\1.mlp.\2"),
    (r"gene_head\.0\.(.*)", r"norm.\1"),
    (r"gene_head\.1\.(.*)", r"heads.expression.\1"),
]


class SectionTransformer(SpotModel):
    """Flattened patches, learned array positions, a transformer over all spots of the section, and a linear head.

    Models that are this network differ in how they read pixels and positions, and in their logarithm.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types, 0 for no such head.
    pixels
        Turns patches into floats whose axes are (channel, first, second), in the order in which they are flattened:
        first axis, second axis, color.
    patch_size
        Side of a patch in pixels.
    n_layers
        Transformer blocks, each with 16 heads of 64.
    dim
        Width of the tokens.
    dropout
        Rate throughout.
    n_pos
        Array columns and rows that are told apart; see `ArrayPosition`.

    Attributes
    ----------
    log_base
        Base of the logarithm of the predicted expression.
    x_is_row
        The first table of positions, called x, holds array rows instead of array columns.
    """

    needs = "patches"
    on_array = True
    likelihood = "mse"
    log_base: ClassVar[float]
    x_is_row: ClassVar[bool] = False

    def __init__(
        self,
        n_genes: int,
        n_classes: int,
        pixels: nn.Module,
        *,
        patch_size: int,
        n_layers: int,
        dim: int,
        dropout: float,
        n_pos: int,
    ) -> None:
        super().__init__()
        self.context = Context("section")
        self.pixels = pixels
        self.patch_embedding = nn.Linear(3 * patch_size**2, dim)
        self.position = ArrayPosition(n_pos, dim)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, HEADS, dropout, head_width=HEAD_WIDTH, qkv_bias=False, mlp_width=2 * dim)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.heads = nn.ModuleDict({"expression": nn.Linear(dim, n_genes)})
        if n_classes:
            self.heads["cell_type"] = nn.Linear(dim, n_classes)

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the projection of each flattened patch, `(n, dim)`."""
        if batch.patches is None:
            raise ValueError(f"{type(self).__name__} reads patches, but the batch holds none.")
        return self.patch_embedding(self.pixels(batch.patches).permute(0, 2, 3, 1).flatten(1))

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Read all spots of a section together and predict the core spots."""
        if batch.grid is None:
            raise ValueError(f"{type(self).__name__} reads array positions, but the batch holds none.")
        grid = batch.grid.flip(1) if self.x_is_row else batch.grid
        mixed = self.drop(tokens + self.position(grid)).unsqueeze(0)
        for block in self.blocks:
            mixed = block(mixed)
        hidden = mixed.squeeze(0)[: batch.n_core]
        normed = self.norm(hidden)
        value = self.heads["expression"](normed).float()
        prediction = Prediction(embedding=hidden, value=value, log_base=self.log_base)
        if "cell_type" in self.heads:
            prediction.label_logits = self.heads["cell_type"](normed)
        return prediction

    def load_reference_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict of an original checkpoint, as `torch.load(path, weights_only=True)` gives it.

        Raises
        ------
        ValueError
            If this model was made with other options than the checkpoint; nothing is loaded then.
        """
        load_renamed(self, state, NAMES, may_lack=("heads.cell_type",))
