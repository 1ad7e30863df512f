"""The table of metrics: rows of any kind are computed, shown and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hist2scrna import keys
from hist2scrna.evaluation import scores
from hist2scrna.evaluation.score import Score
from hist2scrna.tl import evaluate

if TYPE_CHECKING:
    from anndata import AnnData

NAMES = keys.OutputKeys()


@pytest.fixture
def counted(make_section) -> AnnData:
    adata = make_section(n_spots=60)
    adata.layers[NAMES.layer("mean")] = adata.X.toarray() * 0.5 + 1
    adata.uns[NAMES.parameters] = {"model": "made up", "likelihood": "poisson"}
    adata.obs[NAMES.cell_type] = adata.obs["cell_type"]
    return adata


@pytest.mark.parametrize(
    ("score", "path"),
    [
        (Score("new", "new of spots", "spot", lambda rows: rows.prediction.mean(axis=1)), "by_spot.new_mean"),
        (Score("new", "new of all", "overall", lambda values: values.prediction.max()), "new"),
        (Score("new", "new of counts", "gene counts", lambda block: block.mean.mean(axis=1)), "new"),
        (Score("new", "new of zeros", "zeros", lambda tally: tally.n_zero), "new"),
        (Score("new", "new of cell types", "cell types", lambda spots: len(spots.truth)), "new"),
        (Score("new", "new of clusters", "clusters", lambda truth, clusters: float(len(clusters))), "new_truth"),
        (Score("new", "new of space", "spatial", lambda values, weights: values.max(axis=0)), "new_truth"),
    ],
    ids=lambda value: value.of if isinstance(value, Score) else "",
)
def test_new_metrics_of_any_kind_are_computed_and_shown(counted, monkeypatch, score, path) -> None:
    monkeypatch.setattr(scores, "SCORES", (*scores.SCORES, score))
    evaluation = evaluate(counted, labels_key="cell_type", progress=False)
    assert score.label in str(evaluation)
    assert score.label in evaluation._repr_html_()
    names = {name for metric in evaluation.to_frame()["metric"] for name in (metric, f"by_spot.{metric}")}
    assert path in names
    if score.of == "gene counts":
        np.testing.assert_allclose(evaluation.genes["new"], counted.layers[NAMES.layer("mean")].mean(axis=0))


def test_names_are_unique_within_a_scope() -> None:
    places = [(score.of, score.name) for score in scores.SCORES]
    assert len(set(places)) == len(places)
    columns = [score.column for score in scores.benchmark_scores()]
    assert len(set(columns)) == len(columns)


def test_a_hidden_metric_is_kept_but_not_shown(counted, monkeypatch) -> None:
    hidden = Score("hidden", "hidden", "gene", lambda rows: rows.prediction.max(axis=1), shown=scores.NOWHERE)
    monkeypatch.setattr(scores, "SCORES", (*scores.SCORES, hidden))
    evaluation = evaluate(counted, progress=False)
    assert "hidden" not in str(evaluation)
    assert "hidden" in evaluation.genes
