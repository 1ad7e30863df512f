"""All plots of an evaluation as images inside the page, and the reason for each that cannot be drawn."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna import pl
from hist2scrna.evaluation.plain import at, number
from hist2scrna.messages import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hist2scrna.evaluation.result import Evaluation
    from hist2scrna.trained.model import TrainedModel

# An SVG stays sharp at any size; one of thousands of points, or of tissue, is larger than its pixels.
LARGEST_SVG = 200_000
PIXELS_PER_INCH, WEBP_QUALITY = 160, 90


@dataclass(frozen=True)
class Plot:
    """A plot of `pl`: its name there, heading, how to read it, what it shows in words, whether it needs the width."""

    name: str
    heading: str
    caption: str
    alt: Callable[[dict[str, Any]], str]
    wide: bool = False


def _alt_genes(results: dict[str, Any]) -> str:
    head = results["headline"]
    return (
        f"Distribution over {results['data']['n_genes']:,} genes of Pearson: mean {number(head['pearson'])} for the "
        f"model, {number(head['depth_baseline'])} for the depth baseline, {number(head['mean_baseline'])} for the mean "
        f"baseline; the noise ceiling is {number(head['noise_ceiling'])}."
    )


def _alt_scatter(results: dict[str, Any]) -> str:
    overall = results["scores"]["log_normalized"]["model"]["overall"]
    return (
        f"Scatter of predicted against measured log-normalized expression: R2 {number(overall['r2'])}, "
        f"RMSE {number(overall['rmse'])}."
    )


def _alt_zeros(results: dict[str, Any]) -> str:
    zeros = results["zeros"].get("model", {})
    return (
        f"Predicted against observed share of zeros by gene; overall {percent(zeros.get('predicted_zero_rate'))} are "
        f"predicted and {percent(zeros.get('observed_zero_rate'))} observed."
    )


def _alt_levels(results: dict[str, Any]) -> str:
    scores = {level: number(at(value, ("model", "pearson_mean"))) for level, value in results["levels"].items()}
    return "Mean Pearson of genes by level of expression: " + ", ".join(f"{k} {v}" for k, v in scores.items()) + "."


def _alt_calibration(results: dict[str, Any]) -> str:
    coverage = at(results["counts"], ("model", "coverage")) or {}
    shares = ", ".join(f"{percent(value)} of counts in {level} % intervals" for level, value in coverage.items())
    return f"Two panels: coverage of intervals, and histogram of the probability integral transform. {shares}."


def _alt_types(results: dict[str, Any]) -> str:
    types = results["cell_types"]
    return f"Confusion matrix of {len(types['classes'])} cell types; {percent(types['accuracy'])} of spots are right."


def _alt_reliability(results: dict[str, Any]) -> str:
    error = results["cell_types"]["expected_calibration_error"]
    return f"Accuracy of the cell types by confidence; expected calibration error {number(error)}."


PLOTS = (
    Plot(
        "gene_correlation",
        "Correlation of genes",
        "Bars are genes by the Pearson of the model. Outlines are the same genes by the depth baseline, and at the "
        "noise ceiling. Genes to the right of the depth baseline gain from the image; the noise ceiling is the highest "
        "Pearson that counts of this depth allow.",
        _alt_genes,
    ),
    Plot(
        "scatter",
        "Prediction against truth",
        "Each point is one gene in one spot, drawn at random. On the dashed line both are equal. Genes differ far more "
        "from each other than spots do, so that gene means alone score high here: compare with the numbers in the "
        "title.",
        _alt_scatter,
    ),
    Plot(
        "expression_levels",
        "By level of expression",
        "Genes in thirds by their mean count in the training data. Genes with few counts are noisier, and their noise "
        "ceiling is lower: compare each level with its own noise ceiling and baselines.",
        _alt_levels,
    ),
    Plot(
        "zero_inflation",
        "Zeros",
        "Each point is a gene: its share of spots without a count, and the mean of the predicted P(X = 0). Below the "
        "dashed line the model expects fewer zeros than there are.",
        _alt_zeros,
    ),
    Plot(
        "calibration",
        "Calibration of counts",
        "Left: the share of counts within the predicted 50, 80 and 95 % intervals; below the dashed line the "
        "prediction is overconfident. Right: the probability integral transform, which is flat if the distribution is "
        "right. A U shape means too narrow, a hump too wide, a slope biased.",
        _alt_calibration,
        wide=True,
    ),
    Plot(
        "ranked_genes",
        "Best and worst genes",
        "Measured and predicted expression of the genes with the highest Pearson (left) and the lowest (right). Each "
        "panel has its own color scale, so compare patterns; the spread in the title tells how far the prediction "
        "varies.",
        lambda results: "Maps of measured and predicted expression of the genes with the highest and lowest Pearson.",
        wide=True,
    ),
    Plot(
        "confusion_matrix",
        "Confusion of cell types",
        "Rows are true types, columns are predicted types. Numbers are spots, colors their share of the row. Errors "
        "lie off the diagonal.",
        _alt_types,
    ),
    Plot(
        "reliability",
        "Confidence in cell types",
        "Each bar is the accuracy of the spots within a range of confidence, the dot their mean confidence. A bar that "
        "ends below its dot is overconfident.",
        _alt_reliability,
    ),
)
HISTORY = Plot(
    "history",
    "Training",
    "Loss over the epochs, and the epoch that was kept. A validation loss that rises while the training loss falls "
    "shows overfitting.",
    lambda results: "Training and validation loss over the epochs, with the best epoch marked.",
    wide=True,
)

PENALTIES = Plot(
    "history",
    "Penalty",
    "The model has no epochs: it is solved in closed form, once for each penalty, and tried on spots left out in turn. "
    "The star is the penalty with the lowest error. If it lies at the right end of the curve, or the curve is flat, "
    "the image tells little of the spots left out.",
    lambda results: "Error on the spots left out by penalty, with the lowest marked.",
    wide=True,
)


def draw_all(evaluation: Evaluation, history: TrainedModel | pd.DataFrame | None) -> dict[str, dict[str, Any]]:
    """Return, by name of the plot, what the page shows: `heading`, `caption`, `wide`, and `source`, `alt` or `reason`.

    Parameters
    ----------
    evaluation
        What to draw.
    history
        A model or its history; None: there is no such plot.
    """
    figures = {plot.name: _figure(plot, evaluation, evaluation.results) for plot in PLOTS}
    if history is not None:
        table = history if isinstance(history, pd.DataFrame) else history.history
        plot = PENALTIES if "penalty" in table else HISTORY
        figures[plot.name] = _figure(plot, history, evaluation.results)
    return figures


def _figure(plot: Plot, drawn: Any, results: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"heading": plot.heading, "caption": plot.caption, "wide": plot.wide, "reason": None}
    with own_figures() as close:
        try:
            axes = getattr(pl, plot.name)(drawn)
        except ValueError as error:
            return {**shown, "reason": str(error)}
        figure = np.ravel(np.asarray(axes, dtype=object))[0].get_figure(root=True)
        source = embedded(figure)
        close(figure)
    return {**shown, "source": source, "alt": plot.alt(results)}


@contextmanager
def own_figures() -> Iterator[Callable[[Any], None]]:
    """Draw without windows, in Matplotlib's own style, and leave the figures and settings of the caller as they are."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    with mpl.rc_context(), warnings.catch_warnings(), plt.ioff():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        mpl.rcdefaults()
        mpl.rcParams["svg.hashsalt"] = "hist2scrna"
        try:
            yield plt.close
        finally:
            for extra in set(plt.get_fignums()) - before:
                plt.close(extra)


def embedded(figure: Figure) -> str:
    """Return the figure on white as a data URI: SVG if that is small, else WebP. Equal figures give equal text."""
    options: dict[str, Any] = {"facecolor": "white", "bbox_inches": "tight"}
    vector, pixels = io.BytesIO(), io.BytesIO()
    figure.savefig(vector, format="svg", metadata={"Date": None}, **options)
    if vector.tell() <= LARGEST_SVG:
        return "data:image/svg+xml;base64," + base64.b64encode(vector.getvalue()).decode()
    figure.savefig(pixels, format="webp", dpi=PIXELS_PER_INCH, pil_kwargs={"quality": WEBP_QUALITY}, **options)
    return "data:image/webp;base64," + base64.b64encode(pixels.getvalue()).decode()
