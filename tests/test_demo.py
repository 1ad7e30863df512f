"""The demo: it runs from the shell, and what it claims holds."""

from __future__ import annotations

import json

import anndata as ad
import pytest
from typer.testing import CliRunner

import hist2scrna.demo
from hist2scrna import TrainedModel
from hist2scrna.cli import app


def test_demo_writes_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(hist2scrna.demo, "N_SECTIONS", 3)
    monkeypatch.setattr(hist2scrna.demo, "N_SPOTS", 10)
    monkeypatch.setattr(hist2scrna.demo, "N_GENES", 20)
    monkeypatch.setitem(hist2scrna.demo.NETWORK, "training", {"max_epochs": 1})
    out = tmp_path / "new" / "demo"
    result = CliRunner().invoke(app, ["demo", "--out", str(out), "--seed", "3"], catch_exceptions=False)
    assert result.exit_code == 0
    for shown in ("true means", "depth baseline", "TrainedModel 'kernel'", "TrainedModel 'hist2scrna'"):
        assert shown in result.output
    assert result.output.index("TrainedModel 'kernel'") < result.output.index("TrainedModel 'hist2scrna'")
    for name in ("kernel", "hist2scrna"):
        folder = out / name
        assert ad.read_h5ad(folder / "prediction.h5ad").layers["hist2scrna_mean"].shape == (10, 20)
        assert TrainedModel.load(folder / "model").training["sections"] == ["section_0", "section_1"]
        assert json.loads((folder / "metrics.json").read_text())["model"]["name"] == name
        assert "<table" in (folder / "report.html").read_text()
        assert (folder / "spatial.png").read_bytes().startswith(b"\x89PNG")


def test_version_and_help():
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).output.startswith("hist2scrna 0.")
    assert "demo" in runner.invoke(app, []).output


@pytest.mark.slow
def test_demo_beats_the_baselines_with_both_models(tmp_path):
    for name, evaluation in hist2scrna.demo.run_demo(tmp_path).items():
        scores = evaluation.results["scores"]["log_normalized"]
        pearson = {who: found["by_gene"]["pearson_mean"] for who, found in scores.items()}
        assert pearson["model"] > max(pearson["depth_baseline"], pearson["mean_baseline"] or 0), name
