"""Where the genes of a model are in AnnData, by their names or by other identifiers that `.var` holds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# Symbols in files of CELLxGENE, and symbols and Ensembl identifiers as Scanpy and Space Ranger keep them.
COLUMNS = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_ids", "feature_id", "ensembl_id")


def locate_genes(adata: AnnData, genes: Sequence[str]) -> NDArray[np.int64]:
    """Return the column of each gene, -1 where it is not there: by `.var_names`, else by a column of `.var`.

    The column of those in :data:`COLUMNS` that names the most of the genes is taken where it names more than
    `.var_names` do. A name that occurs twice in it tells no gene.
    """
    wanted = pd.Index(genes)
    places: dict[str | None, NDArray[np.int64]] = {None: _places(adata.var_names, wanted)}
    if (places[None] < 0).any():
        places |= {c: _places(pd.Index(adata.var[c].astype(str)), wanted) for c in COLUMNS if c in adata.var}
    best = max(places, key=lambda column: int((places[column] >= 0).sum()))
    if best is not None:
        log.info(
            "genes are matched by adata.var[%r]: it names %d of the %d genes of the model, adata.var_names %d",
            *(best, int((places[best] >= 0).sum()), len(wanted), int((places[None] >= 0).sum())),
        )
    return places[best]


def hint_of_column(adata: AnnData, genes: Sequence[str]) -> str:
    """Return a sentence that names the column of `.var` that holds genes which `.var_names` do not; empty for none."""
    for column in (c for c in COLUMNS if c in adata.var):
        if n_found := len(set(genes) & set(adata.var[column].astype(str))):
            return (
                f" adata.var[{column!r}] holds {n_found} of them. To name genes by it: adata.var_names = "
                f"adata.var[{column!r}].astype(str); adata.var_names_make_unique()."
            )
    return ""


def _places(names: pd.Index, wanted: pd.Index) -> NDArray[np.int64]:
    once = ~names.duplicated(keep=False)
    place = names[once].get_indexer(wanted)
    return np.where(place < 0, -1, np.flatnonzero(once)[place]) if once.any() else np.full(len(wanted), -1)
