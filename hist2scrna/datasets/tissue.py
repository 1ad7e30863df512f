"""A simulated piece of tissue: domains of cell types, and the nuclei in them.

Coordinates are micrometers, x to the right and y down, from the upper left corner of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

STEP = 3.0


@dataclass(frozen=True)
class Morphology:
    """How a cell type looks: lengths in micrometers, stains in natural optical density along the stain vector."""

    name: str
    spacing: float  # hard-core distance between nuclei; their density comes to about 0.6 / spacing^2
    radius: float  # geometric mean of the half axes
    aspect: float
    nucleus: float  # hematoxylin in nuclei
    cytoplasm: float  # hematoxylin between them
    eosin: float
    fibers: float  # fraction of the eosin that lies in fibers


MORPHOLOGIES = (
    Morphology(
        "epithelial", spacing=10.5, radius=4.1, aspect=1.25, nucleus=1.0, cytoplasm=0.30, eosin=0.40, fibers=0.1
    ),
    Morphology("lymphoid", spacing=7.2, radius=2.8, aspect=1.08, nucleus=1.7, cytoplasm=0.12, eosin=0.20, fibers=0.1),
    Morphology("stromal", spacing=17.0, radius=3.0, aspect=3.4, nucleus=1.3, cytoplasm=0.02, eosin=0.42, fibers=0.7),
    Morphology("muscle", spacing=15.0, radius=2.6, aspect=4.2, nucleus=1.1, cytoplasm=0.05, eosin=0.80, fibers=0.4),
    Morphology("plasma", spacing=9.5, radius=3.1, aspect=1.20, nucleus=1.5, cytoplasm=0.55, eosin=0.45, fibers=0.1),
    Morphology("necrotic", spacing=14.0, radius=1.9, aspect=1.10, nucleus=2.0, cytoplasm=0.12, eosin=0.70, fibers=0.0),
    Morphology(
        "endothelial", spacing=12.0, radius=3.2, aspect=2.4, nucleus=1.4, cytoplasm=0.08, eosin=0.28, fibers=0.5
    ),
    Morphology("adipose", spacing=24.0, radius=2.4, aspect=2.6, nucleus=1.5, cytoplasm=0.01, eosin=0.08, fibers=0.6),
)


def smooth_field(rng: np.random.Generator, size: tuple[float, float], length: float) -> RectBivariateSpline:
    """Draw a stationary Gaussian random field, mean 0 and variance 1, as a function of (y, x).

    Parameters
    ----------
    rng
        Source of randomness.
    size
        Height and width of the domain.
    length
        Standard deviation of the Gaussian kernel that smooths white noise; the correlation between two points `r`
        apart is `exp(-r^2 / (4 length^2))`.
    """
    step = length / 4
    y, x = (np.arange(-step, extent + 2 * step, step) for extent in size)
    # The kernel has sum 1 and sum of squares 1 / (4 pi 4^2).
    noise = gaussian_filter(rng.standard_normal((len(y), len(x))), 4.0, mode="wrap") * math.sqrt(4 * math.pi * 16)
    return RectBivariateSpline(y, x, noise, kx=min(3, len(y) - 1), ky=min(3, len(x) - 1))


class Domains:
    """Smooth domains of cell types: at each place, the type whose random field is largest.

    Parameters
    ----------
    rng
        Source of randomness.
    size
        Height and width.
    length
        Smoothing length of the fields; domains are about three times as wide.
    n_types
        Number of types, the first of :data:`MORPHOLOGIES`.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[float, float], length: float, n_types: int) -> None:
        self.size = size
        self.morphologies = MORPHOLOGIES[:n_types]
        self._fields = [smooth_field(rng, size, length) for _ in self.morphologies]
        self._ragged = [smooth_field(rng, size, max(length / 6, 3.0)) for _ in self.morphologies]
        self._islands: list[tuple[int, float, float, float, float]] = []

    def _values(self, y: NDArray, x: NDArray, *, grid: bool) -> NDArray:
        values = np.stack([field(y, x, grid=grid) for field in self._fields])
        values += 0.12 * np.stack([field(y, x, grid=grid) for field in self._ragged])
        rows, columns = (y[:, None], x[None, :]) if grid else (y, x)
        for kind, center_x, center_y, radius, height in self._islands:
            distance2 = (rows - center_y) ** 2 + (columns - center_x) ** 2
            values[kind] += height * np.exp(-distance2 / (2 * radius**2))
        return values

    def types_at(self, xy: NDArray) -> NDArray[np.intp]:
        """Type at each of `xy`, (n, 2)."""
        return self._values(xy[:, 1], xy[:, 0], grid=False).argmax(axis=0)

    def raster(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
        """Coordinates y and x of a grid :data:`STEP` apart, and the type at each of its nodes."""
        y, x = (np.arange(0.0, extent + STEP, STEP) for extent in self.size)
        return y, x, self._values(y, x, grid=True).argmax(axis=0)

    def include_all_types(self, xy: NDArray, radius: float) -> None:
        """Add an island of `radius` for each type that none of `xy` has, as far as there are places enough."""
        for _ in range(4 * len(self.morphologies)):
            types = self.types_at(xy)
            count = np.bincount(types, minlength=len(self.morphologies))
            missing = np.flatnonzero(count == 0)
            spare = np.flatnonzero(count[types] > 1)
            if not len(missing) or not len(spare):
                return
            values = self._values(xy[:, 1], xy[:, 0], grid=False)
            lack = values.max(axis=0) - values[missing[0]]
            place = spare[lack[spare].argmin()]
            x, y = xy[place]
            self._islands.append((int(missing[0]), float(x), float(y), radius, float(lack[place]) + 0.5))


def place_nuclei(rng: np.random.Generator, domains: Domains) -> NDArray[np.float64]:
    """Draw nuclei from a hard-core process (random sequential adsorption) whose distance depends on the type.

    Returns
    -------
    Coordinates (x, y), shape (n, 2). Two nuclei are at least the mean of their types' `spacing` apart.
    """
    height, width = domains.size
    spacing = np.array([m.spacing for m in domains.morphologies])
    xy = rng.uniform(0, (width, height), size=(int(4 * height * width / spacing.min() ** 2) + 1, 2))
    # Wide spacings need fewer candidates: each type gets four per spacing^2.
    column, row = (xy / STEP).round().astype(int).T
    distance = spacing[domains.raster()[2][row, column]]
    keep = rng.random(len(xy)) < (spacing.min() / distance) ** 2
    xy, distance = xy[keep], distance[keep]
    pairs = cKDTree(xy).query_pairs(float(distance.max()), output_type="ndarray")
    gap = np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T)
    pairs = pairs[gap < (distance[pairs[:, 0]] + distance[pairs[:, 1]]) / 2]
    # Candidates come in the order of their index: one that conflicts with no earlier candidate left is taken and
    # strikes out its later conflicts. All such candidates of a round are independent.
    earlier, later = pairs.min(axis=1), pairs.max(axis=1)
    taken, left = np.zeros(len(xy), bool), np.ones(len(xy), bool)
    while left.any():
        first = left.copy()
        first[later] = False
        taken |= first
        left &= ~first
        left[later[first[earlier]]] = False
        both = left[earlier] & left[later]
        earlier, later = earlier[both], later[both]
    return xy[taken]
