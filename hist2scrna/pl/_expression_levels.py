"""Scores of genes of low, medium and high expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.evaluation.scores import with_average
from hist2scrna.messages import require_known
from hist2scrna.pl._figure import CEILING, COLORS, LABELS, as_evaluation, finish, new_axes

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hist2scrna.evaluation.result import Evaluation


def expression_levels(
    evaluation: Evaluation | str | Path,
    *,
    metric: str = "pearson",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> Axes:
    """Draw the scores of genes with low, medium and high mean counts in training, next to those of the baselines.

    Parameters
    ----------
    evaluation
        What :func:`hist2scrna.tl.evaluate` returned, or the path of its JSON.
    metric
        `"pearson"` (with the noise ceiling as a black line), `"spearman"`, `"depth_partial"`, `"spread_ratio"`,
        `"mae"` or `"mse"`, on log-normalized expression.
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
        If there is no such metric.

    Examples
    --------
    >>> ax = h2s.pl.expression_levels(evaluation, metric="depth_partial")
    """
    from matplotlib.patheffects import withStroke

    results = as_evaluation(evaluation).results
    metrics = with_average()
    require_known("metric", metric, metrics)
    score = metrics[metric]
    levels = {name: values for name, values in results["levels"].items() if values["n_genes"]}
    # By Pearson, the true means of a simulation are the ceiling.
    shown = [name for name in COLORS if name != "true_means" or metric != "pearson"]
    predictors = [name for name in shown if all(name in values for values in levels.values())]
    ax = new_axes(ax, figsize, (5.6, 3.8))
    places, width = np.arange(len(levels)), 0.8 / len(predictors)
    for i, name in enumerate(predictors):
        scores = [values[name].get(f"{metric}_{score.quoted}") for values in levels.values()]
        heights = np.array([np.nan if value is None else value for value in scores], dtype=float)
        x = places - 0.4 + (i + 0.5) * width
        bars = ax.bar(x, heights, 0.92 * width, color=COLORS[name], label=LABELS[name])
        texts = ax.bar_label(bars, ["-" if np.isnan(h) else f"{h:.2f}" for h in heights], fontsize=8, padding=2)
        for text in texts:
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    if metric == "pearson":
        ceiling = np.array([values["noise_ceiling"] for values in levels.values()], dtype=float)
        line: dict[str, Any] = {"color": CEILING, "linewidth": 2, "linestyle": "--", "label": LABELS["noise_ceiling"]}
        ax.hlines(ceiling, places - 0.42, places + 0.42, zorder=0, **line)
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.set_xticks(places, [f"{name}\n{values['n_genes']:,} genes" for name, values in levels.items()])
    ax.set(ylabel=score.title(score.quoted), xlabel="mean count in training, by tertile")
    if results["baselines"]["fitted_on"] != "training":
        ax.set_xlabel("mean count in the scored spots, by tertile")
    ax.margins(y=0.12)
    ax.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3)
    finish(ax, save, show)
    return ax
