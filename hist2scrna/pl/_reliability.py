"""Whether the confidence in a cell type is what it seems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.evaluation.plain import number
from hist2scrna.pl._figure import COLORS, as_evaluation, new_axes, not_typed, plot_data, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hist2scrna.evaluation.result import Evaluation


def reliability(evaluation: Evaluation | str | Path, *, ax: Axes | None = None, save: str | Path | None = None) -> Axes:
    """Draw the accuracy of predicted cell types against the confidence in them.

    A bar is the accuracy of all spots whose confidence lies in its bin, with their number at its foot; the dot is their
    mean confidence. A bar that ends below its dot is overconfident. The title has the expected calibration error.

    Parameters
    ----------
    evaluation
        What :func:`hist2scrna.tl.evaluate` returned, or the path of its JSON.
    ax
        Axes to draw in; None: a new figure.
    save
        Path to write the figure to, in the format of its suffix; None: not written.

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
    >>> hist2scrna.pl.reliability(evaluation)
    """
    found = as_evaluation(evaluation)
    if not found.results["cell_types"]:
        raise ValueError(not_typed(found))
    why = "The prediction holds no confidence in its cell types. Call tl.predict again, then tl.evaluate."
    bins = plot_data(found, "reliability", why)
    edges, n = np.array(bins["edges"]), np.array(bins["n"])
    held = n > 0
    accuracy, confidence = (np.array(bins[k], dtype=float)[held] for k in ("accuracy", "confidence"))
    ax = new_axes(ax, (4.4, 4.0))
    ax.plot([0, 1], [0, 1], color="0.35", linestyle="--", linewidth=1, label="calibrated")
    width = np.diff(edges)[held]
    ax.bar(
        edges[:-1][held],
        accuracy,
        width,
        align="edge",
        color=COLORS["model"],
        alpha=0.55,
        edgecolor="white",
        label="accuracy (number of spots)",
    )
    for left, count in zip(edges[:-1][held] + width / 2, n[held], strict=True):
        ax.text(left, 0.015, f"{count:,}", ha="center", va="bottom", fontsize=8)
    ax.plot(
        edges[:-1][held] + width / 2, confidence, "o", color="#D55E00", markeredgecolor="white", label="mean confidence"
    )
    ax.set(xlabel="confidence in the predicted type", ylabel="share of spots", xlim=(0, 1), ylim=(0, 1.02))
    error = found.results["cell_types"]["expected_calibration_error"]
    ax.set_title(f"expected calibration error {number(error)}", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    save_figure(ax, save)
    return ax
