"""What simulated genes answer to: the type of a spot, and the types of its neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Genes:
    """Parameters of the genes, which all sections of a call share. Effects are on the natural log of the rate."""

    base: NDArray[np.float64]  # (genes,)
    own: NDArray[np.float64]  # (types, genes)
    neighbor: NDArray[np.float64]  # (types, genes)
    theta: NDArray[np.float64]  # (genes,)
    dropout: NDArray[np.float64]  # (genes,)
    responds: NDArray[np.bool_]  # (genes,), true where neighbors matter


def draw_genes(rng: np.random.Generator, n_genes: int, n_types: int) -> Genes:
    """Draw the parameters of the genes; half of them answer to the neighbors, half to the spot itself."""
    base = rng.normal(0, 1.4, n_genes)
    responds = rng.permutation(n_genes) < n_genes / 2
    own = rng.normal(0, 1, (n_types, n_genes)) * np.where(responds, 0.1, 1.3)
    neighbor = rng.normal(0, 1, (n_types, n_genes)) * np.where(responds, 2.4, 0.0)
    # Centerd over types, so that a gene's level is that of its base, and scaled so that rates sum to about one.
    own, neighbor = own - own.mean(axis=0), neighbor - neighbor.mean(axis=0)
    base -= np.log(np.exp(base + own).sum(axis=1).mean())
    rank = base.argsort().argsort() / max(1, n_genes - 1)
    return Genes(
        base=base,
        own=own,
        neighbor=neighbor,
        theta=np.exp(rng.uniform(0, np.log(20), n_genes)),
        dropout=0.4 * (1 - rank) * rng.uniform(0.2, 1, n_genes),
        responds=responds,
    )
