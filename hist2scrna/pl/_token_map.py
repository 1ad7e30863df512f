"""Values of the tokens of patches, at their place on the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.pl._figure import Size
from hist2scrna.pl._section import Section, section_axes
from hist2scrna.pl._tissue import DIVERGING, color_bar, even_limits, limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def token_place(section: Section, about: Mapping[str, Any]) -> tuple[float, tuple[int, int]]:
    """Return the side of a patch in full-resolution pixels, and the rows and columns of tokens that it is cut into.

    Parameters
    ----------
    section
        The section.
    about
        What :func:`hist2scrna.tl.attention` wrote to `.uns`.

    Raises
    ------
    KeyError
        If the section was not read.
    ValueError
        If the model reads features, or patches whose place is not known.
    """
    if "grid" not in about:
        raise ValueError(
            f"The model {str(about.get('model'))!r} reads features, which have no place within a spot. Draw "
            "kind='neighbors', or read the values from adata.obsm."
        )
    rows, columns = (int(v) for v in about["grid"])
    if "patch_side" not in about:
        raise ValueError(
            "The patches were read from files, so that their place on the tissue is not known. Read the values from "
            f"adata.obsm: {rows} x {columns} tokens a patch."
        )
    names = [str(name) for name in about["sections"]]
    if len(names) > 1 and section.library not in names:
        raise KeyError(f"Section {section.library!r} was not among those read by tl.attention: {names}.")
    place = names.index(section.library) if section.library in names else 0
    return float(about["patch_side"][place]), (rows, columns)


def draw_tokens(
    section: Section,
    values: NDArray[np.float64],
    side: float,
    grid: tuple[int, int],
    gene: str | None,
    cmap: str | None,
    ax: Axes | None,
    figsize: Size | None,
) -> Axes:
    """Draw `(n, tokens)` at their place, those of one patch or of all: attention, or saliency if a gene is given."""
    chosen = slice(None) if section.chosen is None else slice(section.chosen, section.chosen + 1)
    values = values[chosen] * (values.shape[1] if gene is None else 1)
    low, high = section.xy[chosen].min(axis=0) - 0.75 * side, section.xy[chosen].max(axis=0) + 0.75 * side
    tissue = section.tissue(low, high)
    ax = section_axes(ax, figsize, tissue.aspect if section.chosen is None else 1.0)
    if tissue.image is not None:
        # From afar tokens are small, and only stand out from a pale image.
        pale = 0.45 if section.chosen is None else 0.8
        ax.imshow(tissue.image, extent=tissue.extent, interpolation="antialiased", alpha=pale)
    canvas, extent = tokens_on_tissue(section.xy[chosen], values, side, grid)
    bounds = limits(canvas) if gene is None else even_limits(canvas)
    # The tissue shows through where there is little.
    nothing = bounds[0] if gene is None else 0.0
    strength = np.clip(np.abs(canvas - nothing) / (bounds[1] - nothing), 0.2 if gene is None else 0.0, 1.0)
    heat = ax.imshow(
        np.ma.masked_invalid(canvas),
        extent=extent,
        cmap=cmap or (DIVERGING if gene is not None else "viridis"),
        vmin=bounds[0],
        vmax=bounds[1],
        alpha=0.85 * np.nan_to_num(strength),
        interpolation="nearest",
    )
    if section.chosen is not None:
        left, right, bottom, top = extent
        ax.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="black", linewidth=1)
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    what = "attention within patches" if gene is None else f"saliency for {gene}"
    ax.set_title(f"{section.title}: {what}", fontsize=10)
    color_bar(heat, ax, "attention / even share" if gene is None else "effect on ln mean (gradient x input)")
    return ax


def tokens_on_tissue(
    xy: NDArray[np.float64], values: NDArray[np.float64], side: float, grid: tuple[int, int]
) -> tuple[NDArray[np.float64], tuple[float, float, float, float]]:
    """Lay the tokens of patches on a raster whose pixel is as large as a token, averaged where patches overlap.

    Parameters
    ----------
    xy
        `(n, 2)` centers of the patches.
    values
        `(n, rows * columns)`, row by row from the top left.
    side
        Side of a patch, in the unit of `xy`.
    grid
        Rows and columns of tokens.

    Returns
    -------
    The raster, NaN where there is no token, and its left, right, bottom and top in the unit of `xy`.
    """
    rows, columns = grid
    cell = np.array([side / columns, side / rows])
    low = xy.min(axis=0) - side / 2
    across, down = (np.arange(count) + 0.5 for count in (columns, rows))
    inside = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    place = np.floor((xy[:, None] - side / 2 - low) / cell + inside + 1e-9).astype(np.int64).reshape(-1, 2)
    width, height = (int(v) for v in place.max(axis=0) + 1)
    index = place[:, 1] * width + place[:, 0]
    total, count = (np.bincount(index, w, minlength=width * height) for w in (values.ravel(), None))
    raster = np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(height, width)
    right, bottom = low + cell * [width, height]
    return raster, (float(low[0]), float(right), float(bottom), float(low[1]))
