"""Average profiles of groups of single cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from hist2scrna import keys
from hist2scrna.messages import require_adata
from hist2scrna.metrics.scales import TARGET_SUM
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence


def reference_profiles(
    adata: AnnData, groupby: str, *, layer: str | None = None, genes: Sequence[str] | None = None
) -> AnnData:
    """Average the log-normalized expression of single cells by group, as the reference of GHIST.

    ln(1 + 1e4 x / total over all genes), mean over the cells of each group. Groups finer than the cell types to be
    predicted are what GHIST was published with (63 for 9 types). Source: Fu et al., Nature Methods 22:1900 (2025).

    Parameters
    ----------
    adata
        Annotated data of single cells, with raw counts.
    groupby
        Column of `.obs` with the groups; cells without one are left out.
    layer
        Layer with raw counts; None: `.X`.
    genes
        Genes of the profiles; None: all. Totals are over all genes whatever this is.

    Returns
    -------
    AnnData, one group a row, float32; `.obs["n_cells"]`: number of its cells that have counts.

    Raises
    ------
    KeyError
        If the column, the layer or a gene is missing.
    ValueError
        If values are not counts, or no cell has a group and counts.

    Examples
    --------
    >>> profiles = h2s.pp.reference_profiles(train, "cell_type")
    >>> list(profiles.obs_names)
    ['epithelial', 'lymphoid', 'stromal', 'muscle']
    """
    require_adata(adata)
    everything, chosen = choose_genes(adata, None), choose_genes(adata, genes)
    groups, code = read_labels(adata, groupby)
    counts = read_counts(adata, everything, layer)
    total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    used = np.flatnonzero((code >= 0) & (total > 0))
    if len(used) == 0:
        raise ValueError(f"No cell has both counts and a group in adata.obs[{groupby!r}].")
    wanted = counts[:, pd.Index(everything).get_indexer(pd.Index(chosen))]
    logs = sparse.csr_array(sparse.diags_array(TARGET_SUM / total[used]) @ wanted[used]).log1p()
    number = np.bincount(code[used], minlength=len(groups))
    member = sparse.csr_array((np.ones(len(used)), (code[used], np.arange(len(used)))), (len(groups), len(used)))
    filled = number > 0
    means = (member @ logs).toarray()[filled] / number[filled, None]
    return AnnData(
        X=means.astype(np.float32),
        obs=pd.DataFrame({keys.N_CELLS: number[filled]}, index=pd.Index(groups)[filled]),
        var=pd.DataFrame(index=pd.Index(chosen)),
    )
