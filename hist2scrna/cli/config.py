"""Options from a file: TOML, YAML or JSON; what is given on the command line wins."""

from __future__ import annotations

import json
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer


def read_config(path: Path) -> dict[str, Any]:
    """Return the table that a file of options holds; names may have hyphens or underscores.

    Raises
    ------
    ValueError
        If the file is neither TOML, YAML nor JSON by its ending, cannot be parsed, or is no table.
    """
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".toml":
            found: Any = tomllib.loads(text)
        elif path.suffix == ".json":
            found = json.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            import yaml

            try:
                found = yaml.safe_load(text) or {}
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from error
        else:
            raise ValueError(f"expected a file that ends in .toml, .yaml, .yml or .json, found {path.suffix!r}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' cannot be read as options: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"Expected '{path}' to be a table of options, found {type(found).__name__}.")
    return {str(name).replace("-", "_"): value for name, value in found.items()}


def _take(context: typer.Context, path: Path | None) -> Path | None:
    """Let the file's options be the defaults of the command that runs."""
    if path is None or context.resilient_parsing:
        return path
    try:
        found = read_config(path)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    known = {
        spelled.lstrip("-").replace("-", "_"): str(parameter.name)
        for parameter in context.command.params
        for spelled in parameter.opts
        if parameter.name != "config"
    }
    for name in found:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise typer.BadParameter(f"'{path}' has an unknown option {name!r}.{hint}")
    defaults = {
        known[name]: [f"{key}={json.dumps(given)}" for key, given in value.items()]
        if isinstance(value, dict)
        else value
        for name, value in found.items()
    }
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        help="File with options of this command, TOML, YAML or JSON; those given here win over it.",
        callback=_take,
        is_eager=True,
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]


def parse_settings(given: list[str] | None) -> dict[str, Any]:
    """Return `NAME=VALUE` pairs as a dictionary; values are numbers, true or false, lists, or words.

    Raises
    ------
    ValueError
        If there is no `=`.
    """
    found: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"Expected NAME=VALUE, found {text!r}.")
        try:
            found[name.strip().replace("-", "_")] = json.loads(value)
        except (ValueError, RecursionError):
            words = {"True": True, "False": False, "None": None}
            found[name.strip().replace("-", "_")] = words.get(value, value)
    return found
