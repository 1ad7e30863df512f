"""The demo: it runs from the shell, and what it claims holds."""

from __future__ import annotations

import json

import anndata as ad
import pytest
from typer.testing import CliRunner

import hist2scrna.demo
from hist2scrna import TrainedModel
from hist2scrna.cli import app
from hist2scrna.evaluation.result import Evaluation


def test_demo_writes_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(hist2scrna.demo, "N_SECTIONS", 4)
    monkeypatch.setattr(hist2scrna.demo, "N_SPOTS", 24)
    monkeypatch.setattr(hist2scrna.demo, "N_GENES", 20)
    monkeypatch.setattr(
        hist2scrna.demo, "TRAINING", {"model": "hist2scrna", "preset": "tiny", "training": {"max_epochs": 1}}
    )
    out = tmp_path / "new" / "demo"
    result = CliRunner().invoke(app, ["demo", "--out", str(out), "--seed", "3"], catch_exceptions=False)
    assert result.exit_code == 0
    for shown in ("true means", "without the graph", "depth baseline", "TrainedModel 'hist2scrna'"):
        assert shown in result.output
    assert ad.read_h5ad(out / "prediction.h5ad").layers["hist2scrna_mean"].shape == (24, 20)
    assert TrainedModel.load(out / "model").training["sections"] == ["section_0", "section_1", "section_2"]
    assert json.loads((out / "metrics.json").read_text())["model"]
    assert "<table" in (out / "report.html").read_text()
    for picture in ("spatial.png", "history.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_version_and_help():
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).output.startswith("hist2scrna 0.")
    assert "demo" in runner.invoke(app, []).output


@pytest.mark.slow
def test_demo_reaches_what_can_be_reached_and_needs_the_graph(tmp_path):
    """On the unseen section: 80 % of what the true means reach; clearly less with the graph cut."""
    with_graph, without = hist2scrna.demo.run_demo(tmp_path)
    assert isinstance(with_graph, Evaluation)
    truth = with_graph.results["scores"]["log_normalized"]["true_means"]["by_gene"]["pearson_mean"]
    reached, alone = (
        e.results["scores"]["log_normalized"]["model"]["by_gene"]["pearson_mean"] for e in (with_graph, without)
    )
    assert reached >= 0.8 * truth
    assert alone <= 0.8 * reached
