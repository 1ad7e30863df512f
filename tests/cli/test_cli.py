"""The command line: from simulated data to a page, options from files, and what is said when something is wrong."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
import spatialdata
import tifffile
import typer
from platform_files import barcodes, write_section
from typer.testing import CliRunner

from hist2scrna import TrainedModel, datasets, io, pp, tl
from hist2scrna.cli import app
from hist2scrna.cli.config import parse_settings
from hist2scrna.cli.errors import ShellFormatter, one_line, speaking_shell

FAST = ["--model", "hist2scrna", "--preset", "tiny", "--max-epochs", "1", "--accelerator", "cpu"]


def run(*arguments, expect=0) -> str:
    """Run a command in this process; returns what it printed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    said = result.output + (repr(result.exception) if result.exception else "")
    assert result.exit_code == expect, said
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small simulated sections, and a model."""
    place = tmp_path_factory.mktemp("cli")
    run("simulate", "--preset", "small", "--sections", 2, "--spots", 30, "--genes", 20, "--out", place / "data")
    run("fit", place / "data", *FAST, "--out", place / "model")
    return place


def test_from_simulation_to_page(folder, tmp_path) -> None:
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["section_0.h5ad", "section_1.h5ad"]
    section = ad.read_h5ad(folder / "data" / "section_0.h5ad")
    (expected,) = datasets.simulate("small", n_spots=30, n_genes=20)
    assert (section.X != expected.X).sum() == 0
    model = TrainedModel.load(folder / "model")
    assert model.classes and len(model.history) == 1
    said = run("predict", folder / "data", "--model", folder / "model", "--out", tmp_path / "p.h5ad")
    assert f"Wrote {tmp_path / 'p.h5ad'}".replace(" ", "") in said.replace(" ", "")
    predicted = ad.read_h5ad(tmp_path / "p.h5ad")
    by_hand = model.predict(section.copy(), progress=False, library_key="library_id")
    own = predicted[predicted.obs["library_id"] == "section_0"]
    np.testing.assert_allclose(own.layers["hist2scrna_mean"], by_hand.layers["hist2scrna_mean"], rtol=1e-4)
    run("evaluate", tmp_path / "p.h5ad", "--model", folder / "model", "--out", tmp_path / "e.json")
    headline = json.loads((tmp_path / "e.json").read_text())["headline"]
    with pytest.warns(UserWarning, match="NOT HELD OUT"):
        found = tl.evaluate(predicted, model, labels_key="cell_type", progress=False)
    assert headline["pearson"] == pytest.approx(found.headline["pearson"])
    run("report", tmp_path / "e.json", "--out", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_every_option_of_fit_reaches_it(folder, tmp_path, monkeypatch) -> None:
    seen = {}

    def caught(adata, **arguments):
        seen.update(arguments, n_obs=adata.n_obs)
        raise ValueError("enough")

    monkeypatch.setattr(tl, "fit", caught)
    given = {
        **{"model": "hist2scrna", "preset": "small", "max-epochs": 100, "patience": 7, "batch-size": 8, "lr": 1e-4},
        **{"weight-decay": 0.02, "alpha": 0.3, "likelihood": "nb", "validation": 0.2, "accumulate": 2, "seed": 5},
        **{"precision": "32-true", "accelerator": "cpu", "devices": 2, "patch-px": 96, "patch-um": 120.0, "mpp": 0.5},
        **{
            "token-px": 8,
            "width": 64,
            "depth": 3,
            "heads": 4,
            "dropout": 0.2,
            "layer": "true_mean",
            "img-key": "hires",
        },
        **{"library-key": "library_id", "labels-key": "cell_type", "features-key": "f", "checkpoint-dir": "c"},
    }
    flags = [text for name, value in given.items() for text in (f"--{name}", value)]
    more = ["--option", "graph=false", "--option", "decoder=[32, 16]", "--loss", "smoothness=0.01", "--no-augment"]
    assert "enough" in run("fit", folder / "data", "--out", tmp_path / "m", *flags, *more, expect=1)
    for name, value in given.items():
        name = name.replace("-", "_")
        reached = seen[name] if name in seen else seen["training"][name]
        assert str(reached) == str(value), name
    assert (seen["graph"], seen["decoder"], seen["losses"], seen["training"]["augment"]) == (
        False,
        [32, 16],
        {"smoothness": 0.01},
        False,
    )
    assert seen["n_obs"] == 60


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("o.toml", 'max-epochs = 3\nmodel = "hist2scrna"\npreset = "tiny"\nlr = 0.001\n[option]\ndepth = 1\n'),
        ("o.yaml", "max_epochs: 3\nmodel: hist2scrna\npreset: tiny\nlr: 0.001\noption: {depth: 1}\n"),
        ("o.json", '{"max_epochs": 3, "model": "hist2scrna", "preset": "tiny", "lr": 0.001, "option": {"depth": 1}}'),
    ],
)
def test_options_from_a_file_and_flags_above_them(folder, tmp_path, name, text) -> None:
    (tmp_path / name).write_text(text)
    run("fit", folder / "data", "--config", tmp_path / name, "--max-epochs", 1, "--out", tmp_path / "m")
    model = TrainedModel.load(tmp_path / "m")
    assert model.parameters["training"]["max_epochs"] == 1
    assert model.parameters["training"]["lr"] == 0.001
    assert (model.parameters["preset"], model.options["depth"]) == ("tiny", 1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("o.toml", "epochs = 3", "Did you mean 'max_epochs'"),
        ("o.toml", "max-epochs = ", "cannot be read as options"),
        ("o.yaml", "a: [", "cannot be read as options"),
        ("o.yaml", "- 1", "table of options"),
        ("o.txt", "a", ".toml, .yaml"),
    ],
)
def test_bad_files_of_options(folder, tmp_path, name, text, said) -> None:
    (tmp_path / name).write_text(text)
    found = run("fit", folder / "data", "--config", tmp_path / name, "--out", tmp_path / "m", expect=2)
    assert said.replace(" ", "") in found.replace("│", "").replace(" ", "")
    assert not (tmp_path / "m").exists()


def test_errors_are_one_line_and_nothing_is_replaced(folder, tmp_path) -> None:
    (tmp_path / "there.h5ad").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    data, model = folder / "data", folder / "model"
    for arguments, said in {
        ("fit", tmp_path / "no", "--out", tmp_path / "m"): "No data at",
        ("fit", tmp_path / "empty", "--out", tmp_path / "m"): "holds no data",
        ("fit", tmp_path / "notes.txt", "--out", tmp_path / "m"): "is no data set",
        ("predict", tmp_path / "notes.txt", "--model", "her2-breast", "--out", tmp_path / "p.h5ad"): "is not an image",
        ("fit", data, "--out", model): "exists already",
        ("fit", data, "--preset", "huge", "--out", tmp_path / "m"): "Unknown preset",
        ("fit", data, "--model", "hist2scrnaa", "--out", tmp_path / "m"): "Did you mean 'hist2scrna'",
        ("fit", data, "--labels-key", "kind", "--out", tmp_path / "m"): "'kind'",
        ("predict", data, "--model", tmp_path / "empty", "--out", tmp_path / "p.h5ad"): "no saved model",
        ("predict", data, "--model", model, "--out", tmp_path / "there.h5ad"): "exists already",
        ("predict", data, "--model", model, "--out", tmp_path / "p.csv"): ".h5ad",
        ("evaluate", data): "hist2scrna_mean",
        ("report", tmp_path / "notes.txt"): "no evaluation",
        ("convert", data, "--out", tmp_path / "there.h5ad"): "exists already",
        ("info", tmp_path / "no"): "No data at",
    }.items():
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 1, (arguments, result.output)
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and said in errors[0], (arguments, result.stderr)
        assert "Traceback" not in result.output
    assert (tmp_path / "there.h5ad").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "notes.txt", "there.h5ad"]


def test_wrong_flags_end_with_two() -> None:
    run("fit", "--no-such-flag", expect=2)
    run("predict", "x.h5ad", expect=2)


@pytest.mark.parametrize(
    "command",
    [
        "simulate",
        "fit",
        "adapt",
        "predict",
        "evaluate",
        "benchmark",
        "report",
        "extract-features",
        "convert",
        "info",
        "demo",
    ],
)
def test_help_says_what_a_command_does(command) -> None:
    said = run(command, "--help")
    assert "Usage" in said and len(said) > 300


def test_a_terminal_and_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from hist2scrna.cli import app; app()", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("hist2scrna ")


def test_start_is_quick_because_nothing_heavy_is_imported() -> None:
    code = "import sys, hist2scrna.cli; print(any(m in sys.modules for m in ('torch', 'squidpy', 'lightning')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_convert_and_info(folder, tmp_path) -> None:
    run("convert", folder / "data", "--out", tmp_path / "both.zarr")
    both = ad.read_zarr(tmp_path / "both.zarr")
    assert both.n_obs == 60 and set(both.uns["spatial"]) == {"section_0", "section_1"}
    said = run("info", tmp_path / "both.zarr")
    assert "60 spots, 20 genes, 2 sections" in said
    assert "TrainedModel 'hist2scrna'" in run("info", folder / "model")


def test_info_knows_the_published_models_and_what_they_are_not_for(tmp_path) -> None:
    said = run("info", "her2-breast")
    assert "TrainedModel 'kernel'" in said and "not for: diagnosis" in said and "data license: CC BY 4.0" in said
    assert said == " ".join(
        subprocess.run(
            [sys.executable, "-m", "hist2scrna", "info", "her2-breast"], capture_output=True, text=True, check=True
        ).stdout.split()
    )


@pytest.mark.parametrize("hd", [False, True])
def test_what_space_ranger_writes_is_data(tmp_path, hd) -> None:
    """Each section is called as the run is, whose folder `outs` is in."""
    for run_name in ("first", "second"):
        outs = tmp_path / "runs" / run_name / "outs"
        factors = {"microns_per_pixel": 0.5, "bin_size_um": 8.0} if hd else {}
        write_section(outs / "binned_outputs" / "square_008um" if hd else outs, barcodes(), **factors)
    folders = [tmp_path / "runs" / name / "outs" for name in ("first", "second")]
    run("convert", *folders, "--out", tmp_path / "both.h5ad")
    both = ad.read_h5ad(tmp_path / "both.h5ad")
    assert set(both.uns["spatial"]) == {"first", "second"} and both.n_obs == 2 * len(barcodes())
    reader = io.read_visium_hd if hd else io.read_visium
    expected = reader(folders[0])
    own = both[both.obs["library_id"] == "first"]
    np.testing.assert_array_equal(own.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(own.obsm["spatial"], expected.obsm["spatial"])
    assert "2 sections" in run("info", tmp_path / "both.h5ad")


def test_info_tells_counts_from_predictions(folder, tmp_path) -> None:
    section = folder / "data" / "section_0.h5ad"
    run("predict", section, "--model", folder / "model", "--out", tmp_path / "p.h5ad")
    said = run("info", tmp_path / "p.h5ad")
    assert "counts X other layer 'true_dispersion', layer 'true_dropout'" in said
    by = "by model 'hist2scrna', preset 'tiny', trained on section_0, section_1: layers mean, dropout"
    assert f"predicted 'hist2scrna' {by}" in said
    assert "predicted nothing" in run("info", section)
    predicted = ad.read_h5ad(tmp_path / "p.h5ad")
    predicted.X = predicted.layers["hist2scrna_mean"]
    predicted.write_h5ad(tmp_path / "x.h5ad")
    assert "counts none other X" in run("info", tmp_path / "x.h5ad")


def test_spatialdata_is_read_as_any_other(folder, tmp_path) -> None:
    section = folder / "data" / "section_0.h5ad"
    run("convert", section, "--spatialdata", "--out", tmp_path / "s.zarr")
    run("convert", section, "--spatialdata", "--out", tmp_path / "s.zarr", expect=1)
    run("fit", tmp_path / "s.zarr", *FAST, "--out", tmp_path / "m")
    for data, out in ((section, "a.h5ad"), (tmp_path / "s.zarr", "b.h5ad")):
        run("predict", data, "--model", folder / "model", "--out", tmp_path / out)
    a, b = (ad.read_h5ad(tmp_path / name) for name in ("a.h5ad", "b.h5ad"))
    np.testing.assert_allclose(b.layers["hist2scrna_mean"], a.layers["hist2scrna_mean"], rtol=1e-4)
    sdata = spatialdata.read_zarr(tmp_path / "s.zarr")
    (name,) = sdata.images
    sdata.images["other"] = sdata.images[name]
    sdata.write(tmp_path / "two.zarr")
    assert "holds 2 images" in run("fit", tmp_path / "two.zarr", *FAST, "--out", tmp_path / "n", expect=1)
    run("convert", tmp_path / "two.zarr", "--image", name, "--out", tmp_path / "one.h5ad")
    np.testing.assert_allclose(ad.read_h5ad(tmp_path / "one.h5ad").obsm["spatial"], a.obsm["spatial"], atol=1e-6)


def test_a_picture_alone_is_described_and_predicted(folder, tmp_path) -> None:
    section = ad.read_h5ad(folder / "data" / "section_0.h5ad")
    picture = section.uns["spatial"]["section_0"]["images"]["hires"]
    path = tmp_path / "slide.tif"
    # 10,000 pixels a centimeter are a micron each.
    tifffile.imwrite(path, picture, tile=(128, 128), resolution=(1e4, 1e4), resolutionunit="CENTIMETER")
    height, width = picture.shape[:2]
    assert f"{width:,} x {height:,} px, microns a pixel: 1" in run("info", path)
    run("predict", path, "--spacing-um", 60, "--model", folder / "model", "--out", tmp_path / "p.h5ad")
    predicted = ad.read_h5ad(tmp_path / "p.h5ad")
    assert predicted.n_vars == 20 and predicted.n_obs > 10
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()
    xy = predicted.obsm["spatial"]
    assert (xy > 0).all() and xy[:, 0].max() < width and xy[:, 1].max() < height
    assert list(predicted.obs["library_id"].unique()) == ["slide"]
    shared = ("--model", folder / "model", "--out", tmp_path / "q.h5ad")
    assert "could not be told apart" in run("predict", path, path, *shared, expect=1)
    data = folder / "data" / "section_0.h5ad"
    assert "mixes images with data sets" in run("predict", path, data, *shared, expect=1)
    assert "Leave it out" in run("predict", data, "--spacing-um", 60, *shared, expect=1)


def test_slides_of_a_folder_are_sections_at_the_spacing_of_tissue_grid(folder, tmp_path) -> None:
    picture = ad.read_h5ad(folder / "data" / "section_0.h5ad").uns["spatial"]["section_0"]["images"]["hires"]
    (tmp_path / "slides").mkdir()
    for name in ("a", "b"):
        path = tmp_path / "slides" / f"{name}.tif"
        tifffile.imwrite(path, picture, tile=(128, 128), resolution=(1e4, 1e4), resolutionunit="CENTIMETER")
    run("predict", tmp_path / "slides", "--model", folder / "model", "--out", tmp_path / "map.h5ad")
    predicted = ad.read_h5ad(tmp_path / "map.h5ad")
    expected = pp.tissue_grid(tmp_path / "slides" / "a.tif")
    for name in ("a", "b"):
        own = predicted[predicted.obs["library_id"] == name]
        np.testing.assert_array_equal(own.obsm["spatial"], expected.obsm["spatial"])


def test_features_by_hand_feed_ridge(folder, tmp_path) -> None:
    run("extract-features", folder / "data", "--encoder", "morphology", "--out", tmp_path / "f.h5ad")
    by_hand = ad.read_h5ad(folder / "data" / "section_1.h5ad")
    pp.extract_features(by_hand, "morphology", progress=False)
    found = ad.read_h5ad(tmp_path / "f.h5ad")
    own = found[found.obs["library_id"] == "section_1"]
    np.testing.assert_array_equal(own.obsm["X_morphology"], by_hand.obsm["X_morphology"])
    run("fit", tmp_path / "f.h5ad", "--model", "ridge", "--features-key", "X_morphology", "--out", tmp_path / "m")
    assert TrainedModel.load(tmp_path / "m").name == "ridge"


def test_messages_name_options_and_not_arguments(folder, tmp_path) -> None:
    data, model = folder / "data", folder / "model"
    said = run("predict", data, "--model", model, "--mpp", "-1", "--out", tmp_path / "p.h5ad", expect=1)
    assert "--mpp" in said and "`mpp`" not in said and "mpp=" not in said
    said = "Pass mpp=0.5, or img_key='hires'; see `patch_um`."
    with speaking_shell(typer.main.get_command(app).commands["fit"]):
        assert one_line(said) == "Pass --mpp 0.5, or --img-key 'hires'; see --patch-um."
        # What is no option, or no argument, stays.
        for text in ("adata.obs['mpp=3']", "Lower n_genes=5.", "`nothing`", "a == b", "progress=False"):
            assert one_line(text) == text
    # And after the command all is as before.
    assert one_line(said) == said
    assert not [h for h in logging.getLogger("hist2scrna").handlers if isinstance(h.formatter, ShellFormatter)]


def test_cell_types_that_nobody_asked_for_do_not_stop_an_evaluation(folder, tmp_path) -> None:
    section = ad.read_h5ad(folder / "data" / "section_0.h5ad")
    section.obs["cell_type"] = section.obs["cell_type"].astype(str)
    section.obs.iloc[0, section.obs.columns.get_loc("cell_type")] = "rare"
    section.write_h5ad(tmp_path / "s.h5ad")
    run("predict", tmp_path / "s.h5ad", "--model", folder / "model", "--out", tmp_path / "p.h5ad")
    for of_model in ([], ["--model", folder / "model"]):
        said = run("evaluate", tmp_path / "p.h5ad", *of_model, "--out", tmp_path / "e.json")
        assert "Cell types are not scored: .obs['cell_type'] holds rare, which the model does not know" in said
        assert json.loads((tmp_path / "e.json").read_text())["cell_types"] == {}
    said = run("evaluate", tmp_path / "p.h5ad", "--labels-key", "cell_type", expect=1)
    assert "holds labels that the model never saw: ['rare']" in said


def test_settings_are_numbers_words_and_lists() -> None:
    given = ["a=1", "b=0.5", "c=word", "d=[1, 2]", "e=True", "f=false", "g-h=a=b", "i=None"]
    expected = {"a": 1, "b": 0.5, "c": "word", "d": [1, 2], "e": True, "f": False, "g_h": "a=b", "i": None}
    assert parse_settings(given) == expected
    with pytest.raises(ValueError, match="NAME=VALUE"):
        parse_settings(["depth"])


def test_quick_start_of_the_first_version(tmp_path) -> None:
    """Dummy data as a folder of patches, train by its flags, evaluate: each step has its command."""
    run(
        "simulate",
        "--preset",
        "small",
        "--spots",
        40,
        "--genes",
        25,
        "--format",
        "patches",
        "--out",
        tmp_path / "dummy",
    )
    folder = tmp_path / "dummy" / "section_0"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"patches", "gene_expression.csv", "spatial_coordinates.csv", "spatial_edges.csv", "cell_types.csv"}
    options = ["--patch-px", 32, "--token-px", 8, "--width", 24, "--depth", 2, "--heads", 2, "--dropout", 0.1]
    training = ["--max-epochs", 2, "--batch-size", 8, "--lr", 0.0001, "--weight-decay", 0.01, "--alpha", 0.1]
    out = tmp_path / "output"
    run("fit", folder, *options, *training, "--checkpoint-dir", out / "checkpoints", "--out", out / "model")
    model = TrainedModel.load(out / "model")
    assert (model.options["depth"], model.options["width"], model.geometry.px) == (2, 24, 32)
    assert TrainedModel.load(out / "checkpoints" / "best").genes == model.genes
    run("predict", folder, "--model", out / "model", "--out", out / "predicted.h5ad")
    run("evaluate", out / "predicted.h5ad", "--model", out / "model", "--out", out / "metrics.json")
    found = json.loads((out / "metrics.json").read_text())
    for part in ("scores", "zeros", "cell_types", "levels"):
        assert found[part]
