"""How well single genes are predicted, with the baselines and the noise ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.evaluation.plain import number
from hist2scrna.pl._figure import CEILING, COLORS, LABELS, as_evaluation, finish, new_axes

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hist2scrna.evaluation.result import Evaluation

MOST_BINS = 40


def gene_correlation(
    evaluation: Evaluation | str | Path,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> Axes:
    """Draw the distribution of Pearson over the genes, with the baselines and the noise ceiling.

    Bars show the model. Outlines show the same genes for the depth baseline and for the noise ceiling, which is what
    the best prediction could reach given the noise of the counts. Vertical lines are the means in the headline of the
    evaluation. Genes that are constant in the truth have no correlation and are left out.

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
        If no gene varies.

    Examples
    --------
    >>> ax = h2s.pl.gene_correlation(evaluation, save="genes.png")
    """
    result = as_evaluation(evaluation)
    table, head = result.genes, result.headline
    values = table["pearson"].dropna().to_numpy(dtype=float)
    if len(values) == 0:
        raise ValueError("No gene varies over the scored spots, so none has a correlation. Evaluate more spots.")
    ax = new_axes(ax, figsize, (5.6, 3.8))
    others = {"depth_baseline": table["depth_baseline_pearson"], "noise_ceiling": table["noise_ceiling"]}
    columns = {name: column.dropna().to_numpy(dtype=float) for name, column in others.items()}
    every = np.concatenate([values, *columns.values()])
    low, high = float(every.min()), float(every.max())
    n_bins = int(np.clip(np.sqrt(len(values)) * 1.5, 10, MOST_BINS))
    edges = np.linspace(low, high if high > low else low + 0.1, n_bins + 1).tolist()
    ax.hist(values, bins=edges, color=COLORS["model"], alpha=0.55, edgecolor="white", linewidth=0.4)
    for name, column in columns.items():
        color = CEILING if name == "noise_ceiling" else COLORS[name]
        ax.hist(column, bins=edges, histtype="step", color=color, linewidth=1.4)
    lines = [
        ("mean_baseline", "mean_baseline", ":"),
        ("depth_baseline", "depth_baseline", "-."),
        ("pearson", "model", "-"),
    ]
    for key, name, style in [*lines, ("noise_ceiling", "noise_ceiling", "--")]:
        if head[key] is not None:
            color = CEILING if name == "noise_ceiling" else COLORS[name]
            label = f"{LABELS[name]}, mean {number(head[key])}"
            ax.axvline(head[key], color=color, linestyle=style, linewidth=2, label=label)
    ax.set(xlabel=f"Pearson over the spots of {_sections(result)}", ylabel=f"genes, of {len(values):,}")
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3)
    finish(ax, save, show)
    return ax


def _sections(evaluation: Evaluation) -> str:
    names = list(evaluation.results["sections"])
    return names[0] if len(names) == 1 else f"{len(names)} sections, averaged"
