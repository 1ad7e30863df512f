"""The tutorials run from top to bottom, and keep what they showed when they were last run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = sorted((Path(__file__).resolve().parent.parent / "tutorials").glob("*.ipynb"))
FIRST = "from_histology_to_expression"
ON_HER2ST = "another_donor"
# Warnings of other libraries name the folders of the machine; so would a file of ours.
PLACES = re.compile(r"site-packages|/tmp/|/home/|/root/|/Users/")


def stored_outputs(notebook):
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def texts(outputs):
    """Return what outputs say as text."""
    plain = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs]
    return [text for text in plain if text]


def slots(outputs):
    """Return what tells the slots of AnnData, whatever their numbers are."""
    return [text for text in texts(outputs) if text.startswith("AnnData object")]


def test_there_are_tutorials():
    assert FIRST in [path.stem for path in TUTORIALS]
    assert ON_HER2ST in [path.stem for path in TUTORIALS]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_stored_outputs_are_those_of_one_whole_run(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    shown = stored_outputs(notebook)
    assert "error" not in {out.output_type for out in shown}
    assert any("image/png" in out.get("data", {}) for out in shown)
    assert [text for text in texts(shown) if PLACES.search(text)] == []
    # Each says how good its predictions are, beside what needs no image.
    assert any("depth baseline" in text or "depth_baseline" in text for text in texts(shown))


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(path, monkeypatch, request):
    if path.stem == ON_HER2ST and "HIST2SCRNA_TUTORIAL_HER2ST" not in os.environ:
        # Set to nothing, it says that the sections may be downloaded.
        monkeypatch.setenv("HIST2SCRNA_TUTORIAL_HER2ST", str(request.getfixturevalue("shared_data") / "her2st"))
    monkeypatch.setenv("HIST2SCRNA_TUTORIAL_EPOCHS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    sources, stored = [cell.source for cell in notebook.cells], slots(stored_outputs(notebook))
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute()
    assert [cell.source for cell in notebook.cells] == sources
    shown = stored_outputs(notebook)
    assert any("image/png" in out.get("data", {}) for out in shown)
    assert slots(shown) == stored
    if path.stem == FIRST:
        assert any("TrainedModel 'hist2scrna'" in text for text in texts(shown))
