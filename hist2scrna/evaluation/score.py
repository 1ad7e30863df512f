"""One metric: what it is called, how it is computed, where it is shown, and where its numbers stand in the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hist2scrna.evaluation.plain import at
from hist2scrna.evaluation.predictors import HEADLINE, SCALES, Scale

Scope = Literal["gene", "spot", "overall", "gene counts", "counts", "zeros", "cell types", "clusters", "spatial"]


@dataclass(frozen=True)
class Score:
    """One metric.

    Attributes
    ----------
    name
        Its name in JSON, tables and arguments.
    label
        How it is called in tables and plots. `{level}` stands for each of `levels`.
    of
        What it is a score of, which is also what `function` takes:

        - `"gene"`, `"spot"`: :class:`~hist2scrna.metrics.correlation.Rows`; returns `(k,)`, one number per row.
        - `"overall"`: :class:`~hist2scrna.metrics.errors.Overall`; returns a number.
        - `"gene counts"`: :class:`~hist2scrna.metrics.likelihood.CountBlock`; returns `(genes,)`.
        - `"counts"`: :class:`~hist2scrna.metrics.calibration.CountTally`; returns a number, or one for each level.
        - `"zeros"`: :class:`~hist2scrna.metrics.zeros.ZeroTally`; returns a number.
        - `"cell types"`: :class:`~hist2scrna.metrics.labels.LabeledSpots`; returns a number.
        - `"clusters"`: two arrays of cluster numbers; returns a number.
        - `"spatial"`: values `(spots, genes)` and neighbor weights; returns `(genes,)`.
    function
        Computes it.
    better
        Whether higher or lower values are better; None: neither.
    summaries
        Averages over all genes or spots that are kept; the first is quoted.
    scales
        Scales on which it is computed, of a gene or overall.
    shown
        Where tables show it: by scale, the averages (`""` for a number that is no average). None: the quoted average on
        log-normalized expression. Other scopes have no scale: an empty mapping hides them, anything else shows them.
    levels
        Keys of its parts, if it has several.
    headline
        Quote it in the headline and for each section.
    interval
        Give it an interval: in `compare`, and over the folds of a benchmark.
    against_baselines
        Compare it with that of the baselines, gene by gene.
    noise_ceilings
        By scale, the entry of `results["noise_ceiling"]` that bounds it.
    column
        Its column in a benchmark; None: it has none.
    is_share
        Show it in per cent there.
    heading
        Short name above a column; None: tables of genes do not show it.
    description
        What it means, in a sentence.
    within_slides
        Of a spot: how it is called where rows are slides, whose tables then show it.
    """

    name: str
    label: str
    of: Scope
    function: Callable[..., Any]
    better: Literal["higher", "lower"] | None = None
    summaries: tuple[str, ...] = ("mean",)
    scales: tuple[Scale, ...] = SCALES
    shown: Mapping[Scale, tuple[str, ...]] | None = None
    levels: tuple[str, ...] = ()
    headline: bool = False
    interval: bool = False
    against_baselines: bool = False
    noise_ceilings: Mapping[Scale, str] = field(default_factory=dict)
    column: str | None = None
    is_share: bool = False
    heading: str | None = None
    description: str = ""
    within_slides: str = ""

    @property
    def quoted(self) -> str:
        """The average that is quoted; empty where there is none."""
        return self.summaries[0] if self.of in ("gene", "spot") and self.summaries else ""

    def shown_on(self, scale: Scale) -> tuple[str, ...]:
        """Averages that tables show on a scale."""
        default: Mapping[Scale, tuple[str, ...]] = {HEADLINE: (self.quoted,)}
        return (default if self.shown is None else self.shown).get(scale, ())

    @property
    def is_shown(self) -> bool:
        """Whether tables show it at all."""
        return self.shown is None or len(self.shown) > 0

    def title(self, summary: str = "", level: str = "") -> str:
        """Label of a row in a table, or of an axis."""
        label = self.label.format(level=level) if self.levels else self.label
        return f"{label}, {summary}" if summary else label


def value_of(
    results: Mapping[str, Any],
    score: Score,
    predictor: str,
    *,
    scale: Scale = HEADLINE,
    summary: str | None = None,
    level: str = "",
) -> Any:
    """Return the number of a predictor in the results of an evaluation; None where it is missing or not defined.

    Parameters
    ----------
    results
        `Evaluation.results`.
    score
        Which score; not one of `"clusters"` or `"spatial"`, which are compared with several things.
    predictor
        `"model"`, `"mean_baseline"`, `"depth_baseline"` or `"true_means"`.
    scale, summary
        Scale of expression, and which average (None: the quoted one), where there are several.
    level
        Which of the score's levels.
    """
    name = f"{score.name}_{summary or score.quoted}" if score.quoted else score.name
    if score.of in ("gene", "spot", "overall"):
        part = {"gene": "by_gene", "spot": "by_spot", "overall": "overall"}[score.of]
        return at(results["scores"], (scale, predictor, part, name))
    if score.of == "cell types":
        return at(results["cell_types"], (name,)) if predictor == "model" else None
    part = "zeros" if score.of == "zeros" else "counts"
    return at(results[part], (predictor, name, level) if level else (predictor, name))
