"""Options of the shell are those of the public functions: none is missing, and what is left out changes nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hist2scrna import Neighbors, Training, datasets, pp, tl
from hist2scrna.cli import app
from hist2scrna.cli.benchmark import OTHERWISE as NOT_OF_BENCHMARK
from hist2scrna.cli.evaluate import OTHERWISE as NOT_OF_EVALUATE
from hist2scrna.cli.extract_features import OTHERWISE as NOT_OF_EXTRACT_FEATURES
from hist2scrna.cli.fit import OTHERWISE as NOT_OF_FIT
from hist2scrna.cli.options import Argument, arguments_of
from hist2scrna.cli.pool import OTHERWISE as NOT_OF_POOL
from hist2scrna.cli.predict import OTHERWISE as NOT_OF_PREDICT


def options_of(command: str) -> dict[str, object]:
    commands = typer.main.get_command(app).commands
    return {str(parameter.name): parameter for parameter in commands[command].params}


def keywords(function) -> set[str]:
    return {name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}


def test_no_argument_of_fit_is_missing():
    expected = keywords(tl.fit) - set(NOT_OF_FIT)
    expected |= {field.name for field in fields(Training)} | {"n_neighbors", "radius_um", "loss", "option"}
    assert expected <= set(options_of("fit"))
    assert {field.name for field in fields(Neighbors)} == {"kind", "n_neighbors", "radius_um"}


def test_no_argument_of_predict_is_missing():
    assert keywords(tl.predict) - set(NOT_OF_PREDICT) <= set(options_of("predict"))


def test_no_argument_of_pool_patches_is_missing():
    assert keywords(pp.pool_patches) - set(NOT_OF_POOL) | {"features_key"} <= set(options_of("pool"))


@pytest.mark.parametrize(
    ("command", "function", "otherwise", "positional"),
    [
        ("evaluate", tl.evaluate, NOT_OF_EVALUATE, {"model"}),
        ("benchmark", tl.benchmark, NOT_OF_BENCHMARK, {"model", "models", "splits"}),
        ("extract-features", pp.extract_features, NOT_OF_EXTRACT_FEATURES, {"encoder"}),
        ("adapt", tl.adapt, ("progress",), {"model"}),
    ],
)
def test_the_options_are_the_arguments_of_the_function(command, function, otherwise, positional):
    """None is missing, none has another name, and beyond them there is only what a shell needs."""
    of_the_shell = {"data", "out", "config", "overwrite"} & set(options_of(command))
    assert set(otherwise) <= keywords(function)
    assert set(options_of(command)) == keywords(function) - set(otherwise) | positional | of_the_shell


def test_every_option_says_what_it_is():
    for command in ("fit", "predict", "pool", "evaluate", "benchmark", "extract-features"):
        bare = [name for name, parameter in options_of(command).items() if not parameter.help and name != "help"]
        assert bare == []


def test_types_and_sentences_are_those_of_the_source():
    found = {argument.name: argument for argument in arguments_of("models.training", "Training")}
    assert (found["lr"].type, found["max_epochs"].type, found["augment"].type) == (float, int, bool)
    assert found["lr"].help == "Learning rate."


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("Sequence[int]", list[int]),
        ("Mapping[str, Sequence[str]] | Sequence[str] | None", list[str]),
        ("float | Sequence[str] | None", list[str]),
        ("Sequence[str] | str | None", str),
        ("str | Path | None", Path),
        ("float | None", float),
        ("Precision | None", str),
    ],
)
def test_what_the_shell_reads_for_an_annotation(annotation, expected):
    assert Argument("a", annotation, "").type == expected


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys, typer; from typer.testing import CliRunner; from hist2scrna.cli import app\n"
        "codes = [CliRunner().invoke(app, [c, '--help']).exit_code for c in typer.main.get_command(app).commands]\n"
        "print(len(codes), set(codes), {'torch', 'squidpy', 'lightning', 'anndata'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{len(typer.main.get_command(app).commands)} {{0}} set()"


@pytest.mark.parametrize("more", [[], ["--lr", "0.002", "--n-neighbors", "3", "--neighbors", "knn"]])
def test_what_is_left_out_in_the_shell_is_left_out_in_fit(tmp_path, monkeypatch, more):
    """So that both choose and fit the same."""
    seen = {}

    def caught(adata, **arguments):
        seen.update(arguments)
        raise ValueError("enough")

    monkeypatch.setattr(tl, "fit", caught)
    (section,) = datasets.simulate("small", n_spots=16, n_genes=8)
    del section.obs["cell_type"]
    section.write_h5ad(tmp_path / "section.h5ad")
    out = tmp_path / "model"
    CliRunner().invoke(app, ["fit", str(tmp_path / "section.h5ad"), "--out", str(out), *more])
    changed = {name: value for name, value in seen.items() if value not in (None, {})}
    expected = {"training": {"lr": 0.002}, "neighbors": Neighbors("knn", 3)} if more else {}
    assert changed == expected


@pytest.fixture
def asked(monkeypatch):
    """What a command asks of a function: its arguments, of which the function keeps none."""

    def ask(namespace, name, *command):
        seen = {}

        def caught(*positional, **arguments):
            seen.update(arguments, positional=positional[1:])
            raise ValueError("enough")

        monkeypatch.setattr(namespace, name, caught)
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 1 and result.stderr == "Error: enough\n", result.output
        return {key: value for key, value in seen.items() if value is not None}

    return ask


@pytest.fixture
def section_file(tmp_path):
    (section,) = datasets.simulate("small", n_spots=16, n_genes=8)
    del section.obs["cell_type"]
    section.write_h5ad(tmp_path / "section.h5ad")
    return tmp_path / "section.h5ad"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], {}),
        (
            ["--key", "mine", "--layer", "true_mean", "--labels-key", "kind", "--library-key", "slide", "--seed", "3"],
            {"key": "mine", "layer": "true_mean", "labels_key": "kind", "library_key": "slide", "seed": 3},
        ),
        (["--labels-key", ""], {}),
    ],
)
def test_what_is_left_out_in_the_shell_is_left_out_in_evaluate(asked, section_file, more, expected):
    assert asked(tl, "evaluate", "evaluate", section_file, *more) == {"positional": (None,), **expected}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], {}),
        (
            ["--model", "ridge", "--model", "stnet"],
            {"models": {"ridge": {"model": "ridge"}, "stnet": {"model": "stnet"}}},
        ),
        (
            ["--fold", "a", "--fold", "b", "--seed", "1", "--seed", "2", "--n-genes", "9", "--min-detected", "0.2"],
            {"folds": ["a", "b"], "seeds": [1, 2], "n_genes": 9, "min_detected": 0.2},
        ),
        (
            ["--group-key", "d", "--layer", "l", "--labels-key", "", "--library-key", "s", "--keep-models"],
            {"group_key": "d", "layer": "l", "labels_key": "", "library_key": "s", "keep_models": True},
        ),
        (["--genes", "panel", "--accelerator", "cpu"], {"genes": "panel", "accelerator": "cpu"}),
    ],
)
def test_what_is_left_out_in_the_shell_is_left_out_in_benchmark(asked, tmp_path, more, expected):
    found = asked(tl, "benchmark", "benchmark", "x=x.h5ad", "--out", tmp_path / "o", *more)
    assert found == {"positional": (), "folder": tmp_path / "o", **expected}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], {}),
        (
            ["--encoder", "uni", "--key-added", "X_u", "--weights", "w.pt", "--store", "parts", "--batch-size", "4"],
            {"encoder": "uni", "key_added": "X_u", "weights": Path("w.pt"), "store": Path("parts"), "batch_size": 4},
        ),
        (
            ["--patch-um", "55", "--patch-px", "448", "--precision", "32-true", "--spatial-key", "xy", "--mpp", "0.5"],
            {"patch_um": 55.0, "patch_px": 448, "precision": "32-true", "spatial_key": "xy", "mpp": 0.5},
        ),
        (
            ["--library-key", "slide", "--img-key", "hires", "--image", "a.tif", "--accelerator", "cpu"],
            {"library_key": "slide", "img_key": "hires", "image": "a.tif", "accelerator": "cpu"},
        ),
    ],
)
def test_what_is_left_out_in_the_shell_is_left_out_in_extract_features(asked, section_file, tmp_path, more, expected):
    out = tmp_path / "features.h5ad"
    found = asked(pp, "extract_features", "extract-features", section_file, "--out", out, *more)
    assert found == {"positional": (), **expected}
    assert not out.exists()


def test_a_file_of_options_has_the_names_of_the_shell(asked, tmp_path):
    """Some arguments have another name there, since an option is given once for each value."""
    (tmp_path / "o.toml").write_text('fold = ["a"]\nseed = [1, 2]\nmin-detected = 0.3\n')
    more = ["--config", tmp_path / "o.toml", "--out", tmp_path / "o"]
    found = asked(tl, "benchmark", "benchmark", "x.h5ad", *more, "--seed", "5")
    assert (found["folds"], found["seeds"], found["min_detected"]) == (["a"], [5], 0.3)
    (tmp_path / "o.toml").write_text('folds = ["a"]\n')
    result = CliRunner().invoke(app, ["benchmark", "x.h5ad", *map(str, more)])
    assert result.exit_code == 2 and "Did you mean 'fold'?" in result.output
