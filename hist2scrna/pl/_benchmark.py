"""Models of a benchmark side by side, with the baselines and the noise ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna.benchmarking.files import JOBS
from hist2scrna.benchmarking.table import COMPLETE, by_split, t_interval
from hist2scrna.evaluation.predictors import BASELINES, NOISE_CEILING, PREDICTOR_LABELS
from hist2scrna.evaluation.scores import benchmark_columns
from hist2scrna.messages import require_known
from hist2scrna.pl._figure import CEILING as CEILING_COLOR
from hist2scrna.pl._figure import COLORS, Size, figure_size, finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Columns of a benchmark that are no score of the evaluation's table.
OTHER_METRICS = {
    "score_over_ceiling": "Pearson over noise ceiling",
    "beats_depth_baseline": "share of genes better than the depth baseline",
    "fit_seconds": "seconds to fit",
    "peak_memory_mib": "peak memory (MiB)",
}
REFERENCES = {
    **{PREDICTOR_LABELS[name]: (COLORS[name], style) for name, style in zip(BASELINES, (":", "-."), strict=True)},
    NOISE_CEILING: (CEILING_COLOR, "--"),
}
WIDTH, ROW_INCHES = 6.4, 0.42


def metrics() -> dict[str, str]:
    """Return the columns that can be drawn, with their labels."""
    scores = {name: score.title(score.quoted, level) for name, (score, level) in benchmark_columns().items()}
    return scores | OTHER_METRICS


def benchmark(
    results: str | Path | pd.DataFrame,
    *,
    metric: str = "pearson",
    ax: Axes | Sequence[Axes] | NDArray[Any] | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> NDArray[Any]:
    """Draw each model's score in every fold, its mean with an interval, the baselines and the noise ceiling.

    Parameters
    ----------
    results
        Folder of a benchmark; or its `jobs.csv` as a data frame; or what :func:`hist2scrna.tl.benchmark` returned,
        while its folder is there.
    metric
        Column of the jobs: `"pearson"`, `"depth_partial"`, `"spread_ratio"`, `"log_likelihood"`, `"coverage_80"` or
        another score; `"score_over_ceiling"`, `"beats_depth_baseline"`, `"fit_seconds"` or `"peak_memory_mib"`.
    ax
        One axes per data set, and per split where several were given; None: a new figure, with these below each other.
    figsize
        Width and height of the new figure in inches; None: what suits the plot.
    save
        Path of a file to write the figure to; its suffix selects the format. None: it is not written.
    show
        Show the figure at once. A notebook shows it at the end of the cell in any case.

    Returns
    -------
    Object array with one axes per data set and split. A dot is the mean over the seeds of a fold, or of a test section
    of a given split; where there are several seeds, a thin line spans them. The diamond is the mean over folds with its
    95 % interval (Student's t), which may reach beyond the axes. Open dots are collapsed predictions, which hardly
    vary: their correlations mean nothing. Vertical lines are the means over folds of the baselines and of the noise
    ceiling.

    Raises
    ------
    FileNotFoundError
        If the folder holds no benchmark.
    TypeError
        If `results` is neither folder nor data frame.
    ValueError
        If there is no such metric, the data frame has no jobs, or `ax` holds the wrong number of axes.

    Examples
    --------
    >>> models = {"ridge": {"model": "ridge", "encoder": "morphology"}}
    >>> table = h2s.tl.benchmark(train, models, folder="benchmark", folds=["section_0"], progress=False)
    >>> ax = h2s.pl.benchmark("benchmark", metric="depth_partial")
    """
    labels = metrics()
    require_known("metric", metric, labels)
    jobs = _read_jobs(results)
    seen: list[float] = []
    parts = by_split(jobs)
    axes = _axes(ax, figsize, [part.loc[part["kind"] == "model", "model"].nunique() for part in parts.values()])
    for one, (title, part) in zip(axes, parts.items(), strict=True):
        seen += _draw(one, part, metric)
        one.set_title(title, fontsize=11, loc="left")
    if seen:
        margin = 0.15 * (max(seen) - min(seen)) or 0.1
        for one in axes:
            one.set_xlim(min(seen) - margin, max(seen) + margin)
    axes[-1].set_xlabel(labels[metric])
    handles: dict[str, Any] = {}
    for one in axes:
        lines, names = one.get_legend_handles_labels()
        handles |= dict(zip(names, lines, strict=True))
    if handles and ax is None:
        figure = axes[0].get_figure(root=True)
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper right", ncols=len(handles), frameon=False, fontsize=8
        )
    finish(axes[0], save, show)
    return axes


def _read_jobs(results: Any) -> pd.DataFrame:
    if isinstance(results, pd.DataFrame):
        if "fold" in results:
            jobs = results
        elif "folder" in results.attrs:
            return _read_jobs(results.attrs["folder"])
        else:
            raise ValueError(
                f"Expected the jobs of a benchmark, one row each with a 'fold'; found columns {list(results)[:8]}. "
                "Pass the folder of the benchmark."
            )
    elif isinstance(results, str | Path):
        path = Path(results) / f"{JOBS}.csv"
        if not path.is_file():
            raise FileNotFoundError(f"No '{path}': give the folder of a benchmark, as tl.benchmark writes it.")
        jobs = pd.read_csv(path)
    else:
        raise TypeError(f"Expected the folder of a benchmark or a data frame, found {type(results).__name__}.")
    if jobs.empty:
        raise ValueError("The benchmark has no jobs.")
    return jobs


def _axes(ax: Any, figsize: Size | None, n_models: list[int]) -> NDArray[Any]:
    import matplotlib.pyplot as plt

    heights = [ROW_INCHES * n + 0.5 for n in n_models]
    size = figure_size(ax, figsize, (WIDTH, sum(heights) + 0.7))
    if ax is not None:
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != len(n_models):
            raise ValueError(f"Expected one axes for each of {len(n_models)} data sets in `ax`, found {len(axes)}.")
        return axes
    _, grid = plt.subplots(
        len(n_models),
        figsize=size,
        height_ratios=heights,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    return grid[:, 0]


def _draw(ax: Axes, part: pd.DataFrame, metric: str) -> list[float]:
    """Draw one data set; returns the values that must be in sight."""
    part = part.assign(value=pd.to_numeric(part[metric], errors="coerce"))
    of_models = part[part["kind"] == "model"]
    names = list(dict.fromkeys(of_models["model"]))
    seen: list[float] = []
    for name, (color, style) in REFERENCES.items():
        reference = part.loc[part["model"] == name, "value"].dropna()
        if len(reference):
            ax.axvline(reference.mean(), color=color, linestyle=style, linewidth=1.5, label=name, zorder=0)
            seen.append(float(reference.mean()))
    for place, name in enumerate(names):
        jobs = of_models[of_models["model"] == name]
        scored = jobs[jobs["status"] == COMPLETE].dropna(subset="value")
        if scored.empty:
            _write(ax, place, "failed" if (jobs["status"] != COMPLETE).all() else "not defined")
        else:
            seen += _draw_model(ax, place, scored)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return seen


def _draw_model(ax: Axes, place: int, scored: pd.DataFrame) -> list[float]:
    """Draw the folds of one model, and below them their mean with its interval."""
    folds = scored.groupby("fold", sort=False).agg(
        value=("value", "mean"), low=("value", "min"), high=("value", "max"), collapsed=("collapsed", "max")
    )
    values, flat = folds["value"].to_numpy(dtype=float), folds["collapsed"].astype(bool).to_numpy()
    y = place + (np.linspace(-0.3, -0.02, len(folds)) if len(folds) > 1 else np.full(1, -0.12))
    color = COLORS["model"]
    ax.hlines(y, folds["low"], folds["high"], color=color, linewidth=0.8, alpha=0.5)
    ax.scatter(values[~flat], y[~flat], s=16, color=color, linewidths=0, label="fold")
    if flat.any():
        ax.scatter(values[flat], y[flat], s=18, facecolors="white", edgecolors=color, label="collapsed")
    low, high = t_interval(values)
    if np.isfinite([low, high]).all():
        ax.hlines(place + 0.2, low, high, color="black", linewidth=1.6, zorder=3)
    ax.plot(
        values.mean(),
        place + 0.2,
        linestyle="none",
        marker="D",
        markersize=6,
        color="black",
        markeredgecolor="white",
        zorder=4,
        label="mean, 95 % interval",
    )
    return [*folds["low"], *folds["high"]]


def _write(ax: Axes, place: int, text: str) -> None:
    from matplotlib.patheffects import withStroke

    label = ax.text(0.01, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8, color="0.3")
    label.set_path_effects([withStroke(linewidth=3, foreground="white")])
