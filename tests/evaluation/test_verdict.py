"""The verdict says what the table says, score by score."""

from __future__ import annotations

from typing import Any

import pytest

from hist2scrna.evaluation.verdict import verdict


def results(
    *, pearson: float | None, rmse: float, r2: float, log_likelihood: float | None, share: float = 0.46, **head: Any
) -> dict[str, Any]:
    """What an evaluation holds of a model; the depth baseline has .3, 1.2, .4 and -1.0, the mean baseline is worse."""

    def scored(pearson: Any, rmse: float, r2: float) -> dict[str, Any]:
        return {"by_gene": {"pearson_mean": pearson}, "overall": {"rmse": rmse, "r2": r2}}

    return {
        "headline": {"pearson": pearson, "collapsed": False, "beats_depth_baseline": share, **head},
        "scores": {
            "log_normalized": {
                "model": scored(pearson, rmse, r2),
                "mean_baseline": scored(0.0, 1.4, 0.3),
                "depth_baseline": scored(0.3, 1.2, 0.4),
            }
        },
        "counts": {
            "model": {"log_likelihood": log_likelihood},
            "mean_baseline": {"log_likelihood": -1.2},
            "depth_baseline": {"log_likelihood": -1.0},
        }
        if log_likelihood is not None
        else {},
    }


def test_a_better_pattern_is_no_better_error() -> None:
    said, lines = verdict(results(pearson=0.31, rmse=1.3, r2=0.35, log_likelihood=-1.1))
    assert said == (
        "The model does better than both baselines by mean Pearson by gene, but not by RMSE, R2 and log-likelihood per "
        "count."
    )
    assert lines == [
        "Mean Pearson by gene 0.310: better than the mean baseline (0.000) and the depth baseline (0.300); above the "
        "depth baseline on 46% of genes, fewer than half.",
        "RMSE 1.300: better than the mean baseline (1.400), but not than the depth baseline (1.200).",
        "R2 0.350: better than the mean baseline (0.300), but not than the depth baseline (0.400).",
        "Log-likelihood per count -1.100: better than the mean baseline (-1.200), but not than the depth baseline "
        "(-1.000).",
    ]


def test_better_by_all() -> None:
    said, lines = verdict(results(pearson=0.5, rmse=1.0, r2=0.6, log_likelihood=None, share=0.8))
    assert said == "The model does better than both baselines by mean Pearson by gene, RMSE and R2."
    assert lines[0].endswith("above the depth baseline on 80% of genes.")


def test_better_by_none() -> None:
    said, lines = verdict(results(pearson=0.0, rmse=1.5, r2=0.4, log_likelihood=-1.3))
    assert said.startswith("The model does not do better than both baselines by any score: mean Pearson by gene, RMSE")
    assert lines[1] == "RMSE 1.500: no better than the mean baseline (1.400) or the depth baseline (1.200)."
    assert "R2 0.400: better than the mean baseline (0.300), but not than the depth baseline (0.400)." in lines


@pytest.mark.parametrize(
    ("head", "said"), [({"collapsed": True}, "hardly varies"), ({"pearson": None}, "no correlation is defined")]
)
def test_without_a_correlation_nothing_is_compared(head, said) -> None:
    given = {"pearson": 0.9, "rmse": 1.0, "r2": 0.6, "log_likelihood": -0.9} | head
    sentence, lines = verdict(results(**given))
    assert said in sentence and lines == []
