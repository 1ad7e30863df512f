"""Where the genes of a model are in AnnData, by their names or by other identifiers that `.var` holds."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# Symbols in files of CELLxGENE, and symbols and Ensembl identifiers as Scanpy and Space Ranger keep them.
COLUMNS = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_ids", "feature_id", "ensembl_id")
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")
VERSION = re.compile(r"(?<=\d)\.\d+$")
# In what way names may differ that are the same, and what is then left of them.
WAYS_TO_WRITE: dict[str, Callable[[str], str]] = {
    "in another case": str.casefold,
    "with another version": lambda name: VERSION.sub("", name) if ENSEMBL.match(name) else name,
}
MOST_LOOKED_AT = 1000


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


def hint_of_names(adata: AnnData, missing: Sequence[str]) -> str:
    """Return a sentence, after a space, on why genes are not among `.var_names`; empty where nothing tells.

    They stand in a column of `.var`, are written in another case or with the version of an Ensembl identifier, or are
    symbols where the others are Ensembl identifiers.
    """
    for column in (c for c in COLUMNS if c in adata.var):
        if n_found := len(set(missing) & set(adata.var[column].astype(str))):
            return (
                f" adata.var[{column!r}] holds {n_found} of them. To name genes by it: adata.var_names = "
                f"adata.var[{column!r}].astype(str); adata.var_names_make_unique()."
            )
    for written, plain in WAYS_TO_WRITE.items():
        theirs = {plain(str(name)): str(name) for name in adata.var_names}
        if found := [gene for gene in missing if plain(gene) in theirs]:
            return (
                f" {len(found)} of them are there {written}, such as {theirs[plain(found[0])]!r} for {found[0]!r}. "
                "Rename adata.var_names if these are the same genes, of the same species."
            )
    if missing and adata.n_vars and _are_ensembl(missing) != _are_ensembl(adata.var_names):
        kinds, column = ("symbols", "Ensembl identifiers"), "gene_symbols"
        if _are_ensembl(missing):
            kinds, column = ("Ensembl identifiers", "symbols"), "gene_ids"
        return (
            f" They are {kinds[0]} ({missing[0]!r}), adata.var_names are {kinds[1]} ({str(adata.var_names[0])!r}). Put "
            f"{kinds[0]} into adata.var[{column!r}]: genes are matched by it."
        )
    return ""


def _are_ensembl(names: Iterable[Any]) -> bool:
    return all(ENSEMBL.match(str(name)) for name in islice(names, MOST_LOOKED_AT))


def _places(names: pd.Index, wanted: pd.Index) -> NDArray[np.int64]:
    once = ~names.duplicated(keep=False)
    place = names[once].get_indexer(wanted)
    return np.where(place < 0, -1, np.flatnonzero(once)[place]) if once.any() else np.full(len(wanted), -1)
