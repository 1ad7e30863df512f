"""What a benchmark is asked for on the command line: data sets, genes, models with options."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_data(given: Sequence[str]) -> dict[str, str]:
    """Return the paths of data sets by name, from `PATH` or `NAME=PATH`.

    Raises
    ------
    ValueError
        If a name occurs twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text).stem, text
        if name in found:
            raise ValueError(f"Two data sets are called {name!r}: '{found[name]}' and '{path}'. Give NAME=PATH.")
        found[name] = path
    return found


def read_genes(given: str | None) -> list[str] | str | None:
    """Return the genes of a file, one a line; what is no file is taken for a column of `.var`.

    Raises
    ------
    ValueError
        If the file is empty.
    """
    if given is None or not Path(given).is_file():
        return given
    genes = Path(given).read_text(encoding="utf-8").split()
    if not genes:
        raise ValueError(f"'{given}' holds no gene: expected one name a line.")
    return genes


def read_model_file(path: Path) -> dict[str, dict[str, Any]]:
    """Return models by label, with the arguments of `fit`, from TOML or JSON.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is neither TOML nor JSON, or not a table a label.
    """
    found = read_table(path, "models")
    if not all(isinstance(options, dict) for options in found.values()):
        raise ValueError(f"Expected a table a label in '{path}', each with model = \"...\" and arguments of fit in it.")
    return {label: {"model": label, **options} for label, options in found.items()}


def read_table(path: Path, what: str) -> dict[str, Any]:
    """Return the table that a file of TOML or JSON holds.

    Parameters
    ----------
    path
        The file; one that does not end in `.json` is TOML.
    what
        What it holds, for messages.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is neither TOML nor JSON, or no table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No file of {what} at '{path}'.")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is no {'JSON' if path.suffix == '.json' else 'TOML'}: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"Expected a table of {what} by name in '{path}', found {type(found).__name__}.")
    return found
