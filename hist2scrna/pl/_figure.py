"""What all plots share: where the numbers come from, colors of the predictors, axes and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hist2scrna.evaluation.predictors import NOISE_CEILING, PREDICTOR_LABELS
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.files import replaced_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Size = tuple[float, float]
SIZE = (5.0, 3.2)
# Okabe and Ito's blue, orange and green, told apart by all; the mean baseline, which has no say, is gray.
COLORS = {"model": "#0072B2", "mean_baseline": "0.45", "depth_baseline": "#E69F00", "true_means": "#009E73"}
CEILING = "black"
LABELS = {**PREDICTOR_LABELS, "noise_ceiling": NOISE_CEILING}


def as_evaluation(source: Any) -> Evaluation:
    """Return an :class:`~hist2scrna.evaluation.Evaluation`, or read one from the path of its JSON.

    Raises
    ------
    TypeError
        If it is neither.
    FileNotFoundError
        If there is no such file.
    """
    if isinstance(source, Evaluation):
        return source
    if not isinstance(source, str | Path):
        raise TypeError(
            f"Expected an Evaluation, as tl.evaluate returns, or the path of its JSON; found {type(source).__name__}."
        )
    return Evaluation.from_json(source)


def plot_data(evaluation: Evaluation, name: str, otherwise: str) -> Any:
    """Return a part of `evaluation.plot_data`.

    Raises
    ------
    ValueError
        If it is not there; `otherwise` tells why, and what to call.
    """
    if not evaluation.plot_data:
        raise ValueError("This evaluation holds no data for plots: an older version wrote it. Call tl.evaluate again.")
    if not evaluation.plot_data.get(name):
        raise ValueError(otherwise)
    return evaluation.plot_data[name]


def figure_size(ax: Any, figsize: Size | None, otherwise: Size) -> Size:
    """Return width and height of a new figure in inches: those that were asked for, else those that suit the plot.

    Raises
    ------
    ValueError
        If there are axes to draw in, whose figure has a size already.
    """
    if ax is not None and figsize is not None:
        raise ValueError(f"Pass `ax` or `figsize`, not both: the figure of `ax` has its size; found {figsize}.")
    return otherwise if figsize is None else figsize


def new_axes(ax: Axes | None, figsize: Size | None = None, otherwise: Size = SIZE) -> Axes:
    """Return the axes, or those of a new figure; without a frame above and on the right."""
    import matplotlib.pyplot as plt

    size = figure_size(ax, figsize, otherwise)
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def not_counts(evaluation: Evaluation) -> str:
    """Say why there is no predicted distribution of counts, and what to call."""
    reasons = [why for part, why in evaluation.results["not_scored"].items() if "zeros" in part]
    return (
        f"No distribution of counts was scored{': ' * bool(reasons)}{'; '.join(reasons)}. Call "
        "tl.evaluate(adata, model) with a model that predicts counts (likelihood 'zinb', 'nb' or 'poisson')."
    )


def not_typed(evaluation: Evaluation) -> str:
    """Say why no cell types were scored, and what to call."""
    why = evaluation.results["not_scored"].get("cell types", "the model predicts none, or no labels_key= was given")
    return (
        f"No cell types were scored: {why}. Call tl.evaluate(adata, model, labels_key=), the column of adata.obs with "
        "the true types, with a model that was trained on labels."
    )


def finish(ax: Axes, save: str | Path | None, show: bool) -> None:
    """Write the figure of `ax`, at 150 dpi where the format has pixels, and show it, where these were asked for."""
    import matplotlib.pyplot as plt

    if save is not None:
        figure = ax.get_figure(root=True)
        assert figure is not None
        path = Path(save)
        if not path.suffix:
            path = path.with_name(f"{path.name}.{plt.rcParams['savefig.format']}")
        with replaced_whole(path) as scratch:
            figure.savefig(scratch, dpi=150, bbox_inches="tight")
    if show:
        plt.show()
