"""Whether predicted distributions of counts are calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.evaluation.plain import number
from hist2scrna.pl._figure import COLORS, LABELS, as_evaluation, figure_size, finish, new_axes, not_counts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hist2scrna.evaluation.result import Evaluation

STYLES = {"model": ("o", "-"), "mean_baseline": ("s", ":"), "depth_baseline": ("D", "-.")}


def calibration(
    evaluation: Evaluation | str | Path,
    *,
    ax: Sequence[Axes] | NDArray[Any] | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> NDArray[Any]:
    """Draw the coverage of predicted intervals, and the probability integral transform.

    Left: the share of counts within the central 50, 80 and 95 % of the predicted distribution. Below the dashed line,
    the prediction is overconfident. Right: the randomized probability integral transform in 20 bins, which is flat for
    a calibrated prediction. A U shape means that the distribution is too narrow, a hump too wide, a slope biased.

    Parameters
    ----------
    evaluation
        What :func:`hist2scrna.tl.evaluate` returned, or the path of its JSON.
    ax
        Two axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: what suits the plot.
    save
        Path of a file to write the figure to; its suffix selects the format. None: it is not written.
    show
        Show the figure at once. A notebook shows it at the end of the cell in any case.

    Returns
    -------
    The two axes, an object array of shape (2,).

    Raises
    ------
    ValueError
        If the model gives no distribution of counts, or `ax` holds the wrong number of axes.

    References
    ----------
    Czado, Gneiting and Held, Predictive model assessment for count data, Biometrics 65:1254 (2009).

    Examples
    --------
    >>> axes = h2s.pl.calibration(evaluation)
    """
    import matplotlib.pyplot as plt

    result = as_evaluation(evaluation)
    if not result.results["counts"].get("model"):
        raise ValueError(not_counts(result))
    size = figure_size(ax, figsize, (8.6, 3.8))
    if ax is None:
        _, ax = plt.subplots(1, 2, figsize=size, layout="constrained")
    axes = np.asarray(ax, dtype=object).ravel()
    if len(axes) != 2:
        raise ValueError(f"Expected two axes in `ax`, for coverage and for the transform; found {len(axes)}.")
    left, right = (new_axes(one) for one in axes)
    left.plot([0, 100], [0, 100], color="0.35", linestyle="--", linewidth=1, label="calibrated", zorder=0)
    lowest = 50.0
    for name, (marker, style) in STYLES.items():
        scores = result.results["counts"].get(name)
        if not scores:
            continue
        nominal = [float(level) for level in scores["coverage"]]
        covered = [100 * value for value in scores["coverage"].values()]
        thick = 2.2 if name == "model" else 1.5
        draw: dict[str, Any] = {"color": COLORS[name], "linestyle": style, "linewidth": thick}
        lowest = min(lowest, *covered)
        above = 3 if name == "model" else 2
        left.plot(nominal, covered, marker=marker, markersize=6, label=LABELS[name], zorder=above, **draw)
        density = np.array(scores["pit"], dtype=float) * len(scores["pit"])
        label = f"{LABELS[name]}, distance {number(scores['pit_distance'])}"
        edges = np.linspace(0, 1, len(density) + 1)
        if name == "model":
            right.bar(edges[:-1], density, np.diff(edges), align="edge", color=COLORS[name], alpha=0.4, label=label)
        else:
            right.stairs(density, edges, baseline=None, label=label, **draw)
    left.set(xlabel="nominal coverage, %", ylabel="counts within the interval, %")
    left.set(xlim=(46, 99), ylim=(max(0, lowest - 4), 102), xticks=[50, 80, 95])
    right.axhline(1, color="0.35", linestyle="--", linewidth=1, label="calibrated")
    right.set(xlabel="probability integral transform, randomized", ylabel="density", xlim=(0, 1))
    right.set_ylim(0, max(1.3, right.get_ylim()[1] * 1.02))
    for one in (left, right):
        one.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3)
    finish(left, save, show)
    return axes
