"""Where a result cannot go is said before anything is read, let alone computed."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from hist2scrna.cli import app
from hist2scrna.tl import predict

COMMANDS = {
    "fit": ["fit", "no-data.h5ad"],
    "predict": ["predict", "no-data.h5ad", "--model", "no-model"],
    "extract-features": ["extract-features", "no-data.h5ad"],
    "pool": ["pool", "no-data.h5ad", "--by", "x"],
}
OF_ADATA = [name for name in COMMANDS if name != "fit"]


def refused(command, out, *more) -> str:
    result = CliRunner().invoke(app, [*COMMANDS[command], "--out", str(out), *more])
    assert result.exit_code == 1, result.output
    said = " ".join(result.output.split())
    assert "no-data" not in said and "no-model" not in said
    return said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_takes_no_file_is_refused_first(command, tmp_path):
    (tmp_path / "file").write_text("here")
    for above in (tmp_path / "file", "/proc"):
        said = refused(command, f"{above}/deep/x.h5ad")
        assert f"Nothing can be written to '{above}/deep/x.h5ad'" in said and "Choose another place" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "here"


@pytest.mark.parametrize("command", OF_ADATA)
@pytest.mark.parametrize("name", ["x.csv", "x", "x.h5ad.gz"])
def test_an_ending_that_is_no_anndata_is_refused_first(command, name, tmp_path):
    assert "['.h5ad', '.zarr']" in refused(command, tmp_path / name)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_there_is_refused_first(command, tmp_path):
    (tmp_path / "x.h5ad").write_text("here")
    assert "exists already. Pass --overwrite" in refused(command, tmp_path / "x.h5ad")
    assert (tmp_path / "x.h5ad").read_text() == "here"


def test_what_is_no_model_is_not_overwritten_by_one(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert "holds no model.json" in refused("fit", tmp_path, "--overwrite")
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(("store", "error"), [("x.csv", ValueError), ("/proc/x.h5ad", OSError)])
def test_a_store_is_refused_before_the_model_is_loaded(store, error, make_section):
    with pytest.raises(error, match="store|Nothing can be written"):
        predict(make_section(), "no-model", store=store)
