"""GHIST: cell types and expression of single nuclei, from tiles of the image with all nuclei in them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hist2scrna.models.contract import Context, Likelihood, Prediction, SpotBatch, SpotModel, Term, TrainingStatistics
from hist2scrna.models.ghist_checkpoint import GENERAL, NAMES, without_queries_and_keys
from hist2scrna.models.ghist_expression import MixedExpression, perceptron
from hist2scrna.models.ghist_losses import (
    SpecialLoss,
    classified_composition_loss,
    composition_loss,
    embedding_loss,
    logits_loss,
    map_loss,
    type_from_expression_loss,
)
from hist2scrna.models.heads import ExpressionHeads
from hist2scrna.models.reference import load_renamed
from hist2scrna.models.registry import register
from hist2scrna.models.training import FIELDS, Training
from hist2scrna.models.unet3plus import DEPTH, MULTIPLE, UNet3Plus
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

# In what ln(1 + count) is multiplied by, inside the network and in its loss.
FACTOR = 5.0
SPECIAL = {"immune": ("B", "Myeloid"), "invasive": ("Malignant",)}
LIKELIHOODS = ("mse", "nb", "zinb")
# What compares expression would drown a likelihood: the published squared error of 5 ln(1 + count) is one times 50
# variances of ln(1 + count), some 15 where cells of a type vary by .3.
BESIDE_LIKELIHOOD = 1 / 15
OURS = ("reference", "color_mean", "color_scale")


class GHIST(SpotModel):
    """GHIST: a map of cell types, and the type and the expression of every nucleus in a tile.

    A UNet 3+ reads the tile; a nucleus is the mean of its first and last level over its pixels, and over the tile.
    Training adds to the squared error of 5 ln(1 + count) the cross-entropies of the map, of the type that is read from
    the image and of that read from the predicted expression, the agreement of the latter's features and logits with
    those of the true expression, and the composition of the batch: ten terms, as published. Two of these weigh next to
    nothing, since they compare the softmax of shares, and that of the classified composition has no gradient.

    Differences from the original, none in the numbers of a batch: the incomplete last batch of an epoch is trained on
    too; nuclei without a type or without counts stay in the mask, and are left out of the terms; sections, not bands of
    one picture, are held out. Types are changed by composition only where prediction is asked to.

    Source: Fu et al., Spatial gene expression at single-cell resolution from histology using deep learning with GHIST,
    Nature Methods 22:1900 (2025).

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types, 0 for expression alone.
    width, embedding
        Channels of the first level of the backbone; width of the vector of a nucleus.
    likelihood
        `"mse"`, as published: the squared error of 5 ln(1 + count). `"nb"` or `"zinb"`: a distribution of the counts,
        by the heads of our own networks on the vector of the nucleus, in place of the mixture.
    special
        Heads of expression for some types, by name: the types whose nuclei train them, as
        `{"immune": ("B", "Myeloid")}`. Types that the data do not have are left out, and heads without any. None: no
        such head.
    tile_px, tile_um
        Side of a tile in pixels, a multiple of 16, and in microns.
    n_reference
        Number of reference profiles, told by `reference=` of `fit`; 0: expression is not a mixture of these.
    classes
        Names of the cell types, told by the data.
    supervision
        What the counts are of, told by the data: `"nucleus"`, or `"spot"`, the sum over the nuclei in it. With the
        latter, terms that compare with the expression of a single nucleus fall away.

    Examples
    --------
    >>> h2s.models.GHIST(20, 2, width=4, embedding=32, classes=("B", "T"), special={"immune": ("B",)}).special
    {'immune': (0,)}
    """

    needs = "tiles"
    context = Context("tile")
    reference: Tensor
    color_mean: Tensor
    color_scale: Tensor

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        width: int = 64,
        embedding: int = 256,
        likelihood: Likelihood = "mse",
        special: Mapping[str, Sequence[str]] | None = None,
        tile_px: int = 256,
        tile_um: float = 64.0,
        n_reference: int = 0,
        classes: Sequence[str] = (),
        supervision: Literal["nucleus", "spot"] = "nucleus",
    ) -> None:
        super().__init__()
        if tile_px < MULTIPLE or tile_px % MULTIPLE:
            raise ValueError(f"Expected `tile_px` to be a multiple of {MULTIPLE}, found {tile_px}.")
        if not tile_um > 0:
            raise ValueError(f"Expected `tile_um` to be positive, found {tile_um}.")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"Expected `likelihood` to be one of {list(LIKELIHOODS)}, found {likelihood!r}.")
        counts = likelihood != "mse"
        if counts and n_reference:
            raise ValueError(f"`reference` goes with likelihood='mse' alone, found {likelihood!r}: leave one out.")
        if supervision == "spot" and likelihood == "zinb":
            raise ValueError("The sum of zero-inflated counts over a spot is none: pass likelihood='nb' or 'mse'.")
        self.likelihood = likelihood
        self.target = "log_normalized" if counts else "log_counts"
        self.by_spot = supervision == "spot"
        self.special = {} if counts or self.by_spot else _present(special or {}, classes)
        self.backbone = UNet3Plus(width)
        self.embedding = perceptron(2 * (DEPTH + 1) * width, embedding, embedding)
        self.heads = ExpressionHeads(embedding, n_genes, 0, likelihood) if counts else None
        names = [] if counts else [GENERAL, *self.special]
        self.expression = nn.ModuleDict({name: MixedExpression(n_genes, embedding, n_reference) for name in names})
        self.n_classes = n_classes
        if n_classes:
            self.type_map = nn.Conv2d(DEPTH * width, n_classes + 1, 3, padding=1)
            nn.init.kaiming_normal_(self.type_map.weight)
            self.composition = perceptron(embedding, embedding, n_classes)
            self.cell_type = perceptron(embedding, embedding, n_classes)
            self.type_of_expression = perceptron(n_genes, embedding, n_classes)
        self.register_buffer("reference", torch.zeros(n_reference, n_genes))
        self.register_buffer("color_mean", torch.zeros(3))
        self.register_buffer("color_scale", torch.ones(3))

    @torch.no_grad()
    def start_at(self, statistics: TrainingStatistics) -> None:
        """Standardize colors by the training tiles; heads of counts start at the mean of each gene.

        So does free expression that only sums over spots teach: it starts at the mean count of a nucleus.
        """
        super().start_at(statistics)
        if self.by_spot and self.heads is None and len(self.reference) == 0:
            mean = torch.exp(statistics.log_rate + statistics.log_library[0])
            self.expression[GENERAL].get_parameter("refine.3.bias").copy_(FACTOR * torch.log1p(mean))
        if statistics.color_mean is not None and statistics.color_scale is not None:
            self.color_mean.copy_(statistics.color_mean)
            self.color_scale.copy_(statistics.color_scale)

    @property
    def terms(self) -> Mapping[str, float | tuple[Term, float]]:
        """The loss terms beside those of expression and of the type in the image.

        Weighted as published beside the squared error; beside a likelihood, those of expression by a fifteenth of it.
        """
        if not self.n_classes:
            return {}
        share = 1.0 if self.heads is None else BESIDE_LIKELIHOOD
        of_nuclei: dict[str, tuple[Term, float]] = {
            "cell_type_expression": (type_from_expression_loss, share),
            **{f"expression_{name}": (SpecialLoss(name, types), 1.0) for name, types in self.special.items()},
            "embedding": (embedding_loss, 100.0 * share),
            "logits": (logits_loss, share),
        }
        return {
            "map": (map_loss, 1.0),
            **({} if self.by_spot else of_nuclei),
            "composition_estimated": (composition_loss, 1.0),
            "composition_classified": (classified_composition_loss, 1.0),
        }

    def encode(self, batch: SpotBatch) -> Tensor:
        """Return `(n, 12 width)`, the mean levels of each nucleus and of its tile."""
        return self._pooled(*self._levels(batch), batch)

    def _levels(self, batch: SpotBatch) -> tuple[Tensor, Tensor]:
        if batch.tiles is None:
            raise ValueError("ghist reads tiles, but the batch holds none.")
        mean, scale = self.color_mean[:, None, None], self.color_scale[:, None, None]
        last, first = self.backbone((batch.tiles.float() - mean) / scale)
        return last, first

    @staticmethod
    def _pooled(last: Tensor, first: Tensor, batch: SpotBatch) -> Tensor:
        assert batch.masks is not None and batch.tile is not None
        inside = batch.masks > 0
        row, n = batch.masks[inside].long() - 1, len(batch.tile)
        pixels = torch.bincount(row, minlength=n).clamp(min=1)[:, None]
        of_nuclei = [
            level.new_zeros(n, level.shape[1]).index_add(0, row, level.permute(0, 2, 3, 1)[inside]) / pixels
            for level in (last.float(), first.float())
        ]
        of_tiles = [level.float().mean(dim=(2, 3))[batch.tile] for level in (last, first)]
        return torch.cat([*of_nuclei, *of_tiles], dim=1)

    def decode(self, tokens: Tensor, batch: SpotBatch) -> Prediction:
        """Predict the core nuclei; the halo counts in the composition of the tiles."""
        hidden = self.embedding(tokens)
        core = hidden[: batch.n_core]
        if self.heads is not None:
            # The library size of a spot is not that of its nuclei.
            prediction = self.heads(core, core, None if batch.spot is not None else batch.log_library)
            expression = {GENERAL: FACTOR * torch.log1p(prediction.mean)}
        else:
            expression = {name: self.expression_by(name, core) for name in self.expression}
            prediction = Prediction(core, value=expression[GENERAL] / FACTOR)
            prediction.target, prediction.target_factor = self.target, FACTOR
        if self.n_classes:
            prediction.label_logits = self.cell_type(core)
            prediction.composition = self._composition(hidden, batch)
            prediction.extras = {f"expression_{name}": value for name, value in expression.items()}
            if batch.counts is not None and batch.spot is None:
                prediction.extras |= self._compared(expression[GENERAL], FACTOR * torch.log1p(batch.counts))
        return prediction

    def expression_by(self, head: str, embedding: Tensor) -> Tensor:
        """Return `(n, G)`, 5 ln(1 + count) of nuclei by one head, of their embeddings."""
        profiles = FACTOR * self.reference if len(self.reference) else None
        return self.expression[head](embedding, profiles).float()

    def _composition(self, hidden: Tensor, batch: SpotBatch) -> Tensor:
        """Return `(n_core, C)`, the estimated composition of the tile of each nucleus."""
        assert batch.tile is not None
        n_tiles = int(batch.tile.max()) + 1
        total = hidden.new_zeros(n_tiles, hidden.shape[1]).index_add(0, batch.tile, hidden)
        number = torch.bincount(batch.tile, minlength=n_tiles).clamp(min=1)[:, None]
        return self.composition(total / number).softmax(dim=1)[batch.tile[: batch.n_core]]

    def _compared(self, predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Return features and type logits of predicted and of true expression, by the same weights."""
        compared = {"expression_truth": truth}
        for name, values in (("prediction", predicted), ("truth", truth)):
            first, _, last = self.type_of_expression
            compared[f"features_of_{name}"] = features = first(values)
            compared[f"logits_of_{name}"] = last(F.relu(features))
        return compared

    def forward(self, batch: SpotBatch) -> Prediction:
        """Predict the core nuclei, and with their labels at hand the map of types: the backbone runs once for both."""
        last, first = self._levels(batch)
        prediction = self.decode(self._pooled(last, first, batch), batch)
        if self.n_classes and batch.label is not None:
            prediction.extras = {**prediction.extras, "map_logits": self.type_map(last)}
        return prediction

    def load_reference_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the original; queries and keys of its attention, which do nothing, are left out.

        Raises
        ------
        ValueError
            If it is of another width, or number of genes, types, profiles or heads, or no GHIST; nothing is loaded
            then.
        """
        load_renamed(self, without_queries_and_keys(state), NAMES, may_lack=OURS)


def _present(special: Mapping[str, Sequence[str]], classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the types of each head, as far as the data have them."""
    names = list(classes)
    numbers = {head: tuple(names.index(name) for name in types if name in names) for head, types in special.items()}
    absent = [head for head, types in numbers.items() if not types]
    if absent:
        log.log(HINT, "no head of expression for %s: none of its types is among %s", ", ".join(absent), names)
    return {head: types for head, types in numbers.items() if types}


register(
    "ghist",
    GHIST,
    training=Training(
        max_epochs=50,
        patience=0,
        batch_size=8,
        lr=1e-3,
        schedule="linear",
        optimizer="adamw",
        weight_decay=1e-4,
        decay_offsets=True,
        clip=0.0,
        augment=True,
        alpha=1.0,
    ),
    presets={
        "published": {"width": 64, "embedding": 256, "special": SPECIAL},
        "small": {"width": 16, "embedding": 128, "special": SPECIAL},
        "tiny": {"width": 4, "embedding": 32, "special": SPECIAL},
    },
    uses=(*FIELDS, "losses", "init_from"),
)
