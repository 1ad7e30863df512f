"""TransformerST: its vision transformer, which predicts genes from the patches of a section."""

from __future__ import annotations

import math
from typing import Literal, get_args

from hist2scrna.messages import require_known
from hist2scrna.models.array_position import PUBLISHED_PATCH_PER_SPOT
from hist2scrna.models.layers import UnitPixels
from hist2scrna.models.registry import register
from hist2scrna.models.section_transformer import SectionTransformer
from hist2scrna.models.training import Training

Trained = Literal["head", "all"]


class TransformerST(SectionTransformer):
    """The part of the published TransformerST that predicts genes from an image, weight for weight.

    It is the network of HisToGene with other conventions: pixels in 0..1, flattened row by row; tables of 128
    positions, of which the one called x holds the array row; the natural logarithm of 1 + 1e4 x / library size.

    As published, only the head learns: patch embedding, positions and transformer keep their random initial weights,
    because the original hands its optimizer the parameters of the head alone. That is the preset `"published"`. The
    preset `"full"` trains all weights, and is the one to compare with other networks.

    The original divides pixels by the range of the image of the section, here they are divided by 255: an image without
    pure black or pure white differs by that. It normalizes over all genes that were measured, here the library size is
    that of the modeled genes; with `genes=None` the two are the same. The other parts of TransformerST, a graph
    transformer over measured expression for clusters and for finer resolution, are no prediction from an image.

    Source: Zhao et al., Briefings in Bioinformatics 25(2):bbae052 (2024). Arguments have their published names.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0, as published: no such head).
    patch_size
        Side of a patch in pixels.
    n_layers
        Transformer blocks, each with 16 heads of 64. The class of the original has 4, its runs 5.
    dim
        Width of the tokens.
    dropout
        Rate throughout; in training it is on in the frozen part too, as published.
    n_pos
        Number of array columns, and of rows, that are told apart. A section that is larger is shrunk onto so many.
    trained
        What learns: `"head"`, or `"all"`.

    Examples
    --------
    >>> module = h2s.models.TransformerST(20, n_layers=1, dim=64, patch_size=28)
    >>> sorted({name.split(".")[0] for name, p in module.named_parameters() if p.requires_grad})
    ['heads', 'norm']
    """

    log_base = math.e
    x_is_row = True

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        patch_size: int = 112,
        n_layers: int = 5,
        dim: int = 1024,
        dropout: float = 0.1,
        n_pos: int = 128,
        trained: Trained = "head",
    ) -> None:
        require_known("value of `trained`", trained, get_args(Trained))
        super().__init__(
            n_genes,
            n_classes,
            UnitPixels(),
            patch_size=patch_size,
            n_layers=n_layers,
            dim=dim,
            dropout=dropout,
            n_pos=n_pos,
        )
        if trained == "head":
            for part in (self.patch_embedding, self.position, self.blocks):
                part.requires_grad_(False)


register(
    "transformerst",
    TransformerST,
    training=Training(
        max_epochs=200,
        patience=0,
        lr=1e-3,
        weight_decay=0.0,
        validation=0.0,
        augment=False,
        optimizer="adam",
        schedule="none",
        clip=0.0,
    ),
    presets={"published": {}, "full": {"trained": "all"}},
    trainings={"full": Training(lr=1e-4)},
    patch_option="patch_size",
    patch_per_spot=PUBLISHED_PATCH_PER_SPOT,
)
