"""Which cell types are confused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.pl._figure import as_evaluation, finish, new_axes, not_typed

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hist2scrna.evaluation.result import Evaluation

CELL_INCHES = 0.62


def confusion_matrix(
    evaluation: Evaluation | str | Path,
    *,
    cmap: str = "Blues",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> Axes:
    """Draw how often spots of each cell type are predicted as each.

    Numbers are spots; color is their share of the spots of the true type, so that rare types are visible, too. Rows of
    types that do not occur in the truth are empty.

    Parameters
    ----------
    evaluation
        What :func:`hist2scrna.tl.evaluate` returned, or the path of its JSON.
    cmap
        Name of a Matplotlib color map that begins pale.
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
        If no cell types were scored.

    Examples
    --------
    >>> ax = h2s.pl.confusion_matrix(evaluation)
    """
    result = as_evaluation(evaluation)
    types = result.results["cell_types"]
    if not types:
        raise ValueError(not_typed(result))
    counts, classes = np.array(types["confusion"], dtype=int), types["classes"]
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    side = max(3.2, CELL_INCHES * len(classes) + 1.6)
    ax = new_axes(ax, figsize, (side + 0.9, side))
    image = ax.imshow(np.ma.masked_invalid(share), cmap=cmap, vmin=0, vmax=1)
    for (row, column), n in np.ndenumerate(counts):
        if total[row]:
            color = "white" if share[row, column] > 0.55 else "black" if n else "0.65"
            ax.text(column, row, f"{n:,}", ha="center", va="center", fontsize=9, color=color)
    ticks = np.arange(len(classes))
    ax.set_xticks(ticks, classes, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_yticks(ticks, [f"{name} ({n:,})" for name, n in zip(classes, total.ravel(), strict=True)], fontsize=9)
    ax.set(xlabel="predicted", ylabel="true (number)")
    ax.set_xticks(ticks[:-1] + 0.5, minor=True)
    ax.set_yticks(ticks[:-1] + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(
        f"accuracy {types['accuracy']:.1%} (commonest type {types['majority_accuracy']:.1%})\n"
        f"F1 macro {types['f1_macro']:.3f}, weighted {types['f1_weighted']:.3f}",
        fontsize=10,
    )
    bar = ax.get_figure(root=True).colorbar(image, ax=ax, shrink=0.7, aspect=18, pad=0.02)  # type: ignore[union-attr]
    bar.set_label("share of the true type", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    finish(ax, save, show)
    return ax
