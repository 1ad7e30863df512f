"""What differs between donors whatever the tissue looks like: levels of depth and of genes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.metrics.blocks import Floats, blocks
from hist2scrna.models.prediction import log_median

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy import sparse

# Standard deviation between donors of the mean log depth of their sections (seven donors of her2st), and how many more
# donors that counts as.
LEVEL_SD, LEVEL_DONORS = 0.73, 2.0
# Added to the share of a gene, of which a donor may have no count; prior counts of the ratio of measured to predicted.
LEAST_SHARE, PRIOR_COUNTS = 2e-6, 3.0


@dataclass(frozen=True)
class Donors:
    """Which donor each training spot is of.

    Attributes
    ----------
    code
        `(n,)`, number of the donor of each spot.
    """

    code: NDArray[np.int64]

    @cached_property
    def present(self) -> NDArray[np.int64]:
        """Numbers of the donors that have spots."""
        return np.unique(self.code)

    def __len__(self) -> int:
        return int(self.code.max()) + 1

    def means(self, values: Floats) -> Floats:
        """Return the means by donor of `(n, k)`, `(donors, k)`; of a donor without spots, the mean of the others."""
        means = np.zeros((len(self), values.shape[1]))
        for rows in blocks(*values.shape):
            means += (np.arange(len(self))[:, None] == self.code[rows]).astype(np.float64) @ values[rows]
        means /= np.maximum(np.bincount(self.code, minlength=len(self)), 1)[:, None]
        absent = np.setdiff1d(np.arange(len(self)), self.present)
        means[absent] = means[self.present].mean(axis=0)
        return means

    def centered(self, values: Floats) -> Floats:
        """Return `(n, k)` less the mean of the donor of each row."""
        centered: Floats = values - self.means(values)[self.code]
        return centered


@dataclass(frozen=True)
class DonorCounts:
    """Counts of a donor without an image.

    Attributes
    ----------
    name
        Name of the donor.
    counts
        `(n, G)` CSR, of the genes of the model.
    section
        `(n,)`, number of the section of each spot.
    measured
        `(G,)` bool, which of the genes were measured; others are zero.
    of_cells
        Rows are sums of single cells: they tell which genes go together, and no level of depth or of genes.
    """

    name: str
    counts: sparse.csr_array
    section: NDArray[np.int64]
    measured: NDArray[np.bool_]
    of_cells: bool = False

    @property
    def mean_log_depth(self) -> float:
        """Mean over the spots of the log library size."""
        return float(np.log(np.maximum(np.asarray(self.counts.sum(axis=1)).ravel(), 1)).mean())


def log_shares(counts: Any) -> Floats:
    """Return the logarithm of the share of each gene in all counts, `(G,)`."""
    total = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    shares: Floats = np.log(total / max(total.sum(), 1.0) + LEAST_SHARE)
    return shares


def population_log_shares(counts: sparse.csr_array, donors: Donors, others: Sequence[DonorCounts]) -> Floats:
    """Return the mean over all donors, with images and without, of the log share of each gene, `(G,)`."""
    known = [log_shares(counts[donors.code == donor]) for donor in donors.present]
    own = np.mean(known, axis=0)
    # Genes that a donor lacks are as in those with images.
    known += [np.where(other.measured, log_shares(other.counts), own) for other in others]
    return np.mean(known, axis=0)


def depth_factor(levels: Floats) -> tuple[float, float]:
    """Return the mean of the factor by which the depth of another donor is off, and its variance as a share of that.

    The levels of donors vary by a normal distribution on the log scale, whose variance is estimated from those of the
    training and from what was seen in other studies. The factor has the Gamma distribution whose logarithm varies as
    much as a new level less the mean of those that are known, and whose median is 1: a new donor is as likely deeper as
    shallower. Its mean is therefore above 1.

    Parameters
    ----------
    levels
        `(donors,)`, mean log depth of each donor less the mean of all.

    Returns
    -------
    The logarithm of the mean, and the variance of the factor as a share of its squared mean.
    """
    from scipy.optimize import brentq
    from scipy.special import polygamma

    n = len(levels)
    variance = (LEVEL_DONORS * LEVEL_SD**2 + np.square(levels).sum()) / (LEVEL_DONORS + n - 1)
    wanted = variance * (1 + 1 / n)
    share = 1 / float(brentq(lambda k: float(polygamma(1, k)) - wanted, 1e-2, 1e4))
    return -log_median(share), share
