"""Hist2ST: Convmixer, transformer over the section, GraphSAGE with jumping knowledge, self-distillation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hist2scrna.models.array_position import PUBLISHED_PATCH_PER_SPOT, ArrayPosition
from hist2scrna.models.contract import Context, Prediction, SpotBatch, SpotModel
from hist2scrna.models.hist2st_checkpoint import NAMES
from hist2scrna.models.layers import RawPixels, TransformerBlock
from hist2scrna.models.reference import load_renamed
from hist2scrna.models.registry import register
from hist2scrna.models.training import Training
from hist2scrna.zinb import NB, ZINB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hist2scrna.models.contract import Term

HEAD_WIDTH = 64
LOG_MEAN_BOUNDS = (math.log(1e-5), math.log(1e6))
DISPERSION_BOUNDS = (1e-4, 1e4)


class MixerBlock(nn.Module):
    """Two depthwise convolutions added to their input, then a pointwise one: `(n, channel, h, w)` to the same shape."""

    def __init__(self, channel: int, kernel_size: int) -> None:
        super().__init__()

        def depthwise() -> list[nn.Module]:
            conv = nn.Conv2d(channel, channel, kernel_size, groups=channel, padding="same")
            return [conv, nn.BatchNorm2d(channel), nn.GELU()]

        self.depthwise = nn.Sequential(*depthwise(), *depthwise())
        self.pointwise = nn.Sequential(nn.Conv2d(channel, channel, 1), nn.GELU(), nn.BatchNorm2d(channel))

    def forward(self, maps: Tensor) -> Tensor:
        """Mix."""
        return self.pointwise(self.depthwise(maps) + maps)


class Hist2ST(SpotModel):
    """The published Hist2ST, weight for weight; sparse neighbors and fused attention in place of n x n matrices.

    The expression head is the prediction, log10(1 + 1e4 x / library size). The heads of the zero-inflated negative
    binomial (of the negative binomial with `nb`) are auxiliary: they shape the features, and their parameters can be
    written as layers, at the median library size of a section. A spot without neighbors, which gives NaN in the
    original, is its own neighbor here. The attention weights have no dropout, as in the original.

    Source: Zeng et al., Spatial transcriptomics prediction from histology jointly through Transformer and graph neural
    networks, Briefings in Bioinformatics 23(5) (2022). Arguments have their published names.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0, as published: no such head).
    depth1
        Number of Convmixer blocks, which read each patch.
    depth2
        Number of transformer blocks, which read all spots of a section.
    depth3
        Number of graph blocks, which read the neighbors of each spot.
    kernel_size
        Of the depthwise convolutions.
    patch_size
        Side and stride of the patch embedding in pixels.
    fig_size
        Side of a patch in pixels; a multiple of `patch_size`.
    heads
        Attention heads, each 64 wide.
    channel
        Channels of the Convmixer; a multiple of 8. The width of the model is `(fig_size / patch_size)^2 channel / 8`.
    dropout
        Rate after the patch embedding and in the transformer.
    zinb
        Weight of the count likelihood in the loss; 0 leaves its heads out.
    nb
        Negative binomial instead of the zero-inflated one; it does not use library sizes.
    bake
        Number of augmented views for self-distillation; 0 leaves the view score out.
    lamb
        Weight of self-distillation in the loss.
    policy
        How a graph block reads the neighbors: their `"mean"` or `"max"`.
    n_pos
        Number of array columns, and of rows, that are told apart. A section that is larger is shrunk onto so many.

    Examples
    --------
    >>> h2s.models.Hist2ST(20, depth1=1, depth2=1, depth3=1, fig_size=56, channel=8).context.kind
    'section'
    """

    needs = "patches"
    on_array = True
    likelihood = "mse"

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        depth1: int = 2,
        depth2: int = 8,
        depth3: int = 4,
        kernel_size: int = 5,
        patch_size: int = 7,
        fig_size: int = 112,
        heads: int = 16,
        channel: int = 32,
        dropout: float = 0.2,
        zinb: float = 0.25,
        nb: bool = False,
        bake: int = 5,
        lamb: float = 0.5,
        policy: Literal["mean", "max"] = "mean",
        n_pos: int = 64,
    ) -> None:
        from torch_geometric.nn import SAGEConv

        super().__init__()
        if fig_size % patch_size:
            raise ValueError(
                f"Expected `fig_size` to be a multiple of `patch_size`, found {fig_size} and {patch_size}."
            )
        if channel % 8:
            raise ValueError(f"Expected `channel` to be a multiple of 8, found {channel}.")
        if depth3 < 1:
            raise ValueError(f"Expected `depth3` to be at least 1, found {depth3}: the prediction reads these layers.")
        self.context = Context("section")
        self.nb, self.zinb, self.bake, self.lamb = nb, zinb, bake, lamb
        width = (fig_size // patch_size) ** 2 * channel // 8
        self.pixels: nn.Module = RawPixels()
        self.patch_embedding = nn.Conv2d(3, channel, patch_size, patch_size)
        self.drop = nn.Dropout(dropout)
        self.mixer = nn.Sequential(*(MixerBlock(channel, kernel_size) for _ in range(depth1)))
        self.reduce = nn.Conv2d(channel, channel // 8, 1)
        self.position = ArrayPosition(n_pos, width)
        blocks = [
            TransformerBlock(width, heads, dropout, head_width=HEAD_WIDTH, qkv_bias=False, mlp_width=width)
            for _ in range(depth2)
        ]
        if heads == 1 and width == HEAD_WIDTH:
            for block in blocks:
                block.attn.leave_out_projection()
        self.blocks = nn.ModuleList(blocks)
        layers = [SAGEConv(width, width, aggr=policy, root_weight=False, bias=False) for _ in range(depth3)]
        for layer in layers:
            nn.init.xavier_uniform_(layer.lin_l.weight)
        self.graph_layers = nn.ModuleList(layers)
        self.jumping = nn.LSTM(width, width, 2)
        self.norm = nn.LayerNorm(width)
        of_counts = () if zinb <= 0 else ("total", "logit") if nb else ("mean", "dispersion", "dropout")
        self.heads = nn.ModuleDict({name: nn.Linear(width, n_genes) for name in ("expression", *of_counts)})
        self.view_score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) if bake > 0 else None
        if n_classes:
            self.heads["cell_type"] = nn.Linear(width, n_classes)

    @property
    def terms(self) -> Mapping[str, float | tuple[Term, float]]:
        """The count likelihood and the self-distillation, with their published weights."""
        terms: dict[str, float | tuple[Term, float]] = {}
        if self.zinb > 0:
            terms["counts"] = (self.count_loss, self.zinb)
        if self.bake > 0:
            terms["distillation"] = self.lamb
        return terms

    @property
    def n_views(self) -> int:
        """Augmented views of a section for self-distillation."""
        return self.bake

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return the Convmixer's maps of each patch, flattened, `(n, width)`."""
        if batch.patches is None:
            raise ValueError("hist2st reads patches, but the batch holds none.")
        maps = self.drop(self.patch_embedding(self.pixels(batch.patches)))
        return self.reduce(self.mixer(maps)).flatten(1)

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Read all spots of a section together and predict the core spots."""
        if batch.grid is None:
            raise ValueError("hist2st reads array positions, but the batch holds none.")
        mixed = (tokens + self.position(batch.grid)).unsqueeze(0)
        for block in self.blocks:
            mixed = block(mixed)
        spots = mixed.squeeze(0)
        alone = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        alone[batch.edge_index[1]] = False
        edges = torch.cat([batch.edge_index, alone.nonzero().T.expand(2, -1)], dim=1)
        levels = []
        for layer in self.graph_layers:
            spots = F.normalize(F.relu(layer(spots, edges)), dim=1)
            levels.append(spots)
        hidden = self.jumping(torch.stack(levels))[0].mean(dim=0)[: batch.n_core]
        prediction = Prediction(
            embedding=hidden, value=self.heads["expression"](self.norm(hidden)).float(), log_base=10.0
        )
        if "mean" in self.heads:
            prediction.log_mu = self.heads["mean"](hidden).float().clamp(*LOG_MEAN_BOUNDS)
            dispersion = F.softplus(self.heads["dispersion"](hidden).float()).clamp(*DISPERSION_BOUNDS)
            prediction.log_dispersion = dispersion.log()
            prediction.dropout_logits = self.heads["dropout"](hidden).float()
        elif "total" in self.heads:
            prediction.log_dispersion = self.heads["total"](hidden).float()
            prediction.log_mu = prediction.log_dispersion + self.heads["logit"](hidden).float()
        if self.view_score is not None:
            prediction.view_score = self.view_score(hidden).float()
        if "cell_type" in self.heads:
            prediction.label_logits = self.heads["cell_type"](hidden)
        return prediction

    def count_loss(self, prediction: Prediction, batch: SpotBatch) -> Tensor:
        """Return the published loss of the counts, at the size factors of the batch's section.

        The size factor of a spot is its total over the median total.
        """
        if batch.counts is None:
            raise ValueError("The batch holds no counts.")
        total = batch.counts.sum(dim=1)
        return self.negative_log_likelihood(prediction, batch.counts, total / total.quantile(0.5))

    def negative_log_likelihood(self, prediction: Prediction, counts: Tensor, size_factor: Tensor) -> Tensor:
        """Return the published negative log-likelihood of the counts.

        Zero-inflated negative binomial: mean over spots and genes, each mean times the size factor. Negative binomial:
        sum over genes without the term of the counts alone, mean over spots; it takes no size factor.

        Parameters
        ----------
        prediction
            Of this model.
        counts
            `(n, G)`.
        size_factor
            `(n,)`.
        """
        if prediction.log_mu is None or prediction.log_dispersion is None:
            raise ValueError("The prediction holds no distribution of counts.")
        if prediction.dropout_logits is None:
            alone = torch.lgamma(counts + 1)
            log_prob = NB(prediction.log_mu, prediction.log_dispersion).log_prob(counts)
            return -(log_prob + alone).sum(dim=1).mean()
        log_mu = prediction.log_mu + size_factor.log().unsqueeze(1)
        return -ZINB(log_mu, prediction.log_dispersion, prediction.dropout_logits).log_prob(counts).mean()

    def load_reference_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict of an original checkpoint, as `torch.load(path, weights_only=True)` gives it.

        Raises
        ------
        ValueError
            If this model was made with other options than the checkpoint; nothing is loaded then.
        """
        load_renamed(self, state, NAMES, may_lack=("heads.cell_type",))


register(
    "hist2st",
    Hist2ST,
    training=Training(
        max_epochs=350,
        patience=0,
        lr=1e-5,
        weight_decay=0.0,
        validation=0.0,
        augment=False,
        optimizer="adam",
        schedule="step",
        clip=0.0,
    ),
    presets={"published": {}},
    patch_option="fig_size",
    patch_per_spot=PUBLISHED_PATCH_PER_SPOT,
)
