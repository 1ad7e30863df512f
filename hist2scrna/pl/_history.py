"""How a model was fitted: losses over the epochs, or errors over the penalties that were tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna.pl._figure import finish, new_axes

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hist2scrna.trained.model import TrainedModel

# Okabe and Ito's blue and vermilion.
STAGES = {"train": ("training", "#0072B2", "o"), "validation": ("validation", "#D55E00", "s")}
PENALTY, VALIDATION = "penalty", "validation_loss"


def history(
    history_or_model: pd.DataFrame | TrainedModel,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> Axes:
    """Draw training and validation loss over the epochs, or of a model in closed form, the error over its penalties.

    Models in closed form (`kernel`, `ridge`) have no epochs: they are solved once for each penalty, and tried on spots
    that were left out. Of `kernel`, the error is the mean squared one of library size and gene programs, as a share of
    their variance: at 1, the mean would do as well. There, each output then has the penalty that suits it; the curve is
    that of one penalty for all. Of `ridge`, it is the mean squared error of log-normalized expression.

    Parameters
    ----------
    history_or_model
        A :class:`~hist2scrna.TrainedModel`, or its `.history`: one row per epoch, with `train_loss`, and
        `validation_loss` if there was a validation; or one row per penalty, with `penalty` and `validation_loss`.
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
    The axes. The best row, an epoch or a penalty, is that of the model; of a data frame, that with the lowest
    validation loss (else training loss).

    Raises
    ------
    TypeError
        If it is neither a model nor a data frame.
    ValueError
        If the data frame is empty or has no losses.

    Examples
    --------
    >>> ax = h2s.pl.history(model)
    """
    table, best = _losses(history_or_model)
    ax = new_axes(ax, figsize)
    if PENALTY in table:
        _draw_penalties(ax, table, best)
    else:
        _draw_epochs(ax, table, best)
    ax.legend(facecolor="white", edgecolor="none", framealpha=1)
    finish(ax, save, show)
    return ax


def _draw_epochs(ax: Axes, table: pd.DataFrame, best: float) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = table.index.to_numpy(dtype=float)
    dots = 4 if len(table) <= 30 else 0
    for stage, (label, color, marker) in STAGES.items():
        column = f"{stage}_loss"
        if column in table:
            ax.plot(epochs, table[column], color=color, marker=marker, markersize=dots, linewidth=1.8, label=label)
    loss = float(table[_monitored(table)].loc[best])
    _mark(ax, best, loss, f"best: epoch {best:g}, {loss:.4g}")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_penalties(ax: Axes, table: pd.DataFrame, best: float) -> None:
    _, color, marker = STAGES["validation"]
    ax.plot(table[PENALTY], table[VALIDATION], color=color, marker=marker, markersize=4, label="spots left out")
    penalty, error = (float(table[name].loc[best]) for name in (PENALTY, VALIDATION))
    _mark(ax, penalty, error, f"best: penalty {penalty:.3g}, {error:.4g}")
    ax.set(xscale="log", xlabel="penalty", ylabel="error")


def _mark(ax: Axes, x: float, y: float, label: str) -> None:
    ax.axvline(x, color="0.4", linestyle="--", linewidth=1, zorder=0)
    ax.plot(
        [x],
        [y],
        linestyle="none",
        marker="*",
        markersize=13,
        color="black",
        markeredgecolor="white",
        label=label,
        zorder=3,
    )


def _losses(source: Any) -> tuple[pd.DataFrame, float]:
    table = source if isinstance(source, pd.DataFrame) else getattr(source, "history", None)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"Expected a TrainedModel or its history, a DataFrame; found {type(source).__name__}.")
    complete = {PENALTY, VALIDATION} <= set(table) or "train_loss" in table
    if not complete or table.empty:
        raise ValueError(
            "Expected a row an epoch and a column 'train_loss', or a row a penalty and the columns 'penalty' and "
            f"'validation_loss'; found {len(table)} rows and columns {list(table)}. Pass what tl.fit returned."
        )
    best = None if table is source else source.training.get("best_epoch")
    values = table[_monitored(table)].to_numpy(dtype=float)
    return table, float(table.index[int(np.nanargmin(values))] if best is None else best)


def _monitored(table: pd.DataFrame) -> str:
    has_validation = VALIDATION in table and table[VALIDATION].notna().any()
    return VALIDATION if has_validation else "train_loss"
