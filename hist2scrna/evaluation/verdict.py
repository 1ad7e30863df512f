"""What the page says first: score by score, whether the model does better than the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hist2scrna.evaluation.plain import number
from hist2scrna.evaluation.predictors import BASELINES, PREDICTOR_LABELS
from hist2scrna.evaluation.score import value_of
from hist2scrna.evaluation.scores import scores_of
from hist2scrna.messages import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hist2scrna.evaluation.score import Scope, Score

# Pattern, error, share of the variance and distribution: a model may be good at one and bad at another.
COMPARED: tuple[tuple[Scope, str], ...] = (
    ("gene", "pearson"),
    ("overall", "rmse"),
    ("overall", "r2"),
    ("gene counts", "log_likelihood"),
)


@dataclass(frozen=True)
class _Comparison:
    """A score of the model, those of the baselines, and which of these it beats."""

    score: Score
    ours: float
    theirs: dict[str, float]

    @property
    def label(self) -> str:
        return f"{self.score.quoted} {self.score.label}".strip()

    @property
    def beaten(self) -> list[str]:
        higher = self.score.better == "higher"
        return [name for name, value in self.theirs.items() if (self.ours > value if higher else self.ours < value)]

    @property
    def is_won(self) -> bool:
        return len(self.beaten) == len(self.theirs)

    def line(self) -> str:
        named = {name: f"the {PREDICTOR_LABELS[name]} ({number(value)})" for name, value in self.theirs.items()}
        better = " and ".join(named[name] for name in self.beaten)
        behind = " or ".join(text for name, text in named.items() if name not in self.beaten)
        if not better:
            said = f"no better than {behind}"
        else:
            said = f"better than {better}" + f", but not than {behind}" * bool(behind)
        return f"{self.label[:1].upper()}{self.label[1:]} {number(self.ours)}: {said}"


def verdict(results: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return one sentence, and a line for each score that it rests on.

    Parameters
    ----------
    results
        `Evaluation.results`.
    """
    head = results["headline"]
    if head["pearson"] is None:
        return "No gene varies over the scored spots, so no correlation is defined.", []
    if head["collapsed"]:
        return "The prediction hardly varies between spots, so its correlations mean nothing.", []
    compared = list(_comparisons(results))
    if not compared:
        return "There is no baseline to compare the model with.", []
    share = head["beats_depth_baseline"]
    lines = [one.line() for one in compared]
    if share is not None:
        lines[0] += f"; above the depth baseline on {percent(share)} of genes{', fewer than half' * (share < 0.5)}"
    return _summary(compared), [f"{line}." for line in lines]


def _comparisons(results: Mapping[str, Any]) -> Iterator[_Comparison]:
    for scope, name in COMPARED:
        (score,) = (score for score in scores_of(scope) if score.name == name)
        ours = value_of(results, score, "model")
        values = {baseline: value_of(results, score, baseline) for baseline in BASELINES}
        theirs = {baseline: value for baseline, value in values.items() if value is not None}
        if ours is not None and theirs:
            yield _Comparison(score, ours, theirs)


def _summary(compared: list[_Comparison]) -> str:
    won, lost = ([one.label for one in compared if one.is_won is wins] for wins in (True, False))
    if not won:
        return f"The model does not do better than both baselines by any score: {_listed(lost)}."
    if not lost:
        return f"The model does better than both baselines by {_listed(won)}."
    return f"The model does better than both baselines by {_listed(won)}, but not by {_listed(lost)}."


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
