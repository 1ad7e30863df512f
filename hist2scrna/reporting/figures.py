"""All plots of an evaluation as pictures inside the page, and the reason for each that cannot be drawn."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import pl
from hist2scrna.evaluation.plain import at, number, percent

if TYPE_CHECKING:
    import pandas as pd
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


def _alt_genes(found: dict[str, Any]) -> str:
    head = found["headline"]
    return (
        f"Distribution over {found['data']['n_genes']:,} genes of Pearson: mean {number(head['pearson'])} for the "
        f"model, {number(head['depth_baseline'])} for the depth baseline, {number(head['mean_baseline'])} for the mean "
        f"baseline; the ceiling is {number(head['noise_ceiling'])}."
    )


def _alt_scatter(found: dict[str, Any]) -> str:
    overall = found["scores"]["log_normalized"]["model"]["overall"]
    return (
        f"Scatter of predicted against measured log-normalized expression: R2 {number(overall['r2'])}, "
        f"RMSE {number(overall['rmse'])}."
    )


def _alt_zeros(found: dict[str, Any]) -> str:
    zeros = found["zeros"].get("model", {})
    return (
        f"Predicted against observed share of zeros by gene; overall {percent(zeros.get('predicted_zero_rate'))} are "
        f"predicted and {percent(zeros.get('observed_zero_rate'))} observed."
    )


def _alt_levels(found: dict[str, Any]) -> str:
    scores = {level: number(at(value, ("model", "pearson_mean"))) for level, value in found["levels"].items()}
    return "Mean Pearson of genes by level of expression: " + ", ".join(f"{k} {v}" for k, v in scores.items()) + "."


def _alt_calibration(found: dict[str, Any]) -> str:
    coverage = at(found["counts"], ("model", "coverage")) or {}
    said = ", ".join(f"{percent(value)} of counts in {level} % intervals" for level, value in coverage.items())
    return f"Two panels: coverage of intervals, and histogram of the probability integral transform. {said}."


def _alt_types(found: dict[str, Any]) -> str:
    types = found["cell_types"]
    return f"Confusion matrix of {len(types['classes'])} cell types; {percent(types['accuracy'])} of spots are right."


def _alt_reliability(found: dict[str, Any]) -> str:
    error = found["cell_types"]["expected_calibration_error"]
    return f"Accuracy of the cell types by confidence; expected calibration error {number(error)}."


PLOTS = (
    Plot(
        "gene_correlation",
        "Correlation of genes",
        "Bars: genes by the Pearson of the model. Outlines: the same genes by the depth baseline, and at the ceiling. "
        "What lies right of the depth baseline is what the picture adds; the ceiling is as far as counts of this depth "
        "let any prediction come.",
        _alt_genes,
    ),
    Plot(
        "scatter",
        "Prediction against truth",
        "A point is one gene in one spot, drawn at random. On the dashed line both are equal. Genes differ far more "
        "from each other than spots do, so that gene means alone score high here: compare with the number in the "
        "title.",
        _alt_scatter,
    ),
    Plot(
        "expression_levels",
        "By level of expression",
        "Genes in thirds by their mean in the training data. Rare genes are noisier, and their ceiling is lower: "
        "compare a level with its own ceiling and baselines.",
        _alt_levels,
    ),
    Plot(
        "zero_inflation",
        "Zeros",
        "A point is a gene: its share of spots without a count, and the mean of P(X = 0). Below the dashed line the "
        "model expects fewer zeros than there are.",
        _alt_zeros,
    ),
    Plot(
        "calibration",
        "Calibration of counts",
        "Left: how many counts lie within the interval that promises 50, 80 or 95 %; below the dashed line a "
        "prediction is too sure of itself. Right: the probability integral transform, flat where the distribution is "
        "right; a U is too narrow, a hump too wide, a slope biased.",
        _alt_calibration,
        wide=True,
    ),
    Plot(
        "ranked_genes",
        "Best and worst genes",
        "Measured beside predicted; left the genes of highest Pearson, right those of lowest. Each panel has colors "
        "of its own, so compare patterns: how far the prediction varies is the spread in the title.",
        lambda found: "Maps of measured and predicted expression of the genes with the highest and lowest Pearson.",
        wide=True,
    ),
    Plot(
        "confusion_matrix",
        "Confusion of cell types",
        "A row is a true type, a column a predicted one; numbers are spots, colors their share of the row. Errors "
        "lie off the diagonal.",
        _alt_types,
    ),
    Plot(
        "reliability",
        "Confidence in cell types",
        "A bar is the accuracy of the spots of that confidence, the dot their mean confidence. A bar that ends below "
        "its dot is too sure of itself.",
        _alt_reliability,
    ),
)
HISTORY = Plot(
    "history",
    "Training",
    "Loss over the epochs, and the epoch that was kept. Validation that rises while training falls is overfitting.",
    lambda found: "Training and validation loss over the epochs, with the best epoch marked.",
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
        figures[HISTORY.name] = _figure(HISTORY, history, evaluation.results)
    return figures


def _figure(plot: Plot, drawn: Any, found: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"heading": plot.heading, "caption": plot.caption, "wide": plot.wide, "reason": None}
    with _own_figures() as close:
        try:
            axes = getattr(pl, plot.name)(drawn)
        except ValueError as error:
            return {**shown, "reason": str(error)}
        figure = np.ravel(np.asarray(axes, dtype=object))[0].get_figure(root=True)
        source = _embedded(figure)
        close(figure)
    return {**shown, "source": source, "alt": plot.alt(found)}


@contextmanager
def _own_figures() -> Iterator[Callable[[Any], None]]:
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


def _embedded(figure: Figure) -> str:
    """Return the figure on white as a data URI: SVG if that is small, else WebP. Equal figures give equal text."""
    options: dict[str, Any] = {"facecolor": "white", "bbox_inches": "tight"}
    vector, pixels = io.BytesIO(), io.BytesIO()
    figure.savefig(vector, format="svg", metadata={"Date": None}, **options)
    if vector.tell() <= LARGEST_SVG:
        return "data:image/svg+xml;base64," + base64.b64encode(vector.getvalue()).decode()
    figure.savefig(pixels, format="webp", dpi=PIXELS_PER_INCH, pil_kwargs={"quality": WEBP_QUALITY}, **options)
    return "data:image/webp;base64," + base64.b64encode(pixels.getvalue()).decode()
