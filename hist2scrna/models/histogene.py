"""HisToGene: flattened patches, and a transformer over the whole section."""

from __future__ import annotations

from hist2scrna.models.array_position import PUBLISHED_PATCH_PER_SPOT
from hist2scrna.models.layers import RawPixels
from hist2scrna.models.registry import register
from hist2scrna.models.section_transformer import SectionTransformer
from hist2scrna.models.training import Training


class HisToGene(SectionTransformer):
    """The published HisToGene, weight for weight, with fused attention.

    Each patch is flattened and projected; embeddings of the array column and row are added; a transformer reads all
    spots of the section; a linear head predicts log10(1 + 1e4 x / library size).

    Source: Pang et al., Leveraging information in spatial transcriptomics to predict super-resolution gene expression
    from histology images in tumors, bioRxiv 2021.11.28.470212. Arguments have their published names.

    Parameters
    ----------
    n_genes, n_classes
        Number of genes; number of cell types (0, as published: no such head).
    patch_size
        Side of a patch in pixels.
    n_layers
        Transformer blocks, each with 16 heads of 64. The class of the original has 4, its HER2+ runs 8.
    dim
        Width of the tokens.
    dropout
        Rate throughout.
    n_pos
        Number of array columns, and of rows, that are told apart. A section that is larger is shrunk onto so many.

    Examples
    --------
    >>> h2s.models.HisToGene(20, n_layers=1, dim=64, patch_size=28).log_base
    10.0
    """

    log_base = 10.0

    def __init__(
        self,
        n_genes: int,
        n_classes: int = 0,
        *,
        patch_size: int = 112,
        n_layers: int = 4,
        dim: int = 1024,
        dropout: float = 0.1,
        n_pos: int = 64,
    ) -> None:
        super().__init__(
            n_genes,
            n_classes,
            RawPixels(),
            patch_size=patch_size,
            n_layers=n_layers,
            dim=dim,
            dropout=dropout,
            n_pos=n_pos,
        )


register(
    "histogene",
    HisToGene,
    training=Training(
        max_epochs=100,
        patience=0,
        lr=1e-5,
        weight_decay=0.0,
        validation=0.0,
        augment=False,
        optimizer="adam",
        schedule="none",
        clip=0.0,
    ),
    presets={"published": {"n_layers": 8}, "small": {}},
    patch_option="patch_size",
    patch_per_spot=PUBLISHED_PATCH_PER_SPOT,
)
