"""Gene programs: the leading axes of log-normalized expression once depth is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.metrics.blocks import Floats
from hist2scrna.metrics.scales import log_normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows that are held dense at once.
BLOCK_ROWS = 5000


@dataclass(frozen=True)
class Programs:
    r"""Log library size and gene programs, and what they make of expression.

    With the centered log library size :math:`d` and log-normalized expression :math:`Y`, the line :math:`Y = c + v_0 d`
    is fitted by least squares; programs are the leading right singular vectors :math:`V` of what is left over, and
    their scores :math:`(Y - c - v_0 d) V`, in units of their standard deviation.

    Attributes
    ----------
    scores
        `(n, 1 + p)`: the centered log library size, then the program scores.
    log_library_mean
        Mean of the log library size.
    log_loadings
        `(1 + p, genes)`, change of log-normalized expression for a unit of each score.
    log_intercept
        `(genes,)`, log-normalized expression where all scores are 0.
    """

    scores: Floats
    log_library_mean: float
    log_loadings: Floats
    log_intercept: Floats

    @classmethod
    def fit(cls, counts: Any, n_programs: int, rows: NDArray[np.int64]) -> Programs:
        """Find the programs.

        Parameters
        ----------
        counts
            `(n, genes)` CSR.
        n_programs
            How many; where there can be only fewer, the others are zero.
        rows
            Spots that the axes are estimated on.
        """
        from sklearn.utils.extmath import randomized_svd

        log_library = np.log(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel())
        depth = log_library - log_library.mean()
        design = np.stack([depth, np.ones_like(depth)], axis=1)
        expression = log_normalize(counts[rows].toarray())
        lines = np.linalg.lstsq(design[rows], expression, rcond=None)[0]
        most = min(n_programs, len(rows) - 1, expression.shape[1] - 1)
        _, _, vectors = randomized_svd(expression - design[rows] @ lines, max(1, most), random_state=0)
        # All spots, block by block: a large table is never dense at once.
        starts = range(0, len(depth), BLOCK_ROWS)
        projected = [log_normalize(counts[start : start + BLOCK_ROWS].toarray()) @ vectors.T for start in starts]
        scores = np.concatenate(projected) - design @ (lines @ vectors.T)
        spread = np.maximum(scores.std(axis=0), 1e-12)
        missing = n_programs - len(vectors)
        return cls(
            scores=np.concatenate([depth[:, None], scores / spread, np.zeros((len(depth), missing))], axis=1),
            log_library_mean=float(log_library.mean()),
            log_loadings=np.concatenate(
                [lines[:1], vectors * spread[:, None], np.zeros((missing, expression.shape[1]))]
            ),
            log_intercept=lines[1],
        )
