"""Losses over the epochs of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna.pl._figure import new_axes, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hist2scrna.trained.model import TrainedModel

# Okabe and Ito's blue and vermilion.
STAGES = {"train": ("training", "#0072B2", "o"), "validation": ("validation", "#D55E00", "s")}


def history(
    history_or_model: pd.DataFrame | TrainedModel, *, ax: Axes | None = None, save: str | Path | None = None
) -> Axes:
    """Draw training and validation loss over the epochs, and mark the best epoch.

    Parameters
    ----------
    history_or_model
        A :class:`~hist2scrna.TrainedModel`, or its `.history`: one row per epoch, with `train_loss`, and
        `validation_loss` if there was a validation.
    ax
        Axes to draw in; None: a new figure.
    save
        Path of a file to write the figure to; its suffix selects the format. None: it is not written.

    Returns
    -------
    The axes. The best epoch is that of the model; of a data frame, that with the lowest validation loss (else training
    loss).

    Raises
    ------
    TypeError
        If it is neither a model nor a data frame.
    ValueError
        If the data frame is empty or has no `train_loss`.

    Examples
    --------
    >>> hist2scrna.pl.history(model, save="history.png")
    """
    from matplotlib.ticker import MaxNLocator

    table, best = _losses(history_or_model)
    ax = new_axes(ax)
    epochs = table.index.to_numpy(dtype=float)
    dots = 4 if len(table) <= 30 else 0
    for stage, (label, color, marker) in STAGES.items():
        column = f"{stage}_loss"
        if column in table:
            ax.plot(epochs, table[column], color=color, marker=marker, markersize=dots, linewidth=1.8, label=label)
    monitored = table[_monitored(table)]
    ax.axvline(best, color="0.4", linestyle="--", linewidth=1, zorder=0)
    ax.plot(
        [best],
        [monitored.loc[best]],
        linestyle="none",
        marker="*",
        markersize=13,
        color="black",
        markeredgecolor="white",
        label=f"best: epoch {best:g}, {monitored.loc[best]:.4g}",
        zorder=3,
    )
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(facecolor="white", edgecolor="none", framealpha=1)
    save_figure(ax, save)
    return ax


def _losses(source: Any) -> tuple[pd.DataFrame, float]:
    table = source if isinstance(source, pd.DataFrame) else getattr(source, "history", None)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"Expected a TrainedModel or its history, a DataFrame; found {type(source).__name__}.")
    if "train_loss" not in table or table.empty:
        raise ValueError(
            f"Expected a row an epoch and a column 'train_loss'; found {len(table)} rows and columns {list(table)}."
        )
    best = None if table is source else source.training.get("best_epoch")
    values = table[_monitored(table)].to_numpy(dtype=float)
    return table, float(table.index[int(np.nanargmin(values))] if best is None else best)


def _monitored(table: pd.DataFrame) -> str:
    has_validation = "validation_loss" in table and table["validation_loss"].notna().any()
    return "validation_loss" if has_validation else "train_loss"
