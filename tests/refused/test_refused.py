"""Every input in docs/refused_inputs.md is refused with the message that stands there, and nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from builders import fast
from refused.case import FEATURES, Bench, Case, files, state
from refused.cases import CASES
from typer.testing import CliRunner

import hist2scrna as h2s
from hist2scrna.cli import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "refused_inputs.md"
ROW = re.compile(r"\| (?P<given>.+?) \| (?P<by>.+?) \| `` (?P<message>.+) `` \|$")
# Stands in the page for what depends on the machine.
ELLIPSIS = "…"
FEWEST_ROWS = 100
# Of each kind, how many go through the shell in the quick tests.
FIRST = 2
FLAGS = {"layers": "--layer"}
ALL = [(kind, given) for kind, cases in CASES.items() for given in cases]


@pytest.fixture(scope="module")
def bench(make_section, tmp_path_factory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    adata = make_section()
    adata.obsm["f"] = np.random.default_rng(0).normal(size=(adata.n_obs, 6)).astype(np.float32)
    network, ridge = h2s.tl.fit(adata, **fast()), h2s.tl.fit(adata, **FEATURES)
    network.save(folder / "network")
    ridge.save(folder / "ridge")
    adata.write_h5ad(folder / "backed.h5ad")
    (folder / "here.h5ad").write_text("not for you", encoding="utf-8")
    return Bench(make_section, folder, network, ridge)


def written() -> dict[tuple[str, str], tuple[str, str]]:
    """Function and message of every row of the page, by kind and input."""
    rows: dict[tuple[str, str], tuple[str, str]] = {}
    kind = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif (row := ROW.match(line)) is not None:
            assert (kind, row["given"]) not in rows, f"twice: {row['given']}"
            rows[kind, row["given"]] = row["by"], row["message"]
    return rows


def message_of(error: Exception | str, folder: Path) -> str:
    """What the user reads, on one line, without where the files of the test lie."""
    text = error.args[0] if isinstance(error, KeyError) else error
    return " ".join(str(text).split()).replace(str(folder), ELLIPSIS)


def named(case: Case) -> str:
    """The function, and the command, as the page names them."""
    where = {"save": "TrainedModel.save", "tissue_grid": "pp.tissue_grid", "extract_features": "pp.extract_features"}
    function = f"`{where.get(case.by, f'tl.{case.by}')}`"
    return f"{function}, `hist2scrna {case.by}`" if case.shell else function


def agrees(message: str, template: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, template.split(ELLIPSIS))), message) is not None


def in_shell(text: str, command: str) -> str:
    """A message of Python with the names of options in place of those of arguments."""
    for option in typer.main.get_command(app).commands[command].params:
        text = text.replace(f"`{option.name}`", option.opts[-1])
        text = re.sub(rf"(?<![\w.]){option.name}=(?=[ .,;])", option.opts[-1], text)
    return text


def options_of(case: Case, bench: Bench) -> list[str]:
    """The arguments of a case as options of the command."""
    arguments = dict(case.arguments)
    if case.by == "fit":
        arguments = case.fit_arguments()
        arguments |= {"accelerator": "cpu", **arguments.pop("training", {})}
        arguments.pop("progress")
    else:
        arguments.setdefault("model", bench.folder / case.model)
    options = []
    for name, value in arguments.items():
        value = bench.folder / value.name if isinstance(value, Path) else value
        options += [FLAGS.get(name, f"--{name.replace('_', '-')}"), str(value)]
    return options


def through_the_shell() -> Iterator[Any]:
    """The cases that a command has, too; all but the first of each kind are slow: each is read from a file."""
    for kind, cases in CASES.items():
        for number, given in enumerate(given for given, case in cases.items() if case.shell):
            yield pytest.param(kind, given, marks=pytest.mark.slow if number >= FIRST else ())


def test_the_page_has_a_row_for_every_case() -> None:
    rows = written()
    assert len(ALL) >= FEWEST_ROWS
    assert set(rows) == set(ALL)
    assert {key: by for key, (by, _) in rows.items()} == {(k, g): named(CASES[k][g]) for k, g in ALL}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "given"), ALL)
def test_it_is_refused_and_nothing_is_changed(kind, given, bench) -> None:
    case, (_, expected) = CASES[kind][given], written()[kind, given]
    adata = bench.section()
    changed = case.change(adata)
    adata = adata if changed is None else changed
    before, there = state(adata), files(bench.folder)
    with pytest.raises(case.error) as error:
        case.run(adata, bench)
    said = message_of(error.value, bench.folder)
    assert agrees(said, expected), f"| {given} | {named(case)} | `` {said} `` |"
    assert state(adata) == before
    assert files(bench.folder) == there


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "given"), list(through_the_shell()))
def test_the_shell_says_the_same(kind, given, bench, tmp_path) -> None:
    case, (_, expected) = CASES[kind][given], written()[kind, given]
    adata = bench.section()
    changed = case.change(adata)
    path = tmp_path / "given.h5ad"
    (adata if changed is None else changed).write_h5ad(path)
    content = path.read_bytes()
    out = tmp_path / ("out.h5ad" if case.by == "predict" else "out")
    result = CliRunner().invoke(app, [case.by, str(path), "--out", str(out), *options_of(case, bench)])
    assert result.exit_code == 1, result.output
    last = result.output.strip().splitlines()[-1]
    said = message_of(last.removeprefix("Error: "), bench.folder)
    assert agrees(said, in_shell(expected, case.by)), said
    assert not out.exists() and path.read_bytes() == content
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["given.h5ad"]
