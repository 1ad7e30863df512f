"""Predicted against observed share of zero counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hist2scrna.evaluation.plain import number
from hist2scrna.pl._figure import as_evaluation, finish, new_axes, not_counts

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hist2scrna.evaluation.result import Evaluation

# Okabe and Ito's sky blue, blue and vermilion.
LEVELS = {"low": ("#56B4E9", "v"), "medium": ("#0072B2", "o"), "high": ("#D55E00", "^")}


def zero_inflation(
    evaluation: Evaluation | str | Path,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> Axes:
    """Draw the predicted against the observed zero rate of every gene.

    The predicted rate is the mean of P(X = 0) over the spots, not the share of predictions that round to 0. Below the
    dashed line, the model expects fewer zeros than there are. The title gives both rates over all values, and how well
    P(X = 0) separates zeros from other counts.

    Parameters
    ----------
    evaluation
        What :func:`hist2scrna.tl.evaluate` returned, or the path of its JSON.
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
        If the model gives no distribution of counts.

    Examples
    --------
    >>> ax = h2s.pl.zero_inflation(evaluation)
    """
    result = as_evaluation(evaluation)
    zeros = result.results["zeros"].get("model")
    if not zeros:
        raise ValueError(not_counts(result))
    ax = new_axes(ax, figsize, (4.4, 4.2))
    ax.plot([0, 1], [0, 1], color="0.35", linestyle="--", linewidth=1, label="equal", zorder=0)
    for level, (color, marker) in LEVELS.items():
        part = result.genes[result.genes["level"] == level]
        if len(part):
            size = 30 if len(result.genes) < 300 else 12
            ax.scatter(
                part["zero_rate"],
                part["predicted_zero_rate"],
                s=size,
                color=color,
                marker=marker,
                alpha=0.7,
                linewidths=0,
                rasterized=True,
                label=f"{level} expression",
            )
    ax.set(xlabel="zero rate, observed", ylabel="zero rate, predicted", aspect="equal")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    ax.set_title(
        f"zeros: {zeros['observed_zero_rate']:.1%} observed, {zeros['predicted_zero_rate']:.1%} predicted\n"
        f"AUROC of non-zero {number(zeros['auroc'])}",
        fontsize=10,
    )
    finish(ax, save, show)
    return ax
