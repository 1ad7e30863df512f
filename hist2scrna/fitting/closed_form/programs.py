"""Gene programs: the leading axes of log-normalized expression once depth is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.fitting.closed_form.donors import DonorCounts, Donors
from hist2scrna.metrics.blocks import Floats, blocks
from hist2scrna.metrics.scales import log_normalize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Spots that programs and what they do to genes are estimated on: more tell little more, and are held dense.
MOST_DENSE = 5000


@dataclass(frozen=True)
class Programs:
    r"""Log library size and gene programs, and what they make of expression.

    With the log library size :math:`d`, centered by donor, and log-normalized expression :math:`Y`, the lines
    :math:`Y = c_k + v_0 d` with an intercept for each donor :math:`k` are fitted by least squares; programs are the
    leading axes :math:`V` of the covariance of what is left over, and their scores :math:`(Y - c_k - v_0 d) V`, in
    units of their standard deviation. The covariance is the mean over donors, each scaled to trace 1, so that a deep
    one does not decide; with donors that have counts alone, the mean of theirs counts as much as that of the others.

    Attributes
    ----------
    scores
        `(n, 1 + p)`: the log library size and the program scores, centered by donor.
    log_library_mean
        Mean over donors of the mean log library size.
    levels
        `(donors,)`, mean log library size of each donor less that mean.
    log_loadings
        `(1 + p, genes)`, change of log-normalized expression for a unit of each score.
    log_intercept
        `(genes,)`, log-normalized expression where all scores are 0, mean over donors.
    """

    scores: Floats
    log_library_mean: float
    levels: Floats
    log_loadings: Floats
    log_intercept: Floats

    @classmethod
    def fit(
        cls, counts: Any, n_programs: int, rows: NDArray[np.int64], donors: Donors, others: Sequence[DonorCounts] = ()
    ) -> Programs:
        """Find the programs.

        Parameters
        ----------
        counts
            `(n, genes)` CSR.
        n_programs
            How many; where there can be only fewer, the others are zero.
        rows
            Spots that the axes are estimated on.
        donors
            Whose spots they are.
        others
            Counts of donors without images.
        """
        log_library = np.log(np.asarray(counts.sum(axis=1), dtype=np.float64).reshape(-1, 1))
        depth = donors.centered(log_library)
        design = np.concatenate([depth, np.eye(len(donors))[donors.code]], axis=1)
        expression = log_normalize(counts[rows].toarray())
        lines = np.linalg.lstsq(design[rows], expression, rcond=None)[0]
        most = min(n_programs, len(rows) - 1, expression.shape[1] - 1)
        vectors = _axes(expression - design[rows] @ lines, donors.code[rows], others, max(1, most))
        scores = np.zeros((len(depth), 1 + n_programs))
        scores[:, :1], own = depth, scores[:, 1 : 1 + len(vectors)]
        # All spots, block by block: a large table is never dense at once.
        for part in blocks(*counts.shape):
            own[part] = log_normalize(counts[part].toarray()) @ vectors.T - design[part] @ (lines @ vectors.T)
        levels = donors.means(own)
        for part in blocks(*own.shape):
            own[part] -= levels[donors.code[part]]
        spread = np.maximum(own.std(axis=0), 1e-12)
        own /= spread
        missing = n_programs - len(vectors)
        means = donors.means(log_library)[:, 0]
        return cls(
            scores=scores,
            log_library_mean=float(means.mean()),
            levels=means - means.mean(),
            log_loadings=np.concatenate(
                [lines[:1], vectors * spread[:, None], np.zeros((missing, expression.shape[1]))]
            ),
            log_intercept=lines[1:][donors.present].mean(axis=0),
        )


def _axes(left_over: Floats, donor: NDArray[np.int64], others: Sequence[DonorCounts], n: int) -> Floats:
    """Return the leading axes `(n, genes)` of the mean covariance of donors, half of it of those without images."""
    from sklearn.utils.extmath import randomized_svd

    parts = [left_over[donor == number] for number in np.unique(donor)]
    scaled = [part / max(float(np.linalg.norm(part)), 1e-12) / np.sqrt(len(parts)) for part in parts]
    for other in others:
        part = _without_depth(other)
        scaled.append(part / max(float(np.linalg.norm(part)), 1e-12) / np.sqrt(len(others)))
    # One donor alone is not scaled: its axes are the same, to the last digit those of its own table.
    table = left_over if len(scaled) == 1 else np.concatenate(scaled)
    axes: Floats = randomized_svd(table, n, random_state=0)[2]
    return axes


def _without_depth(other: DonorCounts) -> Floats:
    """Return log-normalized expression of a donor less a line in depth by section, each section as much as another."""
    parts = []
    for section in np.unique(other.section):
        counts = other.counts[other.section == section]
        log_library = np.log(np.maximum(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel(), 1))
        design = np.stack([log_library, np.ones_like(log_library)], axis=1)
        expression = log_normalize(counts.toarray())
        left_over = expression - design @ np.linalg.lstsq(design, expression, rcond=None)[0]
        parts.append(left_over / np.sqrt(len(left_over)))
    return np.concatenate(parts)
