"""Spots colored by a value, on the image of the tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hist2scrna.spots.window import window_corners

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

UNIT = "log(1 + count per 10,000)"
DIVERGING = "RdBu_r"
# Limits of color: a few extreme spots must not flatten all others.
LOWEST, HIGHEST = 0.01, 0.99


@dataclass(frozen=True)
class Tissue:
    """What lies under and in all panels of a section.

    Attributes
    ----------
    xy
        `(n, 2)`, full-resolution pixels, x right, y down.
    diameter
        Diameter of a spot in these pixels.
    image
        `(height, width, 3)` uint8; None: spots alone.
    extent
        Left, right, bottom and top of the image in these pixels.
    """

    xy: NDArray[np.float64]
    diameter: float
    image: NDArray[np.uint8] | None = None
    extent: tuple[float, float, float, float] | None = None

    @property
    def window(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of what is shown: the image, else the spots with a margin."""
        if self.extent is not None:
            return self.extent
        low, high = window_corners(self.xy, self.diameter)
        return float(low[0]), float(high[0]), float(high[1]), float(low[1])

    @property
    def aspect(self) -> float:
        """Height over width."""
        left, right, bottom, top = self.window
        return abs(bottom - top) / max(abs(right - left), 1e-9)


def limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 1st and 99th percentile of finite values, never the same."""
    low, high = np.nanquantile(values, [LOWEST, HIGHEST]) if np.isfinite(values).any() else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1e-3)


def even_limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return limits as far below as above 0: the 99th percentile of the size of finite values."""
    high = limits(np.abs(values))[1]
    return -high, high


def draw_spots(
    ax: Any,
    tissue: Tissue,
    values: NDArray[np.float64],
    between: tuple[float, float],
    cmap: str | Colormap,
    outline: str | None = None,
) -> Any:
    """Draw spots at their true size, gray where the value is NaN, and return the collection."""
    import matplotlib as mpl
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Normalize

    if tissue.image is not None:
        ax.imshow(tissue.image, extent=tissue.extent, alpha=0.55, interpolation="antialiased")
    wide = np.full(len(values), tissue.diameter)
    dots = EllipseCollection(
        wide,
        wide,
        np.zeros(len(values)),
        units="xy",
        offsets=tissue.xy,
        offset_transform=ax.transData,
        cmap=mpl.colormaps.get_cmap(cmap).with_extremes(bad="0.75"),
        norm=Normalize(*between),
        edgecolors="none" if outline is None else outline,
        linewidths=0 if outline is None else 0.4,
        rasterized=True,
    )
    dots.set_array(np.ma.masked_invalid(values))
    ax.add_collection(dots, autolim=False)
    ax.set(xlim=tissue.window[:2], ylim=tissue.window[2:], aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return dots


def color_bar(dots: Any, axes: Any, label: str, shrink: float = 0.7) -> Any:
    """Draw the color bar of spots next to one or several axes, and return it."""
    bar = dots.figure.get_figure(root=True).colorbar(dots, ax=axes, shrink=shrink, aspect=18, pad=0.02, extend="both")
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return bar
