"""Reference profiles of single cells, in the order of the genes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# ln(1 + 1e4) is the value of a gene that has all counts of a cell.
LARGEST = np.log1p(1e4)


def read_reference(reference: Any, genes: list[str], *, named: bool) -> tuple[list[str], NDArray[np.float32]]:
    """Return the genes that the profiles have too, and the profiles, `(k, genes)`.

    Parameters
    ----------
    reference
        AnnData or DataFrame, profiles x genes, log-normalized.
    genes
        Genes to model.
    named
        They were asked for, so that the profiles must have all of them.

    Raises
    ------
    TypeError
        If it is neither.
    KeyError
        If genes that were asked for, or all genes, are missing.
    ValueError
        If there is no profile, a value is not a number, or is not of log-normalized expression.
    """
    from anndata import AnnData

    if not isinstance(reference, AnnData | pd.DataFrame):
        raise TypeError(f"Expected `reference` to be an AnnData or a DataFrame, found {type(reference).__name__}.")
    table = reference.to_df() if isinstance(reference, AnnData) else reference
    common = [gene for gene in genes if gene in table.columns]
    missing = [gene for gene in genes if gene not in table.columns]
    if not common or (named and missing):
        raise KeyError(
            f"`reference` lacks {len(missing)} of {len(genes)} genes, such as {missing[:3]}. Its genes are named "
            f"{list(table.columns[:3])}, ...; pass others as `genes`, or a reference that has them."
        )
    if missing:
        log.info("%d of %d genes are left out: the reference lacks them", len(missing), len(genes))
    profiles = table[common].to_numpy(dtype=np.float32)
    if len(profiles) == 0 or not np.isfinite(profiles).all() or profiles.min() < 0 or profiles.max() > LARGEST:
        raise ValueError(
            "Expected `reference` to hold log-normalized profiles, ln(1 + 1e4 x / total), values from 0 to "
            f"{LARGEST:.1f}. pp.reference_profiles(adata, groupby) makes them."
        )
    return common, profiles
