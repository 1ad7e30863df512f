"""Truth, model and baselines behind one interface: expression of some spots and genes, on a given scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hist2scrna.metrics.baselines import Baselines
from hist2scrna.metrics.blocks import Floats, blocks, dense
from hist2scrna.metrics.likelihood import distribution
from hist2scrna.metrics.scales import LEAST_TOTAL, TARGET_SUM, residual_block

Scale = Literal["counts", "log_normalized", "residual"]
SCALES: tuple[Scale, ...] = ("counts", "log_normalized", "residual")
# The scale of the headline, of single spots, of clusters and of maps.
HEADLINE: Scale = "log_normalized"
SCALE_LABELS: dict[Scale, str] = {
    "log_normalized": "log-normalized",
    "residual": "Pearson residuals",
    "counts": "counts",
}
BASELINES = ("mean_baseline", "depth_baseline")
PREDICTOR_LABELS = {
    "model": "model",
    "mean_baseline": "mean baseline",
    "depth_baseline": "depth baseline",
    "true_means": "true means",
}
NOISE_CEILING = "noise ceiling"
Select = slice | NDArray[np.int64]
Parameters = tuple[Floats, Floats | None, Floats | None]


def window(values: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    """Return the crossing of rows and columns of a dense array, as a float64 copy; runs of numbers are sliced."""
    row, column = _as_run(rows), _as_run(columns)
    if row is not None:
        values = values[row][:, columns if column is None else column]
    elif column is not None:
        values = values[:, column][rows]
    else:
        values = values[np.ix_(rows, columns)]
    return np.array(values, dtype=np.float64)


def _as_run(index: NDArray[np.int64]) -> slice | None:
    """Return the slice that is equal to an index, if there is one."""
    is_run = len(index) > 0 and bool((np.diff(index) == 1).all())
    return slice(int(index[0]), int(index[-1]) + 1) if is_run else None


class Predictor(Protocol):
    """Expected expression of the scored spots and genes."""

    scales: tuple[Scale, ...]

    def region(self, spots: Select, genes: Select, scale: Scale) -> Floats:
        """Return `(spots, genes)` float64."""
        ...

    def parameters(self, spots: Select, genes: Select) -> Parameters | None:
        """Return mean of the count component, dispersion and dropout; None without a distribution of counts."""
        ...


@dataclass(frozen=True)
class Sections:
    """Scored spots, sorted by section.

    Attributes
    ----------
    names
        Names of the sections that have scored spots.
    codes
        `(n,)` int64, section of each scored spot, ascending.
    """

    names: tuple[str, ...]
    codes: NDArray[np.int64]

    @property
    def slices(self) -> list[slice]:
        """The spots of each section."""
        edges = np.searchsorted(self.codes, np.arange(len(self.names) + 1))
        return [slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


class Expression:
    """Counts or expected counts, with their own library sizes.

    Parameters
    ----------
    values
        `(scored spots, scored genes)` sparse, or a dense array of which `rows` and `columns` are scored.
    sections
        Sections of the scored spots.
    rows, columns
        Where the scored spots and genes are in a dense `values`.
    dispersion, dropout
        Inverse dispersion and zero inflation, arrays as `values`; None where the likelihood has none.
    mu
        Mean of the count component; None: from `values` and `dropout`.
    likelihood
        `"zinb"`, `"nb"`, `"poisson"`; None: no distribution of counts is known.

    On the log-normalized scale its values are log-normalized. This is right for counts; for expected counts it lies
    above the expectation (Jensen), which :class:`WithLogNormalized` adds.
    """

    scales: tuple[Scale, ...] = SCALES

    def __init__(
        self,
        values: Any,
        sections: Sections,
        *,
        rows: NDArray[np.int64] | None = None,
        columns: NDArray[np.int64] | None = None,
        mu: Any = None,
        dispersion: Any = None,
        dropout: Any = None,
        likelihood: str | None = None,
    ) -> None:
        self.sections = sections
        self.rows = np.arange(len(sections.codes)) if rows is None else rows
        self.columns = np.arange(values.shape[1]) if columns is None else columns
        self.mu, self.dispersion, self.dropout, self.likelihood = mu, dispersion, dropout, likelihood
        self.values = values.tocsr() if sparse.issparse(values) else values
        self.by_gene = values.tocsc() if sparse.issparse(values) else values
        self.shape = n_spots, n_genes = len(self.rows), len(self.columns)
        self.library = np.empty(n_spots)
        totals = np.zeros((len(sections.names), n_genes))
        for code, section in enumerate(sections.slices):
            for part in blocks(section.stop - section.start, n_genes):
                spots = slice(section.start + part.start, section.start + part.stop)
                block = self.region(spots, slice(None), "counts")
                self.library[spots] = block.sum(axis=1)
                totals[code] += block.sum(axis=0)
        self.rate = totals / np.maximum(totals.sum(axis=1, keepdims=True), 1e-300)
        self.n_spots = np.bincount(sections.codes, minlength=len(sections.names))

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers, as counts are."""
        values = self.values.data if sparse.issparse(self.values) else self.values
        return bool((values == np.round(values)).all())

    def _read(self, values: Any, spots: Select, genes: Select) -> Floats:
        if sparse.issparse(values):
            whole = isinstance(spots, slice) and spots == slice(None)
            return dense(self.by_gene[:, genes] if whole else values[spots][:, genes])
        return window(values, self.rows[spots], self.columns[genes])

    def region(self, spots: Select, genes: Select, scale: Scale) -> Floats:
        """Return `(spots, genes)` float64; see :class:`Predictor`."""
        block = self._read(self.values, spots, genes)
        if scale == "counts":
            return block
        library = np.maximum(self.library[spots], 1e-300)[:, None]
        if scale == "log_normalized":
            block *= TARGET_SUM / library
            return np.log1p(block, out=block)
        codes = self.sections.codes[spots]
        residuals = np.empty_like(block)
        for code in np.unique(codes):
            here = codes == code
            expected = library[here] * self.rate[code, genes]
            residuals[here] = residual_block(block[here], expected, int(self.n_spots[code]))
        return residuals

    def parameters(self, spots: Select, genes: Select) -> Parameters | None:
        """Return the parameters of the likelihood; see :class:`Predictor`."""
        return None if self.likelihood is None else self.read_parameters(spots, genes)

    def read_parameters(self, spots: Select, genes: Select) -> Parameters:
        """Return the parameters, whether or not their likelihood is to be scored."""
        mean = self._read(self.values, spots, genes)
        theta = None if self.dispersion is None else self._read(self.dispersion, spots, genes)
        pi = None if self.dropout is None else self._read(self.dropout, spots, genes)
        if self.mu is not None:
            return self._read(self.mu, spots, genes), theta, pi
        return mean if pi is None else mean / np.maximum(1 - pi, 1e-7), theta, pi


class LogExpression:
    """Predicted log-normalized expression."""

    scales: tuple[Scale, ...] = ("log_normalized",)

    def __init__(self, values: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        self.values, self.rows, self.columns = values, rows, columns

    def region(self, spots: Select, genes: Select, scale: Scale) -> Floats:
        """Return `(spots, genes)` float64; see :class:`Predictor`."""
        _check_log_normalized(scale)
        return window(self.values, self.rows[spots], self.columns[genes])

    def parameters(self, spots: Select, genes: Select) -> None:
        """Return None; see :class:`Predictor`."""
        return


class ExpectedLog:
    """Expected log(1 + 1e4 x / total) under predicted distributions, the total being the sum of the means of the spot.

    No prediction from the same distributions has a smaller squared error on this scale.
    """

    def __init__(self, counts: Expression) -> None:
        self.counts = counts

    def region(self, spots: Select, genes: Select, scale: Scale) -> Floats:
        """Return `(spots, genes)` float64; see :class:`Predictor`."""
        _check_log_normalized(scale)
        factor = TARGET_SUM / np.maximum(self.counts.library[spots], LEAST_TOTAL)
        predicted = distribution(*self.counts.read_parameters(spots, genes))
        values: Floats = predicted.expected_log1p(factor[:, None]).numpy()
        return values


class WithLogNormalized:
    """Expected counts, with log-normalized expression that is not their transform.

    Parameters
    ----------
    counts
        Expected counts, also read for Pearson residuals.
    log_normalized
        Expected log-normalized expression.
    """

    scales: tuple[Scale, ...] = SCALES

    def __init__(self, counts: Expression, log_normalized: LogExpression | ExpectedLog) -> None:
        self.counts, self.log_normalized = counts, log_normalized

    def region(self, spots: Select, genes: Select, scale: Scale) -> Floats:
        """Return `(spots, genes)` float64; see :class:`Predictor`."""
        source = self.log_normalized if scale == "log_normalized" else self.counts
        return source.region(spots, genes, scale)

    def parameters(self, spots: Select, genes: Select) -> Parameters | None:
        """Return the parameters of the likelihood; see :class:`Predictor`."""
        return self.counts.parameters(spots, genes)


def _check_log_normalized(scale: Scale) -> None:
    if scale != "log_normalized":
        raise ValueError(f"Expected scale 'log_normalized', found {scale!r}.")


class BaselineExpression:
    """The mean baseline or the depth baseline."""

    scales: tuple[Scale, ...] = SCALES

    def __init__(self, baselines: Baselines, library: Floats, kind: Literal["mean", "depth"]) -> None:
        self.baselines, self.library, self.kind = baselines, library, kind

    def region(self, spots: Select, genes: Select, scale: Scale) -> Floats:
        """Return `(spots, genes)` float64; see :class:`Predictor`. Their residuals are 0 by construction."""
        baselines, library = self.baselines.take(genes), self.library[spots]
        if scale == "residual":
            return np.zeros((len(library), len(baselines.rate)))
        if self.kind == "mean":
            return baselines.predict_mean(len(library), scale)
        return baselines.predict_depth(library, scale)

    def parameters(self, spots: Select, genes: Select) -> Parameters:
        """Return the negative binomial about the baseline; see :class:`Predictor`."""
        baselines = self.baselines.take(genes)
        theta = baselines.mean_dispersion if self.kind == "mean" else baselines.dispersion
        mean = self.region(spots, genes, "counts")
        return mean, np.broadcast_to(theta, mean.shape), None
