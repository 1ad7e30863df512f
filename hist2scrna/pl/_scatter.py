"""Predicted against measured expression, all genes and spots together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.evaluation.plain import number
from hist2scrna.pl._figure import as_evaluation, finish, new_axes, plot_data
from hist2scrna.pl._tissue import UNIT

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hist2scrna.evaluation.result import Evaluation

CELLS, SMOOTHING = 100, 1.5


def scatter(
    evaluation: Evaluation | str | Path,
    *,
    cmap: str = "viridis",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> Axes:
    """Draw predicted against measured log-normalized expression of 10,000 random (spot, gene) pairs.

    Color is the density of points. On the dashed line both are equal. The title gives R2 and Pearson over all values,
    not only those drawn. Genes differ far more from each other than spots do, so predicting the mean of each gene also
    scores high here: the title gives that baseline, too.

    Parameters
    ----------
    evaluation
        What :func:`hist2scrna.tl.evaluate` returned, or the path of its JSON.
    cmap
        Name of a Matplotlib color map.
    ax
        Axes to draw in; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: what suits the plot.
    save
        Path of a file to write the figure to; its suffix selects the format. None: it is not written.
    show
        Show the figure at once. A notebook shows it at the end of the cell in any case.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the evaluation holds no points.

    Examples
    --------
    >>> ax = h2s.pl.scatter(evaluation, save="scatter.png")
    """
    result = as_evaluation(evaluation)
    points = plot_data(result, "scatter", "This evaluation holds no points. Call tl.evaluate again to draw some.")
    truth, predicted = (np.array(points[name], dtype=float) for name in ("truth", "prediction"))
    density = _density(truth, predicted)
    order = np.argsort(density, kind="stable")
    ax = new_axes(ax, figsize, (4.6, 4.2))
    top = max(float(truth.max()), float(predicted.max())) * 1.03 or 1.0
    ax.plot([0, top], [0, top], color="0.35", linestyle="--", linewidth=1, zorder=0)
    dots = ax.scatter(
        truth[order], predicted[order], c=density[order], s=5, linewidths=0, cmap=cmap, norm="log", rasterized=True
    )
    low = min(0.0, float(predicted.min()))
    ax.set(xlim=(-0.02 * top, top), ylim=(low - 0.02 * top, top), aspect="equal")
    ax.set(xlabel=f"measured, {UNIT}", ylabel=f"predicted, {UNIT}")
    scores = result.results["scores"]["log_normalized"]
    labels = {
        name: [number(scores[name]["overall"][key]) for key in ("r2", "pearson")] for name in ("model", "mean_baseline")
    }
    ax.set_title(
        "model: R2 = {}, Pearson = {}\n".format(*labels["model"])
        + "mean baseline: R2 = {}, Pearson = {}".format(*labels["mean_baseline"]),
        fontsize=10,
    )
    bar = ax.get_figure(root=True).colorbar(dots, ax=ax, shrink=0.8, aspect=22, pad=0.02)  # type: ignore[union-attr]
    bar.set_label("points around", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    finish(ax, save, show)
    return ax


def _density(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the number of points in the cell of each point, smoothed with the cells around; at least 1."""
    from scipy.ndimage import gaussian_filter

    table, *edges = np.histogram2d(x, y, bins=CELLS)
    smooth = gaussian_filter(table, SMOOTHING)
    places = (
        np.clip(np.searchsorted(e, v, side="right") - 1, 0, CELLS - 1) for e, v in zip(edges, (x, y), strict=True)
    )
    return np.maximum(smooth[tuple(places)], 1.0)
