"""Which genes are predicted: given, or chosen on the training spots of a fold alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.metrics.scales import log_normalize
from hist2scrna.provenance import panel_hash
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.slides import pooled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Panel:
    """Genes of a fold.

    Attributes
    ----------
    genes
        Their names.
    how
        How they were chosen.
    """

    genes: tuple[str, ...]
    how: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the names, as in an evaluation."""
        return panel_hash(self.genes)


def choose_panel(
    adata: AnnData,
    training: NDArray[np.bool_],
    *,
    genes: Sequence[str] | str | None = None,
    n_genes: int | None = None,
    min_detected: float = 0.1,
    layer: str | None = None,
) -> Panel:
    """Return the genes of a fold; the counts of its test spots are never read.

    Parameters
    ----------
    adata
        All sections.
    training
        `(n,)`, true for the spots of the training sections.
    genes
        Names, or a boolean column of `.var`.
    n_genes
        Number of genes to choose: those with the highest variance of log(1 + 1e4 x / total over all genes) among the
        genes with a count in at least `min_detected` of the training spots; ties go by name.
    min_detected
        That share.
    layer
        Layer with raw counts; None: `.X`.

    Raises
    ------
    KeyError
        If a gene, column or layer is missing.
    ValueError
        If both `genes` and `n_genes` are given, or too few genes are detected often enough.
    """
    if genes is not None and n_genes is not None:
        raise ValueError("Expected one of `genes` and `n_genes`, found both.")
    if n_genes is None:
        chosen = choose_genes(adata, genes)
        if genes is None:
            return Panel(tuple(chosen), "all genes")
        return Panel(tuple(chosen), f"given (adata.var[{genes!r}])" if isinstance(genes, str) else "given")
    if n_genes < 1:
        raise ValueError(f"Expected `n_genes` to be at least 1, found {n_genes}.")
    if not 0 <= min_detected <= 1:
        raise ValueError(f"Expected `min_detected` to be a share from 0 to 1, found {min_detected}.")
    names = np.array(choose_genes(adata, None))
    counts = read_counts(adata[training], list(names), layer, whole=not pooled(adata))
    counts = counts[np.asarray(counts.sum(axis=1)).ravel() > 0]
    n_spots = max(1, counts.shape[0])
    detected = np.bincount(counts.indices, minlength=len(names)) / n_spots
    logs = log_normalize(counts)
    variance = _mean(logs.power(2)) - _mean(logs) ** 2
    often = np.flatnonzero((detected >= min_detected) & (detected > 0))
    if len(often) < n_genes:
        raise ValueError(
            f"Expected `n_genes` to be at most {len(often)}, the number of genes with a count in at least "
            f"{min_detected:.0%} of the {n_spots} training spots; found {n_genes}. Lower n_genes= or min_detected=."
        )
    order = np.lexsort((names[often], -variance[often]))
    chosen_columns = np.sort(often[order[:n_genes]])
    how = (
        "those of highest variance of log(1 + 1e4 x / total) in the training sections of each fold, "
        f"detected in at least {min_detected:.0%} of their spots"
    )
    return Panel(tuple(names[chosen_columns].tolist()), how)


def _mean(table: object) -> NDArray[np.float64]:
    """Mean of the columns of a sparse table."""
    return np.asarray(table.mean(axis=0), dtype=np.float64).ravel()  # type: ignore[attr-defined]
