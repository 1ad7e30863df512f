"""The genes that are predicted best and worst, on the tissue."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.pl._figure import Size, as_evaluation, figure_size, finish, plot_data
from hist2scrna.pl._tissue import UNIT, Tissue, color_bar, draw_spots, limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hist2scrna.evaluation.result import Evaluation

PANEL_INCHES = 2.1


def ranked_genes(
    evaluation: Evaluation | str | Path,
    *,
    section: str | None = None,
    cmap: str = "viridis",
    ax: Axes | Sequence[Axes] | NDArray[Any] | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> NDArray[Any]:
    """Draw measured and predicted expression of the four best and the four worst genes by Pearson, on the tissue.

    The best genes are on the left, best first; the worst genes are on the right, worst first. Each panel has its own
    color scale from the 1st to the 99th percentile (`min` to `max` on the bar), which makes patterns comparable. The
    title gives the spread of the prediction: its standard deviation over that of the truth. Pearson and spread are
    averaged over all scored sections.

    Parameters
    ----------
    evaluation
        What :func:`hist2scrna.tl.evaluate` returned, or the path of its JSON.
    section
        Which section; None: the first. An evaluation keeps the first two sections, with up to 5,000 spots each.
    cmap
        Name of a Matplotlib color map.
    ax
        Two axes per gene (measured, predicted), the best genes first, in any shape; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: what suits the plot.
    save
        Path of a file to write the figure to; its suffix selects the format. None: it is not written.
    show
        Show the figure at once. A notebook shows it at the end of the cell in any case.

    Returns
    -------
    Axes, an object array of shape (genes, 2): the best genes, then the worst.

    Raises
    ------
    KeyError
        If the section is not kept.
    ValueError
        If the evaluation keeps no maps, or `ax` holds the wrong number of axes.

    Examples
    --------
    >>> axes = h2s.pl.ranked_genes(evaluation, save="ranked.png")
    """
    result = as_evaluation(evaluation)
    maps = plot_data(result, "maps", "This evaluation holds no maps. Call tl.evaluate again to have them.")
    best, worst, sections = maps["best"], maps["worst"], maps["sections"]
    if not sections or not best:
        raise ValueError(
            "This evaluation holds no maps: "
            + ("no gene varies." if not best else "the spots had no coordinates.")
            + " Call tl.evaluate on data with coordinates in adata.obsm['spatial'] and counts that vary."
        )
    name = next(iter(sections)) if section is None else section
    if name not in sections:
        raise KeyError(f"Section {name!r} is not among those whose maps are kept: {list(sections)}.")
    section_map = sections[name]
    tissue = _tissue(section_map)
    axes = _axes(ax, figsize, len(best), len(worst), tissue.aspect)
    score = "r" if len(result.results["sections"]) == 1 else "mean r"
    for pair, gene in zip(axes, best + worst, strict=True):
        row = result.genes.loc[gene]
        titles = (gene, f"{score} = {row['pearson']:.2f}, spread {row['spread_ratio']:.2f}")
        for one, values, title in zip(
            pair, (section_map["truth"][gene], section_map["prediction"][gene]), titles, strict=True
        ):
            shown = np.array(values, dtype=float)
            dots = draw_spots(one, tissue, shown, limits(shown), cmap)
            one.set_title(title, fontsize=9)
    if ax is None:
        _head(axes, best, worst)
        axes[0, 0].get_figure(root=True).suptitle(name, fontsize=11)
        bar = color_bar(dots, axes.ravel().tolist(), UNIT, shrink=0.35)
        bar.set_ticks(dots.get_clim(), labels=["min", "max"])
    finish(axes[0, 0], save, show)
    return axes


def _tissue(section_map: dict[str, Any]) -> Tissue:
    from PIL import Image

    xy, image = np.array(section_map["xy"], dtype=float).reshape(-1, 2), section_map["image"]
    if image is None:
        return Tissue(xy, section_map["spot_diameter"])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["jpeg"]))).convert("RGB"))
    left, right, bottom, top = image["extent"]
    return Tissue(xy, section_map["spot_diameter"], pixels, (left, right, bottom, top))


def _axes(ax: Any, figsize: Size | None, n_best: int, n_worst: int, aspect: float) -> NDArray[Any]:
    import matplotlib.pyplot as plt

    n_genes = n_best + n_worst
    height = PANEL_INCHES * min(max(aspect, 0.3), 3.0) + 0.3
    size = figure_size(ax, figsize, (4 * PANEL_INCHES + 0.8, height * n_best + 0.4))
    if ax is not None:
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != 2 * n_genes:
            raise ValueError(f"Expected two axes for each of {n_genes} genes in `ax`, found {len(axes)}.")
        return axes.reshape(n_genes, 2)
    _, grid = plt.subplots(n_best, 4, figsize=size, squeeze=False, layout="compressed")
    for unused in grid[n_worst:, 2:].ravel():
        unused.set_axis_off()
    return np.concatenate([grid[:, :2], grid[:n_worst, 2:]])


def _head(axes: NDArray[Any], best: list[str], worst: list[str]) -> None:
    """Name the columns above the titles of the first row."""
    for first, word in ((0, "best"), (len(best), "worst")):
        if first == 0 or worst:
            for one, what in zip(axes[first], ("measured", "predicted"), strict=True):
                one.set_title(f"{word}: {what}\n{one.get_title()}", fontsize=9)
