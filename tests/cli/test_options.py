"""Options of the shell are those of the public functions: none is missing, and what is left out changes nothing."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import typer
from typer.testing import CliRunner

from hist2scrna import Neighbors, Training, datasets, pp, tl
from hist2scrna.cli import app
from hist2scrna.cli.fit import OTHERWISE as NOT_OF_FIT
from hist2scrna.cli.options import arguments_of
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


def test_every_option_says_what_it_is():
    for command in ("fit", "predict", "pool"):
        bare = [name for name, parameter in options_of(command).items() if not parameter.help and name != "help"]
        assert bare == []


def test_types_and_sentences_are_those_of_the_source():
    found = {argument.name: argument for argument in arguments_of("models.training", "Training")}
    assert (found["lr"].type, found["max_epochs"].type, found["augment"].type) == (float, int, bool)
    assert found["lr"].help == "Learning rate."


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
