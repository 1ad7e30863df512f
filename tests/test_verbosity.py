"""What is said on the way: as much as was asked for, here or in Scanpy, above progress bars and only once."""

from __future__ import annotations

import subprocess
import sys

import pytest
import scanpy as sc

from hist2scrna import settings
from hist2scrna.verbosity import Verbosity

# As in a notebook, the root logger has no handler; pytest gives it some.
SAY = """
import logging, sys
import hist2scrna
from hist2scrna.verbosity import HINT
log = logging.getLogger("hist2scrna.made_up")
def say():
    for level, text in ((logging.DEBUG, "d"), (HINT, "h"), (logging.INFO, "i"), (logging.WARNING, "w"), (logging.ERROR, "e")):
        log.log(level, "<%s>", text)
"""  # noqa: E501


def said(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SAY + code], capture_output=True, text=True, check=True
    )


@pytest.fixture(autouse=True)
def as_before():
    scanpy = sc.settings.verbosity
    yield
    settings.verbosity, sc.settings.verbosity = None, scanpy


def test_each_level_includes_those_before() -> None:
    code = """
for level in (None, *range(5)):
    hist2scrna.settings.verbosity = level
    print(level, file=sys.stderr)
    say()
"""
    assert said(code).stderr.split() == [
        *("None", "<i>", "WARNING:", "<w>", "ERROR:", "<e>"),
        *("0", "ERROR:", "<e>"),
        *("1", "WARNING:", "<w>", "ERROR:", "<e>"),
        *("2", "<i>", "WARNING:", "<w>", "ERROR:", "<e>"),
        *("3", "<h>", "<i>", "WARNING:", "<w>", "ERROR:", "<e>"),
        *("4", "<d>", "<h>", "<i>", "WARNING:", "<w>", "ERROR:", "<e>"),
    ]


def test_a_notebook_has_it_on_its_standard_output() -> None:
    done = said("import builtins; builtins.__IPYTHON__ = True; say()")
    assert done.stdout.split() == ["<i>", "WARNING:", "<w>", "ERROR:", "<e>"] and done.stderr == ""


def test_a_line_leaves_no_rest_of_a_progress_bar() -> None:
    code = "from tqdm.auto import tqdm\nwith tqdm(total=3, desc='fit') as bar:\n    bar.update(); say(); bar.update()"
    shown = said(code).stderr
    # The bar is overwritten with blanks before the line is written; a carriage return reads as a new line.
    *_, bar, blank = shown.partition("<i>")[0].splitlines()
    assert bar.startswith("fit:") and blank.isspace() and len(blank) >= len(bar)


def test_where_logging_is_set_up_its_handlers_have_it_once() -> None:
    code = "logging.basicConfig(stream=sys.stdout, format='%(name)s %(message)s'); say()"
    done = said(code)
    assert done.stdout.splitlines() == [f"hist2scrna.made_up <{c}>" for c in "iwe"]
    assert done.stderr == ""


def test_names_and_numbers() -> None:
    for name, number in (("error", 0), ("warning", 1), ("info", 2), ("hint", 3), ("debug", 4)):
        for value in (name, number, sc.settings.verbosity.__class__(number)):
            settings.verbosity = value
            assert settings.verbosity == number and settings.verbosity.name == name
    assert repr(settings) == f"Settings(verbosity='debug', cache_dir={settings.cache_dir!r})"
    with pytest.raises(ValueError, match="Unknown verbosity 'infos'. Did you mean 'info'?"):
        settings.verbosity = "infos"
    with pytest.raises(ValueError, match="0 to 4, found 5"):
        settings.verbosity = 5
    assert settings.verbosity == Verbosity.debug


def test_scanpy_is_followed_where_it_was_set_and_ours_was_not() -> None:
    assert settings.verbosity == Verbosity.info
    sc.settings.verbosity = 3
    assert settings.verbosity == Verbosity.hint
    sc.settings.verbosity = "error"
    assert settings.verbosity == Verbosity.error
    settings.verbosity = "warning"
    assert settings.verbosity == Verbosity.warning
    settings.verbosity = None
    assert settings.verbosity == Verbosity.error


def test_what_was_chosen_and_why_is_seen_by_default() -> None:
    code = """
sections = hist2scrna.datasets.simulate("small", n_sections=1, n_spots=30, n_genes=40)
hist2scrna.tl.fit(sections[0], encoder="morphology", training={"augment": False})
"""
    shown = said(code).stderr
    assert "model='auto' chose 'kernel': 30 spots" in shown and "Pass model= to choose another." in shown
    assert "neighbors" not in shown
