"""Whether the confidence in cell types is calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.evaluation.plain import number
from hist2scrna.pl._figure import COLORS, as_evaluation, finish, new_axes, not_typed, plot_data

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hist2scrna.evaluation.result import Evaluation


def reliability(
    evaluation: Evaluation | str | Path,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> Axes:
    """Draw the accuracy of predicted cell types against the confidence in them.

    Each bar is the accuracy of the spots whose confidence lies in its bin, with their number at the bottom; the dot is
    their mean confidence. A bar that ends below its dot is overconfident. The title gives the expected calibration
    error.

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
        If no cell types were scored, or their confidence is not known.

    References
    ----------
    Guo et al., On calibration of modern neural networks, ICML 2017, figure 1.

    Examples
    --------
    >>> ax = h2s.pl.reliability(evaluation)
    """
    result = as_evaluation(evaluation)
    if not result.results["cell_types"]:
        raise ValueError(not_typed(result))
    why = "The prediction holds no confidence in its cell types. Call tl.predict again, then tl.evaluate."
    bins = plot_data(result, "reliability", why)
    edges, n = np.array(bins["edges"]), np.array(bins["n"])
    occupied = n > 0
    accuracy, confidence = (np.array(bins[k], dtype=float)[occupied] for k in ("accuracy", "confidence"))
    ax = new_axes(ax, figsize, (4.4, 4.0))
    ax.plot([0, 1], [0, 1], color="0.35", linestyle="--", linewidth=1, label="calibrated")
    width = np.diff(edges)[occupied]
    ax.bar(
        edges[:-1][occupied],
        accuracy,
        width,
        align="edge",
        color=COLORS["model"],
        alpha=0.55,
        edgecolor="white",
        label="accuracy (number of spots)",
    )
    for left, count in zip(edges[:-1][occupied] + width / 2, n[occupied], strict=True):
        ax.text(left, 0.015, f"{count:,}", ha="center", va="bottom", fontsize=8)
    ax.plot(
        edges[:-1][occupied] + width / 2,
        confidence,
        "o",
        color="#D55E00",
        markeredgecolor="white",
        label="mean confidence",
    )
    ax.set(xlabel="confidence in the predicted type", ylabel="share of spots", xlim=(0, 1), ylim=(0, 1.02))
    error = result.results["cell_types"]["expected_calibration_error"]
    ax.set_title(f"expected calibration error {number(error)}", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    finish(ax, save, show)
    return ax
