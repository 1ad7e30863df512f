"""Counts of donors without images, from the AnnData that `fit(expression=)` is given."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from hist2scrna import keys
from hist2scrna.fitting.closed_form.donors import DonorCounts
from hist2scrna.spots.counts import read_counts
from hist2scrna.spots.sections import read_sections

if TYPE_CHECKING:
    from hist2scrna.trained.plan import FitRequest

log = logging.getLogger(__name__)

# Of the genes of the model; fewer tell little of which go together.
LEAST_SHARED = 0.2


def read_donor_counts(request: FitRequest, genes: Sequence[str], trained: Sequence[str]) -> tuple[DonorCounts, ...]:
    """Read the counts of donors without images, genes matched by name.

    Parameters
    ----------
    request
        `expression`: AnnData, or several; `group_key` and `library_key`: columns of their `.obs` with donors and
        sections. Without the first each AnnData is a donor, without the second each donor is one section.
    genes
        Genes of the model.
    trained
        Names of the donors with images.

    Raises
    ------
    TypeError
        If one is no AnnData.
    ValueError
        If one shares too few genes with the model, or its counts are not counts.
    """
    if request.expression is None:
        return ()
    tables = [request.expression] if isinstance(request.expression, AnnData) else list(request.expression)
    donors: list[DonorCounts] = []
    for number, table in enumerate(tables):
        if not isinstance(table, AnnData):
            raise TypeError(f"Expected `expression` to be AnnData, or several, found {type(table).__name__}.")
        donors += _read_table(table, number, request, genes)
    known = sorted({donor.name for donor in donors} & set(trained))
    log.info(
        "counts of %d donors without images (%s)%s",
        len(donors),
        ", ".join(f"{donor.name}, sums of cells" if donor.of_cells else donor.name for donor in donors),
        f"; {known} have images too" if known else "",
    )
    return tuple(donors)


def _read_table(table: AnnData, number: int, request: FitRequest, genes: Sequence[str]) -> list[DonorCounts]:
    if not table.var_names.is_unique:
        raise ValueError("var_names of `expression` repeat, so genes cannot be matched. Call var_names_make_unique().")
    place = table.var_names.get_indexer(pd.Index(genes))
    shared = [gene for gene, where in zip(genes, place, strict=True) if where >= 0]
    if len(shared) < max(2, LEAST_SHARED * len(genes)):
        raise ValueError(
            f"`expression` has {len(shared)} of the {len(genes)} genes of the model; its var_names begin with "
            f"{list(table.var_names[:3])}, those of the model with {list(genes[:3])}. Name genes alike in both."
        )
    try:
        counts = read_counts(table, shared, request.layer if request.layer in table.layers else None)
    except ValueError as error:
        raise ValueError(str(error).replace("adata.", "expression.")) from error
    measured = place >= 0
    columns = sparse.csr_array(
        (np.ones(len(shared), dtype=np.float32), (np.arange(len(shared)), np.flatnonzero(measured))),
        shape=(len(shared), len(genes)),
    )
    counts = sparse.csr_array(counts @ columns)
    names, donor = _codes(table, request.group_key, f"expression {number}")
    _, section = _codes(table, request.source.library_key, "section")
    unknown = pd.Series(np.nan, index=table.obs_names)
    summed = table.obs.get(keys.PSEUDO_SPOT_CELLS, unknown).notna().to_numpy()
    usable = np.asarray(counts.sum(axis=1)).ravel() > 0
    return [
        DonorCounts(name, counts[rows], section[rows], measured, of_cells=bool(summed[rows].all()))
        for code, name in enumerate(names)
        if len(rows := np.flatnonzero(usable & (donor == code))) > 1
    ]


def _codes(table: AnnData, key: str | None, otherwise: str) -> tuple[Sequence[str], Any]:
    if key is not None and key in table.obs:
        return read_sections(table, key)
    return [otherwise], np.zeros(table.n_obs, dtype=np.int64)
