"""Which AnnData a prediction is written to: the one that was given, or a new one of the genes of the model."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hist2scrna.spots.gene_names import locate_genes
from hist2scrna.trained.announce import announce_new


def destination(
    adata: ad.AnnData, genes: Sequence[str], *, copy: bool, new: bool = False
) -> tuple[ad.AnnData, bool, NDArray[np.int64]]:
    """Return the AnnData to write to, whether it is a new one, and the column of each gene.

    `adata` itself if it has all `genes`, by name or by a column of `.var`; else, or if `copy` or `new`, a new one. With
    `copy`, or where genes are missing, the new one has exactly the model's genes; it carries over `.obs`, `.obsm`,
    `.uns` and `.obsp`. With `new`, for what is streamed to a store, it shares the matrices of `adata`: those of a
    million cells are not held twice.
    """
    place = locate_genes(adata, genes)
    complete = bool((place >= 0).all())
    if complete and not copy and not new:
        return adata, False, place
    if complete and not copy:
        return adata.to_memory() if adata.isbacked else _beside(adata), True, place
    if not complete:
        announce_new(adata, genes, [gene for gene, at in zip(genes, place, strict=True) if at < 0])
    names = pd.Index([gene if at < 0 else adata.var_names[at] for gene, at in zip(genes, place, strict=True)])
    var = adata.var.iloc[place].copy() if complete else pd.DataFrame(index=names)
    fresh = ad.AnnData(
        obs=adata.obs.copy(),
        var=var,
        obsm={key: value if new else value.copy() for key, value in adata.obsm.items()},
        obsp={key: value if new else value.copy() for key, value in adata.obsp.items()},
        uns=dict(adata.uns),
    )
    return fresh, True, np.arange(len(genes))


def _beside(adata: ad.AnnData) -> ad.AnnData:
    """Return an AnnData with tables of its own and the matrices of another."""
    slots = ("layers", "obsm", "varm", "obsp", "varp")
    return ad.AnnData(
        adata.X,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns=dict(adata.uns),
        raw=adata.raw,
        **{slot: dict(getattr(adata, slot)) for slot in slots},
    )
