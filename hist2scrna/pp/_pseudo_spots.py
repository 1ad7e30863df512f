"""Sums of single cells that vary as spots of tissue do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from hist2scrna import keys
from hist2scrna.arguments import require_number, require_whole
from hist2scrna.messages import listed, require_adata
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.labels import read_labels
from hist2scrna.spots.sections import read_sections

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# Sum of the parameters of the Dirichlet distribution that has the variance of the cell-type proportions between the
# spots of a section: 8.2 to 12.0 on the six sections of her2st (C2 to C6, B4) that come with proportions.
CONCENTRATION = 10.0


def pseudo_spots(
    cells: AnnData,
    spots: AnnData,
    labels_key: str,
    *,
    group_key: str | None = None,
    layer: str | None = None,
    n_spots: int = 300,
    cells_per_spot: int = 20,
    concentration: float = CONCENTRATION,
    seed: int = 0,
) -> AnnData:
    r"""Sum single cells of each donor into pseudo-spots, for `fit(expression=)` to learn which genes go together.

    A spot is a sum of many cells, so genes of spots go together because the types of their cells do, while what varies
    from cell to cell within a type, and most of the noise, averages out. Programs of cells are therefore not those of
    spots. Here the proportions of types in a pseudo-spot are drawn from a Dirichlet distribution whose mean is the
    composition of the donor, :math:`q \sim \mathrm{Dir}(c\,\bar q)`; so many cells are drawn by these proportions, with
    replacement, and their counts summed. Counts are then thinned, binomially, to the library size of a spot drawn from
    `spots`: log-normalized counts of another depth vary otherwise; and were depth that of the cells alone, which types
    have of their own, composition would be taken for depth, and out of the programs with it.

    Pseudo-spots tell which genes go together, and nothing else: how deep sections are, and how much of each gene
    tissue of another donor has, `fit` does not learn from them, since another assay counts other shares.

    What they cannot know: which types lie side by side in tissue, beyond how much proportions vary; types, and their
    shares, that were lost when tissue was taken apart; a donor of whom there are few cells, each of which then is in
    many pseudo-spots. Types must be as coarse as tissue mixes them; without labels, cluster the cells first.

    Parameters
    ----------
    cells
        Annotated data of single cells or nuclei, with raw counts.
    spots
        The spots that they shall resemble: those that a model is fitted on. Only genes that both have are kept.
    labels_key
        Column of `cells.obs` with cell types; cells without one are left out.
    group_key
        Column of `cells.obs` with the donor, by the name that `fit` is given; cells are summed within donors. None: all
        are of one donor.
    layer
        Layer with raw counts, of `cells` and of `spots` where they have it; None, or else: `.X`.
    n_spots
        Pseudo-spots of each donor.
    cells_per_spot
        Cells of each. In tissue, a spot of 55 um has up to ten, one of 100 um several dozens.
    concentration
        :math:`c`, how alike the proportions of spots are: infinite, and all have those of the donor. The default is
        that of HER2ST, by the variance of the proportions that come with it.
    seed
        Of the draws.

    Returns
    -------
    AnnData, pseudo-spots by genes, counts as CSR float32; `.obs["pseudo_spot_cells"]`: the number of cells of each,
    and `.obs[group_key]`, the donor.

    Raises
    ------
    KeyError
        If a column is missing, or the two share no gene.
    ValueError
        If values are not counts, a number is out of range, or no donor has as many labeled cells as are summed.

    Examples
    --------
    >>> cells = train  # stands for an annotated single-cell reference
    >>> sums = h2s.pp.pseudo_spots(cells, train, "cell_type", n_spots=50)
    >>> sums.shape
    (50, 12)
    """
    require_adata(cells)
    require_adata(spots)
    for name, number in (("n_spots", n_spots), ("cells_per_spot", cells_per_spot)):
        require_whole(name, number, 2 if name == "n_spots" else 1)
    require_number("concentration", concentration, 0, above=True)
    require_whole("seed", seed, 0)
    genes = _shared_genes(cells, spots)
    counts = read_counts(cells, genes, layer if layer in cells.layers else None)
    _, label = read_labels(cells, labels_key)
    groups, group = (("cells",), np.zeros(cells.n_obs)) if group_key is None else read_sections(cells, group_key)
    has_counts = np.asarray(counts.sum(axis=1)).ravel() > 0
    rng = np.random.default_rng(seed)
    drawn, names, too_few = [], [], []
    for code, name in enumerate(groups):
        members = np.flatnonzero(has_counts & (label >= 0) & (group == code))
        if len(members) < cells_per_spot:
            too_few.append(f"{name} ({len(members)})")
            continue
        drawn.append(_draw(rng, members, label[members], cells.n_obs, n_spots, cells_per_spot, concentration))
        names += [name] * n_spots
    if not drawn:
        raise ValueError(
            f"No donor has {cells_per_spot} cells with counts and a label in cells.obs[{labels_key!r}]: "
            f"{listed(too_few)}. Pass a smaller cells_per_spot=, or group_key=None to take all cells for one donor."
        )
    if too_few:
        log.warning("left out, having fewer than %d cells with counts and a label: %s", cells_per_spot, listed(too_few))
    sums = sparse.csr_array(sparse.vstack(drawn) @ counts.astype(np.float64))
    return _as_anndata(_thinned(sums, spots, genes, layer, rng), names, genes, cells_per_spot, group_key)


def _shared_genes(cells: AnnData, spots: AnnData) -> list[str]:
    mine = set(choose_genes(cells, None))
    shared = [gene for gene in choose_genes(spots, None) if gene in mine]
    if not shared:
        raise KeyError(
            f"`cells` and `spots` share no gene: var_names begin with {list(cells.var_names[:3])} and "
            f"{list(spots.var_names[:3])}. Name genes alike in both."
        )
    return shared


def _draw(
    rng: np.random.Generator,
    members: NDArray[np.int64],
    label: NDArray[np.int64],
    n_total: int,
    n_spots: int,
    cells_per_spot: int,
    concentration: float,
) -> sparse.csr_array:
    """Return how often each cell is in each pseudo-spot of a donor, `(n_spots, n_total)`."""
    types, share = np.unique(label, return_counts=True)
    proportions = rng.dirichlet(concentration * share / share.sum(), n_spots)
    of_type = [members[label == one] for one in types]
    columns = []
    for numbers in (rng.multinomial(cells_per_spot, row) for row in proportions):
        columns += [rng.choice(of_type[k], number) for k, number in enumerate(numbers) if number]
    rows = np.repeat(np.arange(n_spots), cells_per_spot)
    return sparse.csr_array((np.ones(len(rows)), (rows, np.concatenate(columns))), shape=(n_spots, n_total))


def _thinned(
    sums: sparse.csr_array, spots: AnnData, genes: list[str], layer: str | None, rng: np.random.Generator
) -> sparse.csr_array:
    """Thin each pseudo-spot to the library size of a spot drawn at random, where that is smaller."""
    measured = np.asarray(read_counts(spots, genes, layer if layer in spots.layers else None).sum(axis=1)).ravel()
    measured = measured[measured > 0]
    if len(measured) == 0:
        raise ValueError("No spot of `spots` has a count in the genes that it shares with `cells`.")
    depth = np.asarray(sums.sum(axis=1)).ravel()
    kept = np.minimum(1.0, rng.choice(measured, len(depth)) / depth)
    log.info("%d pseudo-spots of single cells; at the median, %.2g of their counts kept", len(depth), np.median(kept))
    if np.median(depth) < np.median(measured):
        log.warning(
            "pseudo-spots have %.0f counts at the median, fewer than spots, which have %.0f: pass a larger "
            "cells_per_spot=",
            np.median(depth),
            np.median(measured),
        )
    sums.data = rng.binomial(sums.data.astype(np.int64), np.repeat(kept, np.diff(sums.indptr))).astype(np.float64)
    sums.eliminate_zeros()
    return sums


def _as_anndata(
    counts: sparse.csr_array, names: list[str], genes: list[str], cells_per_spot: int, group_key: str | None
) -> AnnData:
    obs = pd.DataFrame({keys.PSEUDO_SPOT_CELLS: cells_per_spot}, index=[f"{name}_{i}" for i, name in enumerate(names)])
    if group_key is not None:
        obs[group_key] = pd.Categorical(names, categories=list(dict.fromkeys(names)))
    return AnnData(X=sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=pd.Index(genes)))
