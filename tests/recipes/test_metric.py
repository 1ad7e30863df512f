"""The recipe for a metric, followed: one function and one row, and it is everywhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import hist2scrna
from hist2scrna import keys, metrics, pl
from hist2scrna.benchmarking.files import as_markdown
from hist2scrna.benchmarking.table import job_columns, summary_table
from hist2scrna.evaluation import scores
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.evaluation.score import Score, value_of
from hist2scrna.evaluation.scores import benchmark_columns
from hist2scrna.tl import evaluate

if TYPE_CHECKING:
    from anndata import AnnData

NAMES = keys.OutputKeys()


@pytest.fixture(autouse=True)
def close_figures():
    mpl.use("Agg")
    yield
    plt.close("all")


def median_error(rows: metrics.correlation.Rows) -> np.ndarray:
    """The function that a new metric needs."""
    return np.median(np.abs(rows.truth - rows.prediction), axis=1)


MEDIAN_ERROR = Score(
    "median_error",
    "median error by gene",
    "gene",
    median_error,
    better="lower",
    headline=True,
    interval=True,
    column="median_error",
    heading="median error",
    description="Median absolute error",
)


@pytest.fixture
def median_error_row(monkeypatch) -> None:
    """The row that a new metric needs."""
    monkeypatch.setattr(scores, "SCORES", (*scores.SCORES, MEDIAN_ERROR))


@pytest.fixture
def sections(make_section) -> AnnData:
    import anndata

    parts = [make_section(name, n_spots=40, seed=i) for i, name in enumerate(["a", "b"])]
    return anndata.concat(parts, uns_merge="unique")


def predicted(sections: AnnData, noise: float) -> AnnData:
    """The sections with a prediction of their log-normalized expression."""
    adata = sections.copy()
    truth = metrics.log_normalize(adata.X.toarray())
    error = noise * np.random.default_rng(0).standard_normal(truth.shape)
    adata.layers[NAMES.layer("mean")] = truth + error
    adata.uns[NAMES.parameters] = {"model": "made up", "likelihood": "mse", "scale": "log_normalized"}
    return adata


@pytest.mark.usefixtures("median_error_row")
def test_a_new_metric_of_genes_is_everywhere(sections, tmp_path) -> None:
    adata = predicted(sections, 0.5)
    sharp = evaluate(adata, progress=False)
    truth, values = metrics.log_normalize(adata.X.toarray()), adata.layers[NAMES.layer("mean")]
    by_section = {}
    for name in ("a", "b"):
        rows = (adata.obs["library_id"] == name).to_numpy()
        by_section[name] = np.median(np.abs(truth - values)[rows], axis=0)
    expected = np.mean([errors.mean() for errors in by_section.values()])

    # The numbers: by gene, averaged, in the headline, by section, by level.
    np.testing.assert_allclose(sharp.genes["median_error"], np.mean(list(by_section.values()), axis=0))
    averages = sharp.results["scores"]["log_normalized"]
    assert averages["model"]["by_gene"]["median_error_mean"] == pytest.approx(expected)
    assert averages["mean_baseline"]["by_gene"]["median_error_mean"] > expected
    assert sharp.headline["median_error"] == pytest.approx(expected)
    assert sharp.results["sections"]["a"]["median_error"] == pytest.approx(by_section["a"].mean())

    # The tables, JSON, and the long form.
    for text in (str(sharp), sharp._repr_html_()):
        assert "median error by gene, mean" in text
        assert f"{expected:.3f}" in text
    content = json.loads(sharp.to_json())
    assert content["headline"]["median_error"] == pytest.approx(expected)
    assert len(content["genes"]["median_error"]) == adata.n_vars
    assert Evaluation.from_json(sharp.to_json()).headline == sharp.headline
    assert "median_error_mean" in set(sharp.to_frame()["metric"])

    # The comparison: a lower error is better.
    table = sharp.compare(evaluate(predicted(sections, 1.5), progress=False)).set_index(["measure", "level"])
    for level in ("gene", "section"):
        row = table.loc[("median_error", level)]
        assert row["difference"] < 0
        assert row["better"] == 1

    # The plot of levels of expression.
    ax = pl.expression_levels(sharp, metric="median_error")
    heights = [bar.get_height() for bar in ax.containers[0]]
    assert heights == [
        sharp.results["levels"][level]["model"]["median_error_mean"] for level in ("low", "medium", "high")
    ]
    assert ax.get_ylabel() == "median error by gene, mean"

    # The report: a tile of the headline, a column of genes and of sections, and a row of all scores.
    page = hist2scrna.report(sharp, tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<dd id="median_error">' in page
    assert '<th scope="col">median error</th>' in page
    assert '<th scope="row">median error by gene, mean</th>' in page
    assert '"key":"median_error","label":"median error"' in page


@pytest.mark.usefixtures("median_error_row")
def test_a_new_metric_is_a_column_of_a_benchmark(sections) -> None:
    rows = []
    for fold, noise in (("x", 0.5), ("y", 0.8)):
        results = evaluate(predicted(sections, noise), progress=False).results
        numbers = {
            name: value_of(results, score, "model", level=level) for name, (score, level) in benchmark_columns().items()
        }
        rows.append({"dataset": "made up", "fold": fold, "model": "ours", "kind": "model", "seed": 0, **numbers})
    jobs = pd.DataFrame(rows, columns=job_columns()).assign(
        status="complete", split="made up", n_genes=12, panel_sha256="0" * 64
    )
    assert jobs["median_error"].notna().all()
    table = summary_table(jobs)
    assert table["median_error"].iloc[0] == pytest.approx(jobs["median_error"].mean())
    assert table["median_error_low"].iloc[0] < table["median_error"].iloc[0] < table["median_error_high"].iloc[0]
    text = as_markdown(table, jobs)
    assert "| median error [95 %] |" in text
    assert "Pearson / depth-partial / median error" in text
    (ax,) = pl.benchmark(jobs, metric="median_error")
    assert ax.get_xlabel() == "median error by gene, mean"
