"""Benchmark: tables hold what the evaluations say, jobs are found again, nothing leaks from held-out sections."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from typer.testing import CliRunner

from hist2scrna import TrainedModel, datasets, pl, tl
from hist2scrna.benchmarking import execute
from hist2scrna.benchmarking.folds import given_splits, leave_one_group_out
from hist2scrna.benchmarking.panel import choose_panel
from hist2scrna.benchmarking.process import peak_memory
from hist2scrna.benchmarking.run import attempt
from hist2scrna.benchmarking.sections import SlotSelection, restrict, without_expression
from hist2scrna.benchmarking.table import t_interval
from hist2scrna.cli import app
from hist2scrna.evaluation.result import Evaluation

FAST = {"model": "hist2scrna", "preset": "tiny", "training": {"max_epochs": 1}}
MODELS = {"counts": FAST, "log": {**FAST, "likelihood": "mse", "training": {"max_epochs": 2}}}
TIMES = ["fit_seconds", "predict_seconds", "peak_memory_mib", "gpu_peak_memory_mib"]


def simulated(n_sections: int = 3) -> ad.AnnData:
    """Sections without the layers of the truth, as real ones come."""
    adata = ad.concat(
        datasets.simulate("small", n_sections=n_sections, n_spots=24, n_genes=30, seed=1), uns_merge="unique"
    )
    for layer in list(adata.layers):
        del adata.layers[layer]
    adata.obs["donor"] = adata.obs["library_id"].map({"section_0": "a", "section_1": "a", "section_2": "b"}).astype(str)
    return adata


@pytest.fixture(scope="module")
def sections() -> ad.AnnData:
    return simulated()


class InProcess:
    """Runs jobs in this process, which saves the imports; may end with an error before the job of a number."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.started, self.stop_at = 0, stop_at

    def __call__(self, scratch) -> int:
        self.started += 1
        (scratch / "log.txt").write_text("")
        if self.started == self.stop_at:
            (scratch / "evaluation.json").write_text("{")
            raise KeyboardInterrupt
        return attempt(scratch)


@pytest.fixture
def in_process(monkeypatch) -> InProcess:
    runner = InProcess()
    monkeypatch.setattr(execute, "launch", runner)
    return runner


@pytest.fixture(scope="module")
def finished(sections, tmp_path_factory):
    """Two models, three folds, two seeds."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "launch", InProcess())
        table = tl.benchmark({"sim": sections}, MODELS, folder=folder, seeds=(0, 3), accelerator="cpu", progress=False)
    return folder, table, pd.read_csv(folder / "jobs.csv")


def one(sections, folder, models=None, **changes):
    """The smallest benchmark: one fold."""
    asked = {"folds": ["section_1"], "accelerator": "cpu", "progress": False, **changes}
    return tl.benchmark({"sim": sections}, models or {"counts": FAST}, folder=folder, **asked)


HOLD = """
import sys
from pathlib import Path
from hist2scrna.benchmarking.lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_at_once_in_one_folder_are_refused_and_a_killed_one_leaves_no_trace(sections, in_process, tmp_path):
    """They would read each other's held-out section: a model was once scored on what it was trained on."""
    folder = tmp_path / "shared"
    folder.mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"Another benchmark is at work in '{folder}'"):
            one(sections, folder)
        assert not list(folder.glob("*.csv")) and not (folder / "sim").exists()
    finally:
        other.kill()
        other.communicate()
    assert one(sections, folder)["n_failed"].fillna(0).eq(0).all()


# -- tables -----------------------------------------------------------------------------------------------------------
def test_every_job_has_the_row_of_its_evaluation(finished):
    folder, _, jobs = finished
    models = jobs[jobs["kind"] == "model"]
    assert len(models) == 12 and (models["status"] == "complete").all()
    for _, row in models.iterrows():
        place = folder / "sim" / row["fold"] / row["model"] / str(row["seed"]).removesuffix(".0")
        evaluation = Evaluation.from_json(place / "evaluation.json")
        card = json.loads((place / "job.json").read_text())
        for name in (
            "pearson",
            "depth_partial",
            "score_over_ceiling",
            "spread_ratio",
            "beats_depth_baseline",
            "collapsed",
        ):
            assert row[name] == pytest.approx(evaluation.headline[name])
        assert row["held_out"]
        if row["model"] == "counts":
            counted = evaluation.results["counts"]["model"]
            assert row["log_likelihood"] == pytest.approx(counted["log_likelihood"])
            assert row["coverage_80"] == pytest.approx(counted["coverage"]["80"])
            assert row["width_80"] == pytest.approx(counted["width"]["80"]) and row["width_80"] > 0
        else:
            assert np.isnan(row["log_likelihood"]) and np.isnan(row["coverage_80"])
        assert (
            row["epochs_run"]
            == len(pd.read_csv(place / "history.csv"))
            == MODELS[row["model"]]["training"]["max_epochs"]
        )
        assert row["panel_sha256"] == evaluation.results["panel"]["sha256"] == card["settings"]["panel"]["sha256"]
        assert (row["n_genes"], row["n_spots_test"], row["n_spots_train"]) == (30, 24, 48)
        assert row["fit_seconds"] == card["fit_seconds"] > 0 and row["peak_memory_mib"] > 50
        assert row["smoothing"] == "none" and row["split"] == "leave one section out (library_id)"


def test_a_job_is_fit_predict_and_evaluate(sections, finished):
    """The same numbers by hand: nothing of the held-out section was there in training or prediction."""
    _, _, jobs = finished
    held_out = sections.obs["library_id"] == "section_1"
    model = tl.fit(sections[~held_out].copy(), library_key="library_id", seed=3, progress=False, **FAST)
    expected = tl.evaluate(sections[held_out].copy(), model, progress=False)
    row = jobs.query("fold == 'section_1' and model == 'counts' and seed == 3").iloc[0]
    assert row["pearson"] == pytest.approx(expected.headline["pearson"], abs=1e-6)
    assert row["log_likelihood"] == pytest.approx(expected.results["counts"]["model"]["log_likelihood"], rel=1e-6)
    assert row["n_parameters"] == model.n_parameters
    assert row["best_epoch"] == model.training["best_epoch"]


def test_nulls_and_ceiling_are_rows_of_each_fold(sections, finished):
    _, table, jobs = finished
    references = jobs[jobs["kind"] != "model"]
    assert (
        references.groupby("fold")["model"].apply(list).tolist()
        == [["mean baseline", "depth baseline", "noise ceiling"]] * 3
    )
    counts = sections.X.toarray().astype(float)
    total = np.log(counts.sum(axis=1))
    logs = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    for fold in ("section_0", "section_1", "section_2"):
        test = (sections.obs["library_id"] == fold).to_numpy()
        scores = []
        for gene in range(counts.shape[1]):
            if np.ptp(logs[test, gene]) > 0:
                line = stats.linregress(total[~test], logs[~test, gene])
                # A gene that is constant in training has a constant prediction, which counts as 0.
                scores.append(np.sign(line.slope) * stats.pearsonr(total[test], logs[test, gene]).statistic)
        row = jobs.query("fold == @fold and model == 'depth baseline'").iloc[0]
        assert row["pearson"] == pytest.approx(np.mean(scores), abs=1e-6)
        assert jobs.query("fold == @fold and model == 'mean baseline'")["pearson"].iloc[0] == 0
    depth = table.query("model == 'depth baseline'").iloc[0]
    assert depth["pearson"] == pytest.approx(jobs.query("model == 'depth baseline'")["pearson"].mean())
    assert jobs.query("model == 'mean baseline'")["log_likelihood"].notna().all()
    assert jobs.query("model == 'noise ceiling'")["pearson"].between(0.05, 1).all()


def test_summary_averages_seeds_then_folds(finished):
    _, table, jobs = finished
    assert table["model"].tolist() == ["counts", "log", "mean baseline", "depth baseline", "noise ceiling"]
    for name in MODELS:
        own = jobs[jobs["model"] == name]
        by_fold = own.groupby("fold")["pearson"].mean()
        row = table[table["model"] == name].iloc[0]
        low, high = stats.t.interval(0.95, 2, by_fold.mean(), stats.sem(by_fold))
        assert (row["pearson"], row["pearson_low"], row["pearson_high"]) == pytest.approx((by_fold.mean(), low, high))
        depth = jobs[jobs["model"] == "depth baseline"].set_index("fold")["pearson"]
        assert row["folds_beating_depth_baseline"] == sum(by_fold[fold] > depth[fold] for fold in by_fold.index)
        assert row["n_collapsed"] == own["collapsed"].astype(bool).sum()
        assert (row["n_folds"], row["n_seeds"], row["n_jobs"], row["n_failed"]) == (3, 2, 6, 0)


def test_the_docstring_names_every_column_and_no_other(finished):
    listed = inspect.getdoc(tl.benchmark).partition("Returns\n-------")[2].partition("`.attrs")[0]
    columns = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)*)`", listed))
    # Of every row, and of scores that have an interval.
    rest = {"dataset", "model"} | {f"{name}_{end}" for name in columns for end in ("low", "high")}
    assert columns <= set(finished[1].columns) <= columns | rest


def test_model_of_some_folds_is_run_on_these_alone_and_the_table_names_them(sections, tmp_path, in_process):
    models = {"slow": {**FAST, "folds": ["section_2"]}, "ridge": {"model": "ridge", "features_key": "spatial"}}
    table = tl.benchmark({"sim": sections}, models, folder=tmp_path, accelerator="cpu", progress=False)
    assert in_process.started == 4
    folds = table.set_index("model")["folds"]
    assert folds["slow"] == "section_2"
    assert folds["ridge"] == folds["depth baseline"] == "section_0, section_1, section_2"
    jobs = pd.read_csv(tmp_path / "jobs.csv").set_index(["model", "fold"])
    text = (tmp_path / "table.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| slow") and line.count("|") == 5)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["-", "-"]
    assert float(cells[3].split(" / ")[0]) == pytest.approx(jobs.loc[("slow", "section_2"), "pearson"], abs=1e-3)
    with pytest.raises(KeyError, match="section_9"):
        one(sections, tmp_path, {"slow": {**FAST, "folds": ["section_9"]}})


def test_interval_is_students_t_and_undefined_for_one_value():
    values = np.array([0.2, 0.35, np.nan, 0.1, 0.28])
    known = values[np.isfinite(values)]
    expected = stats.ttest_1samp(known, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((expected.low, expected.high))
    assert np.isnan(t_interval(np.array([0.3, np.nan]))).all()


def test_files_hold_the_same_tables(finished):
    folder, table, jobs = finished
    pd.testing.assert_frame_equal(pd.read_csv(folder / "table.csv"), table, check_dtype=False)
    for name, frame in (("table", table), ("jobs", jobs)):
        rows = json.loads((folder / f"{name}.json").read_text())["rows"]
        assert [row["model"] for row in rows] == frame["model"].tolist()
        assert rows[0]["pearson"] == pytest.approx(frame["pearson"].iloc[0])
        assert list(rows[0]) == list(frame.columns)
    text = (folder / "table.md").read_text()
    for _, row in table.iterrows():
        line, by_fold = [line for line in text.splitlines() if line.startswith(f"| {row['model']} |")]
        assert f"{row['pearson']:.3f}" in line or "e-" in line
        own = jobs[jobs["model"] == row["model"]].groupby("fold")["pearson"].mean()
        shown = [float(cell.split(" / ")[0]) for cell in by_fold.strip("| ").split(" | ")[1:]]
        assert shown == pytest.approx(own.tolist(), abs=6e-4)
    for said in ("leave one section out", "all genes", "Smoothing: none", "log(1 + 1e4 x / total)"):
        assert said in text
    assert table.attrs["folder"] == str(folder)


def test_jobs_of_a_fold_that_disagree_on_the_ceiling_are_pointed_out(sections, finished, tmp_path, in_process):
    shutil.copytree(finished[0], tmp_path / "copy")
    path = tmp_path / "copy" / "sim" / "section_0" / "log" / "3" / "evaluation.json"
    content = json.loads(path.read_text())
    content["headline"]["noise_ceiling"] += 0.01
    path.write_text(json.dumps(content))
    asked = {"folder": tmp_path / "copy", "seeds": (0, 3), "accelerator": "cpu", "progress": False}
    with pytest.warns(UserWarning, match="noise ceiling of sim, section_0: pearson"):
        tl.benchmark({"sim": sections}, MODELS, **asked)
    assert in_process.started == 0


# -- going on ---------------------------------------------------------------------------------------------------------
def test_interrupted_and_started_again_gives_the_same_table(sections, finished, tmp_path, monkeypatch):
    asked = {"folder": tmp_path, "seeds": (0, 3), "accelerator": "cpu", "progress": False}
    monkeypatch.setattr(execute, "launch", InProcess(stop_at=6))
    with pytest.raises(KeyboardInterrupt):
        tl.benchmark({"sim": sections}, MODELS, **asked)
    assert len(list(tmp_path.rglob("job.json"))) == 5
    assert list(tmp_path.rglob(".[!.]*")) == [tmp_path / ".lock"]
    # What a process that was killed leaves behind.
    left = tmp_path / "sim" / "section_1" / "counts" / ".3.abc.partial"
    left.mkdir(parents=True)
    (left / "evaluation.json").write_text("{")
    (tmp_path / ".sections").mkdir()

    runner = InProcess()
    monkeypatch.setattr(execute, "launch", runner)
    table = tl.benchmark({"sim": sections}, MODELS, **asked)
    assert runner.started == 7
    assert list(tmp_path.rglob(".[!.]*")) == [tmp_path / ".lock"]
    _, expected, jobs = finished
    pd.testing.assert_frame_equal(table.drop(columns=TIMES), expected.drop(columns=TIMES), check_dtype=False)
    again = pd.read_csv(tmp_path / "jobs.csv")
    pd.testing.assert_frame_equal(again.drop(columns=TIMES), jobs.drop(columns=TIMES))

    written = {path: path.read_bytes() for path in tmp_path.glob("[!.]*.*")}
    assert len(written) == 5
    tl.benchmark({"sim": sections}, MODELS, **asked)
    assert runner.started == 7
    assert {path: path.read_bytes() for path in tmp_path.glob("[!.]*.*")} == written


def test_adding_models_and_seeds_runs_only_these(sections, tmp_path, in_process):
    one(sections, tmp_path)
    sections = sections.copy()
    sections.obsm["X_other"] = np.zeros((sections.n_obs, 3))
    light = {
        "model": "hist2scrna-lightweight",
        "preset": "tiny",
        "training": {"max_epochs": 1},
        "features_key": "X_other",
    }
    table = one(sections, tmp_path, {"counts": FAST, "light": light}, seeds=(0, 1))
    assert in_process.started == 4
    assert table["n_seeds"].tolist()[:2] == [2, 2]
    assert (table["n_failed"] == 0).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"models": {"counts": {**FAST, "training": {"max_epochs": 2}}}},
            "options.training.max_epochs is 1 there and 2 here",
        ),
        ({"genes": "panel"}, "panel.n_genes is 30 there and 20 here"),
        ({"labels_key": "cell_type"}, "labels"),
        ({"group_key": "donor", "folds": ["b"]}, None),
    ],
)
def test_other_settings_in_the_same_place_are_refused(sections, tmp_path, in_process, change, named):
    sections = sections.copy()
    sections.var["panel"] = np.arange(30) < 20
    one(sections, tmp_path)
    if named is None:
        one(sections, tmp_path, **change)
        assert in_process.started == 2
    else:
        with pytest.raises(FileExistsError, match=named):
            one(sections, tmp_path, **change)
        assert in_process.started == 1


@pytest.mark.parametrize(("part", "named"), [("counts", "data.counts"), ("xy", "spatial"), ("image", "images")])
def test_other_data_in_the_same_place_are_refused(sections, tmp_path, in_process, part, named):
    one(sections, tmp_path)
    changed = sections.copy()
    if part == "counts":
        changed.X[0, 0] += 1
    elif part == "xy":
        changed.obsm["spatial"][0] += 1
    else:
        changed.uns["spatial"]["section_0"]["images"]["hires"][:40, :40] = 0
    with pytest.raises(FileExistsError, match=named):
        one(changed, tmp_path)


def test_folder_that_is_no_job_is_not_touched(sections, tmp_path, in_process):
    place = tmp_path / "sim" / "section_1" / "counts" / "0"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no complete job"):
        one(sections, tmp_path)
    assert (place / "notes.txt").read_text() == "mine"


def test_failed_job_is_said_and_tried_again(sections, tmp_path, in_process, monkeypatch):
    models = {"broken": {**FAST, "patch_um": -1.0}, "counts": FAST}
    table = one(sections, tmp_path, models)
    assert table.set_index("model").loc[["broken", "counts"], "n_failed"].tolist() == [1, 0]
    jobs = pd.read_csv(tmp_path / "jobs.csv").set_index("model")
    assert (
        jobs.loc["broken", "status"] == "failed: ValueError: Expected `patch_um` to be a positive number, found -1.0."
    )
    assert np.isnan(jobs.loc["broken", "pearson"])
    assert (tmp_path / "sim" / "section_1" / "broken" / "0.failed.txt").is_file()
    assert "| broken |" in (tmp_path / "table.md").read_text()
    assert any(text.get_text() == "failed" for text in pl.benchmark(table)[0].texts)

    started = in_process.started
    one(sections, tmp_path, models)
    assert in_process.started == started + 1
    (tmp_path / "sim" / "section_1" / "broken" / "0.failed.txt").unlink()

    def killed(scratch) -> int:
        (scratch / "log.txt").write_text("")
        return -signal.SIGKILL

    monkeypatch.setattr(execute, "launch", killed)
    one(sections, tmp_path, models)
    assert "more memory than there is" in pd.read_csv(tmp_path / "jobs.csv").set_index("model").loc["broken", "status"]


def test_job_in_a_process_of_its_own_gives_the_same_numbers(sections, finished, tmp_path):
    _, _, jobs = finished
    one(sections, tmp_path, keep_models=True)
    row = pd.read_csv(tmp_path / "jobs.csv").iloc[0]
    expected = jobs.query("fold == 'section_1' and model == 'counts' and seed == 0").iloc[0]
    assert row["status"] == "complete"
    assert row["pearson"] == pytest.approx(expected["pearson"], abs=1e-6)
    assert 100 < row["peak_memory_mib"] < 4000
    assert sorted(os.listdir(tmp_path / "sim" / "section_1" / "counts" / "0")) == [
        *("evaluation.json", "history.csv", "job.json", "log.txt", "model"),
    ]


def test_peak_memory_is_that_of_the_process_alone():
    """On Linux, what getrusage says of a new process begins at the peak of the one that started it."""
    code = """
from hist2scrna.benchmarking.process import peak_memory
before = peak_memory()
held = bytearray(200_000_000)
for place in range(0, len(held), 4096):
    held[place] = 1
print(before, peak_memory() - before)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, growth = map(int, shown.split())
    assert 4e6 < before < 0.8 * peak_memory()
    assert growth == pytest.approx(2e8, rel=0.05)


def test_job_ends_with_the_process_that_started_it():
    code = """
import os, sys, time
from hist2scrna.benchmarking.process import end_with_parent
end_with_parent(os.getppid() + int(sys.argv[1]), interval=0.05)
time.sleep(0.5)
"""
    ended = [subprocess.run([sys.executable, "-c", code, other], check=False).returncode for other in ("0", "1")]
    assert ended == [0, 1]


# -- folds and genes --------------------------------------------------------------------------------------------------
def test_donors_are_held_out_whole(sections, tmp_path, in_process):
    folds = leave_one_group_out(sections, "library_id", "donor")
    assert [fold.name for fold in folds] == ["a", "b"]
    np.testing.assert_array_equal(folds[0].test, sections.obs["library_id"] != "section_2")
    table = one(sections, tmp_path, group_key="donor", folds={"sim": ["b"]}, keep_models=True)
    assert table["split"].unique().tolist() == ["leave one group out (donor)"]
    evaluation = Evaluation.from_json(tmp_path / "sim" / "b" / "counts" / "0" / "evaluation.json")
    assert list(evaluation.results["sections"]) == ["section_2"]
    assert evaluation.results["split"]["trained_on"] == ["section_0", "section_1"]
    model = TrainedModel.load(tmp_path / "sim" / "b" / "counts" / "0" / "model")
    assert model.parameters["group_key"] == "donor"


def test_section_in_two_groups_is_refused(sections):
    sections = sections.copy()
    sections.obs["half"] = np.where(np.arange(sections.n_obs) % 2, "odd", "even")
    with pytest.raises(ValueError, match="'section_0' lies in 2 groups"):
        leave_one_group_out(sections, "library_id", "half")


def test_panel_is_chosen_on_the_training_sections_alone(sections):
    test = (sections.obs["library_id"] == "section_1").to_numpy()
    panel = choose_panel(sections, ~test, n_genes=8, min_detected=0.5)
    changed = sections.copy()
    counts = changed.X.toarray()
    counts[test] = np.random.default_rng(0).poisson(50, (test.sum(), 30))
    changed.X = sparse.csr_matrix(counts.astype(np.float32))
    assert choose_panel(changed, ~test, n_genes=8, min_detected=0.5) == panel
    assert choose_panel(changed, test, n_genes=8, min_detected=0.5).genes != panel.genes
    train = sections.X.toarray()[~test].astype(float)
    logs = pd.DataFrame(np.log1p(1e4 * train / train.sum(axis=1, keepdims=True)), columns=sections.var_names)
    often = (train > 0).mean(axis=0) >= 0.5
    assert 8 < often.sum() < 30
    assert set(panel.genes) == set(logs.loc[:, often].var().nlargest(8).index)
    with pytest.raises(ValueError, match=f"at most {often.sum()}"):
        choose_panel(sections, ~test, n_genes=30, min_detected=0.5)


def test_each_fold_has_a_panel_of_its_own(sections, tmp_path, in_process):
    table = one(sections, tmp_path, folds=["section_0", "section_1"], n_genes=8, min_detected=0.2)
    jobs = pd.read_csv(tmp_path / "jobs.csv").query("kind == 'model'")
    assert jobs["panel_sha256"].nunique() == 2 and (jobs["n_genes"] == 8).all()
    assert table["panel_sha256"].iloc[0] == "2 panels"
    assert "in the training sections of each fold" in jobs["panel"].iloc[0]


def test_slide_to_predict_holds_no_expression(sections):
    slots = SlotSelection("library_id", "cell_type", None, ("spatial",))
    held_out = (sections.obs["library_id"] == "section_2").to_numpy()
    section = restrict(sections, held_out, list(sections.var_names[:5]), slots)
    np.testing.assert_array_equal(section.X.toarray(), sections.X.toarray()[held_out][:, :5])
    assert list(section.uns["spatial"]) == ["section_2"]
    slide = without_expression(section, slots)
    assert slide.n_vars == 0 and slide.X is None and not slide.layers
    assert list(slide.obs) == ["library_id", "array_col", "array_row"]


def test_cell_types_never_trained_on_are_left_out_of_their_score(sections, tmp_path, in_process):
    sections = sections.copy()
    types = sections.obs["cell_type"].astype(str)
    sections.obs["cell_type"] = types.mask(
        (sections.obs["library_id"] == "section_1") & (types == types.iloc[30]), "rare"
    )
    n_rare = int((sections.obs["cell_type"] == "rare").sum())
    one(sections, tmp_path, labels_key="cell_type")
    place = tmp_path / "sim" / "section_1" / "counts" / "0"
    assert json.loads((place / "job.json").read_text())["n_spots_of_unknown_type"] == n_rare > 0
    assert Evaluation.from_json(place / "evaluation.json").results["cell_types"]["accuracy"] is not None


def test_pictures_in_files_are_found_by_the_jobs(sections, tmp_path, in_process):
    from PIL import Image

    sections = sections.copy()
    for name, entry in sections.uns["spatial"].items():
        Image.fromarray(entry["images"].pop("hires")).save(tmp_path / f"{name}.png")
        entry.setdefault("metadata", {})["source_image_path"] = tmp_path / f"{name}.png"
    table = one(sections, tmp_path / "out")
    assert (table["n_failed"] == 0).all()


# -- given splits -----------------------------------------------------------------------------------------------------
RIDGE = {"ridge": {"model": "ridge", "features_key": "spatial"}}
SPLITS = {"a to b": (["a"], ["b"]), "b to a": ("b", "a")}


def test_given_splits_score_each_test_section_by_itself(sections, tmp_path, in_process):
    asked = {"group_key": "donor", "folds": None, "splits": SPLITS}
    table = one(sections, tmp_path, RIDGE, **asked)
    assert in_process.started == 2
    jobs = pd.read_csv(tmp_path / "jobs.csv")
    rows = jobs[jobs["kind"] == "model"]
    assert list(zip(rows["split"], rows["fold"], rows["n_spots_train"], rows["n_spots_test"], strict=True)) == [
        ("a to b", "section_2", 48, 24),
        ("b to a", "section_0", 24, 24),
        ("b to a", "section_1", 24, 24),
    ]
    trained = sections.obs["donor"] == "b"
    model = tl.fit(
        sections[trained].copy(), library_key="library_id", group_key="donor", progress=False, **RIDGE["ridge"]
    )
    for name in ("section_0", "section_1"):
        held_out = sections[sections.obs["library_id"] == name].copy()
        expected = tl.evaluate(held_out, model, progress=False).headline["pearson"]
        assert rows.set_index(["split", "fold"]).loc[("b to a", name), "pearson"] == pytest.approx(expected, abs=1e-6)
    by_split = table[table["model"] == "ridge"].set_index("split")
    assert by_split.loc["b to a", "folds"] == "section_0, section_1"
    means = rows.groupby("split")["pearson"].mean()
    assert by_split["pearson"].to_dict() == pytest.approx(means.to_dict())
    # Each split has baselines of its own training sections.
    depth = jobs[jobs["model"] == "depth baseline"].groupby("split")["pearson"].mean()
    assert table[table["model"] == "depth baseline"].set_index("split")["pearson"].to_dict() == pytest.approx(
        depth.to_dict()
    )
    text = (tmp_path / "table.md").read_text()
    assert "## sim, a to b\n" in text and "## sim, b to a\n" in text and "| section_0 | section_1 |" in text
    assert [ax.get_title(loc="left") for ax in pl.benchmark(tmp_path)] == ["sim, a to b", "sim, b to a"]
    pd.testing.assert_frame_equal(one(sections, tmp_path, RIDGE, **asked), table)
    assert in_process.started == 2


def test_a_failed_split_is_a_row_of_each_test_section(sections, tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(execute, "launch", lambda scratch: int((scratch / "log.txt").write_text("") or 3))
    table = one(sections, tmp_path, RIDGE, folds=None, splits={"there": (["section_2"], ["section_0", "section_1"])})
    jobs = pd.read_csv(tmp_path / "jobs.csv")
    assert jobs["fold"].tolist() == ["section_0", "section_1"] and jobs["split"].tolist() == ["there", "there"]
    assert jobs["status"].str.startswith("failed: ").all() and table["n_failed"].tolist() == [2]


def test_sections_in_neither_list_are_not_used(sections):
    (fold,) = given_splits(sections, "library_id", {"0 to 2": (["section_0"], ["section_2"])})
    assert (fold.trained_on, fold.scored) == (("section_0",), ("section_2",))
    assert sections.obs["library_id"][fold.train].unique().tolist() == ["section_0"]
    assert sections.obs["library_id"][fold.test].unique().tolist() == ["section_2"]


# -- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"models": ["hist2scrnaa"]}, ValueError, "Did you mean 'hist2scrna'"),
        ({"models": {"x": {**FAST, "dept": 3}}}, ValueError, "Did you mean 'depth'"),
        ({"models": {"x": {"preset": "tiny"}}}, ValueError, "does not say which"),
        ({"models": {"x": {**FAST, "seed": 3}}}, ValueError, "seeds="),
        ({"models": {"x": {**FAST, "losses": {"mine": len}}}}, TypeError, "no plain value"),
        ({"models": ["hist2scrna", "hist2scrna"]}, ValueError, "named twice"),
        ({"folds": ["section_9"]}, KeyError, "section_9"),
        ({"folds": {"other": ["section_1"]}}, KeyError, "other"),
        ({"splits": {"x": (["section_0"], ["section_1"])}}, ValueError, "one of `folds` and `splits`"),
        ({"folds": None, "splits": {}}, ValueError, "map names to pairs"),
        ({"folds": None, "splits": {"x": ["section_0"]}}, TypeError, "split 'x' to be a pair"),
        ({"folds": None, "splits": {"x": (["sektion_0"], ["section_1"])}}, KeyError, "Did you mean 'section_0'"),
        ({"folds": None, "splits": {"x": ([], ["section_1"])}}, ValueError, "no training group"),
        ({"folds": None, "splits": {"x": (["section_0"], ["section_0"])}}, ValueError, r"trains on \['section_0'\]"),
        ({"folds": None, "splits": {"x": (["section_0"], ["b"])}, "group_key": "donor"}, KeyError, "'section_0' not"),
        ({"seeds": (1, 1)}, ValueError, "different numbers"),
        ({"genes": ["gene_0001"], "n_genes": 3}, ValueError, "found both"),
        ({"n_genes": 500}, ValueError, "at most"),
        ({"labels_key": "nothing"}, KeyError, "nothing"),
        ({"group_key": "nothing"}, KeyError, "nothing"),
        ({"library_key": "nothing"}, KeyError, "nothing"),
        ({"layer": "nothing"}, KeyError, "nothing"),
        ({"models": {"x": {"model": "hist2scrna-lightweight", "features_key": "X_no"}}}, KeyError, "X_no"),
    ],
)
def test_wrong_request_is_refused_before_anything_runs(sections, tmp_path, in_process, change, error, match):
    with pytest.raises(error, match=match):
        one(sections, tmp_path / "out", **change)
    assert in_process.started == 0 and not (tmp_path / "out").exists()


# -- plot and command line --------------------------------------------------------------------------------------------
def test_plot_shows_folds_means_and_references(finished):
    folder, table, jobs = finished
    (ax,) = pl.benchmark(folder)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(MODELS)
    dots = np.concatenate([c.get_offsets() for c in ax.collections if hasattr(c, "get_sizes") and len(c.get_offsets())])
    expected = jobs[jobs["kind"] == "model"].groupby(["model", "fold"])["pearson"].mean()
    np.testing.assert_allclose(np.sort(dots[:, 0]), np.sort(expected))
    lines = {line.get_label(): line.get_xdata()[0] for line in ax.lines}
    for name in ("mean baseline", "depth baseline", "noise ceiling"):
        assert lines[name] == pytest.approx(table.set_index("model").loc[name, "pearson"])
    means = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(means, table["pearson"][:2])
    (ax,) = pl.benchmark(jobs, metric="log_likelihood")
    assert [text.get_text() for text in ax.texts] == ["not defined"]


def test_plot_refuses_what_is_no_benchmark(finished, tmp_path):
    _, table, jobs = finished
    with pytest.raises(FileNotFoundError, match="folder of a benchmark"):
        pl.benchmark(tmp_path)
    with pytest.raises(ValueError, match="metric"):
        pl.benchmark(jobs, metric="speed")
    with pytest.raises(ValueError, match="'fold'"):
        pl.benchmark(pd.DataFrame(table.to_dict("list")))
    with pytest.raises(TypeError, match="int"):
        pl.benchmark(3)


def test_command_line(sections, tmp_path, in_process):
    sections.write_h5ad(tmp_path / "tissue.h5ad")
    (tmp_path / "models.toml").write_text(
        '[ours]\nmodel = "hist2scrna"\npreset = "tiny"\ntraining = { max_epochs = 1 }\n'
    )
    (tmp_path / "genes.txt").write_text("\n".join(sections.var_names[:12]))
    asked = ["benchmark", f"sim={tmp_path / 'tissue.h5ad'}", "--models", str(tmp_path / "models.toml")]
    asked += [
        "--group-key",
        "donor",
        "--fold",
        "b",
        "--seed",
        "4",
        "--accelerator",
        "cpu",
        "--out",
        str(tmp_path / "o"),
    ]
    result = CliRunner().invoke(app, [*asked, "--genes", str(tmp_path / "genes.txt")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "| ours | 1 x 1 |" in result.output and "depth baseline" in result.output
    job = json.loads((tmp_path / "o" / "sim" / "b" / "ours" / "4" / "job.json").read_text())
    assert job["settings"]["panel"]["n_genes"] == 12

    (tmp_path / "splits.json").write_text('{"b to a": [["b"], ["a"]]}')
    split = [word for word in asked if word not in ("--fold", "b")]
    result = CliRunner().invoke(app, [*split, "--splits", str(tmp_path / "splits.json")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "- Split: b to a" in result.output and "| section_0 | section_1 |" in result.output

    for wrong, said in (
        (["--splits", "none.json"], "No file of splits at 'none.json'"),
        (["--group-key", "nothing"], "Key 'nothing' not found in adata.obs"),
        (["--models", "none.toml"], "No file of models at 'none.toml'"),
        (["--model", "ours2"], "Unknown model 'ours2'"),
        (["--n-genes", "3", "--genes", "panel"], "found both"),
    ):
        result = CliRunner().invoke(app, [*asked, *wrong])
        assert result.exit_code == 1 and result.output.splitlines()[-1].startswith("Error: ")
        assert said in result.output
    (tmp_path / "models.toml").write_text('[bad]\nmodel = "hist2scrna"\npreset = "tiny"\npatch_um = -1.0\n')
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 1 and "1 jobs failed" in result.output
