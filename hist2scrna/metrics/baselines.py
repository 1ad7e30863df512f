"""Predictors that see no image: what a model must beat."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from hist2scrna.metrics.blocks import blocks
from hist2scrna.metrics.scales import log_normalize

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

Floats = NDArray[np.float64]
Scale = Literal["counts", "log_normalized"]

LOWEST_DISPERSION, HIGHEST_DISPERSION = 1e-2, 1e4


@dataclass(frozen=True)
class Baselines:
    """The mean baseline and the depth baseline of each gene, fitted on training counts.

    The **mean baseline** predicts the mean of the gene everywhere. The **depth baseline** knows nothing but the true
    total of the spot: on counts it predicts total x rate, on log-normalized expression a least-squares line in the log
    total. It is a lower bound to compare with, not a competitor, because it reads its answer
    off the truth.

    Attributes
    ----------
    rate
        `(genes,)` float64, share of the gene in all counts.
    mean
        `(genes,)`, mean count.
    dispersion
        `(genes,)`, inverse dispersion theta of a negative binomial about total x rate, by moments, within 1e-2..1e4:
        sum of mu^2 over sum of ((x - mu)^2 - mu).
    mean_dispersion
        `(genes,)`, the same about the mean count.
    log_mean, log_std
        `(genes,)`, mean and standard deviation (dividing by the number of spots) of log(1 + 1e4 x / total).
    depth_intercept, depth_slope
        `(genes,)`, the line of that value in the natural log of the total.
    median_library
        Median total count of a spot over these genes.
    level_bounds
        `(2,)`, tertiles of the mean counts of the genes: low up to the first, high above the second.
    """

    rate: Floats
    mean: Floats
    dispersion: Floats
    mean_dispersion: Floats
    log_mean: Floats
    log_std: Floats
    depth_intercept: Floats
    depth_slope: Floats
    median_library: float
    level_bounds: Floats

    @classmethod
    def fit(cls, counts: ArrayLike | sparse.csr_array | sparse.csr_matrix) -> Self:
        """Fit on `(spots, genes)` training counts, sparse or dense; spots without counts are left out.

        Raises
        ------
        ValueError
            If no spot has a count.
        """
        table: Any = sparse.csr_array(counts)
        everyone = np.asarray(table.sum(axis=1, dtype=np.float64)).ravel()
        library = everyone[everyone > 0]
        if not len(library):
            raise ValueError("No spot has a count in these genes, so there is nothing to fit the baselines on.")
        n = len(library)
        depth = np.log(library)
        centered = depth - depth.mean()
        spread = centered @ centered
        total, power, with_library, log_total, log_power, with_depth = _moments(table, everyone, float(depth.mean()))
        rate, mean, log_mean = total / library.sum(), total / n, log_total / n
        slope = with_depth / spread if spread > 0 else np.zeros(len(rate))
        squares = rate**2 * (library @ library)
        return cls(
            rate=rate,
            mean=mean,
            dispersion=_dispersion(squares, power - 2 * rate * with_library + squares - total),
            mean_dispersion=_dispersion(n * mean**2, power - n * mean**2 - total),
            log_mean=log_mean,
            log_std=np.sqrt(np.maximum(log_power / n - log_mean**2, 0)),
            depth_intercept=log_mean - slope * depth.mean(),
            depth_slope=slope,
            median_library=float(np.median(library)),
            level_bounds=np.quantile(mean, [1 / 3, 2 / 3]),
        )

    @property
    def level(self) -> NDArray[np.str_]:
        """`(genes,)` `"low"`, `"medium"` or `"high"`, by mean count in training."""
        return np.array(["low", "medium", "high"])[np.searchsorted(self.level_bounds, self.mean)]

    def take(self, genes: slice | NDArray[np.int64]) -> Self:
        """Return the baselines of some genes, as they were fitted among all."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        scalars = ("median_library", "level_bounds")
        return replace(self, **{name: value[genes] for name, value in kept.items() if name not in scalars})

    def predict_mean(self, n_spots: int, scale: Scale = "counts") -> Floats:
        """Return the mean baseline for `n_spots` spots, `(n_spots, genes)`, a read-only view.

        Parameters
        ----------
        n_spots
            Number of spots.
        scale
            `"counts"`, or `"log_normalized"` for log(1 + 1e4 x / total).
        """
        row = _on(scale, counts=self.mean, log_normalized=self.log_mean)
        return np.broadcast_to(row, (n_spots, len(row)))

    def predict_depth(self, library: ArrayLike, scale: Scale = "counts") -> Floats:
        """Return the depth baseline, `(spots, genes)`.

        Parameters
        ----------
        library
            `(spots,)` true total counts over the same genes, positive.
        scale
            `"counts"`, or `"log_normalized"` for log(1 + 1e4 x / total).
        """
        size = np.asarray(library, dtype=np.float64)
        offset = _on(scale, counts=np.zeros_like(self.rate), log_normalized=self.depth_intercept)
        slope = _on(scale, counts=self.rate, log_normalized=self.depth_slope)
        return offset + np.outer(size if scale == "counts" else np.log(size), slope)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return all fields as arrays, to be saved; :meth:`from_arrays` reads them."""
        return {f.name: np.atleast_1d(np.asarray(getattr(self, f.name), dtype=np.float64)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """Return the baselines that :meth:`to_arrays` was called on.

        Raises
        ------
        KeyError
            If one of the arrays is missing.
        """
        missing = [f.name for f in fields(cls) if f.name not in arrays]
        if missing:
            raise KeyError(f"Arrays of the baselines are missing: {missing}. Found: {sorted(arrays)}.")
        values: dict[str, Any] = {f.name: np.asarray(arrays[f.name], dtype=np.float64) for f in fields(cls)}
        values["median_library"] = float(values["median_library"][0])
        return cls(**values)


def _moments(table: Any, library: Floats, mean_depth: float) -> Floats:
    """Return six sums over the spots of each gene, `(6, genes)`, read in blocks.

    Of counts: of themselves, their squares, and times the library size. Of log-normalized ones: of themselves, their
    squares, and times the log library size less its mean.
    """
    sums = np.zeros((6, table.shape[1]))
    for rows in blocks(*table.shape):
        counts = table[rows].astype(np.float64)
        logs, size = log_normalize(counts), library[rows]
        depth = np.log(np.where(size > 0, size, 1.0)) - mean_depth
        sums += [
            np.asarray(each).ravel()
            for each in (
                counts.sum(axis=0),
                counts.power(2).sum(axis=0),
                counts.T @ size,
                logs.sum(axis=0),
                logs.power(2).sum(axis=0),
                logs.T @ depth,
            )
        ]
    return sums


def _dispersion(squares: Floats, excess: Floats) -> Floats:
    """Theta by moments; genes without variance beyond Poisson get the upper bound."""
    theta = np.divide(squares, excess, out=np.full(len(squares), HIGHEST_DISPERSION), where=excess > 0)
    return np.clip(theta, LOWEST_DISPERSION, HIGHEST_DISPERSION)


def _on(scale: str, *, counts: Floats, log_normalized: Floats) -> Floats:
    if scale not in ("counts", "log_normalized"):
        raise ValueError(f"Expected `scale` to be 'counts' or 'log_normalized', found {scale!r}.")
    return counts if scale == "counts" else log_normalized
