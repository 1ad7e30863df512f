"""The examples of the public functions run, and give what they say."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hist2scrna
from hist2scrna.models import registry

DOCS = Path(__file__).resolve().parents[2] / "docs"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMESPACES = ("datasets", "encoders", "io", "metrics", "models", "pl", "pp", "tl", "zinb")
# They start a process for each job, train, encode or draw for longer than the others together.
SLOW = {
    "encoders.Encoder",
    "io.from_spatialdata",
    "models.Hist2ST",
    "models.STNet",
    "pl.attention",
    "pl.benchmark",
    "pl.ranked_genes",
    "pl.scatter",
    "pl.spatial_compare",
    "pp.extract_features",
    "pp.pool_patches",
    "pp.segment_nuclei",
    "report",
    "tl.adapt",
    "tl.attention",
    "tl.benchmark",
}
# Their input is on no machine but the reader's, or on the network.
NEED_FILES = {
    "datasets.her2st",
    "datasets.her2st_counts",
    "io.read_nuclei",
    "io.read_visium",
    "io.read_visium_hd",
    "io.read_xenium",
}


def public_objects() -> dict[str, Any]:
    """Every public function and class of the API page by its name."""
    found = {f"{space}.{name}": getattr(getattr(hist2scrna, space), name) for space in NAMESPACES
             for name in getattr(hist2scrna, space).__all__}  # fmt: skip
    return found | {name: getattr(hist2scrna, name) for name in ("report", "Training", "Neighbors", "TrainedModel")}


OBJECTS = public_objects()
WITH_EXAMPLES = [name for name, value in OBJECTS.items() if ">>>" in (inspect.getdoc(value) or "")]


def test_every_public_function_has_an_example_that_runs() -> None:
    functions = {name for name, value in OBJECTS.items() if inspect.isfunction(value)}
    assert functions - set(WITH_EXAMPLES) == set()
    assert {name for name in WITH_EXAMPLES if "doctest: +SKIP" in inspect.getdoc(OBJECTS[name])} == NEED_FILES


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> dict[str, Any]:
    """What the page of the API makes for its examples, by the very code that it shows."""
    code = re.search(r"```python\n(.*?)```", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code is not None
    made: dict[str, Any] = {}
    exec(code[1], made)
    return made


@pytest.fixture
def names(setup, tmp_path, monkeypatch) -> Iterator[dict[str, Any]]:
    """A copy of these, in an empty folder; models that an example registers are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    yield {name: value.copy() if hasattr(value, "obs_names") else value for name, value in setup.items()}
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.close("all")


def run(name: str, names: dict[str, Any]) -> None:
    text = inspect.getdoc(OBJECTS[name])
    test = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if name not in SLOW])
def test_example(name, names) -> None:
    run(name, names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(SLOW))
def test_long_example(name, names) -> None:
    run(name, names)
