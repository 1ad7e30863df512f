"""Options of a command from the public function that it calls: names, types and help, read from its source.

The source is parsed and not imported, so that `--help` does not wait for PyTorch.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PACKAGE = Path(__file__).resolve().parent.parent
ENTRY = re.compile(r"^(\w[\w, *]*?)(?: : .*)?$")
# An AnnData is read from its path.
WORDS: dict[str, type] = {"float": float, "int": int, "Path": Path, "str": str, "AnnData": Path}


@dataclass(frozen=True)
class Argument:
    """An argument of a public function, or a field of a dataclass: its name, annotation, and description."""

    name: str
    annotation: str
    description: str

    @property
    def type(self) -> type | Any:
        """What the shell reads for it: a number, a flag, a path, a word, or several words."""
        parts = {part.strip() for part in re.sub(r"\[[^\]]*\]", "[]", self.annotation).split("|")}
        if "bool" in parts:
            return bool
        if "Sequence[]" in parts and "str" not in parts:
            return GenericAlias(list, WORDS[re.findall(r"Sequence\[(\w+)\]", self.annotation)[-1]])
        if "Sequence[]" in parts:
            return str
        return next((kind for name, kind in WORDS.items() if name in parts), str)

    @property
    def help(self) -> str:
        """The first sentence of its description, without markup."""
        text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", " ".join(self.description.split())).replace("`", "")
        return re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(";")


def arguments_of(module: str, name: str) -> list[Argument]:
    """Return the keyword arguments of a function, or the fields of a dataclass, with their descriptions.

    Parameters
    ----------
    module
        Its module below the package, `tl._fit` for instance.
    name
        Name of the function or class.
    """
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name)
    described = _descriptions(ast.get_docstring(node) or "")
    if isinstance(node, ast.FunctionDef):
        found = [(a.arg, a.annotation) for a in node.args.kwonlyargs]
    else:
        found = [(a.target.id, a.annotation) for a in node.body if isinstance(a, ast.AnnAssign)]  # type: ignore[union-attr]
    return [Argument(key, "" if kind is None else ast.unparse(kind), described.get(key, "")) for key, kind in found]


def _descriptions(docstring: str) -> dict[str, str]:
    """Return what a numpydoc docstring says of each parameter or attribute."""
    _, _, rest = re.split(r"^(Parameters|Attributes)\n-+\n", docstring, maxsplit=1, flags=re.MULTILINE)
    body = re.split(r"^\w+\n-+$", rest, maxsplit=1, flags=re.MULTILINE)[0]
    described: dict[str, str] = {}
    names: list[str] = []
    for line in body.splitlines():
        entry = ENTRY.match(line)
        if entry:
            names = [part.strip(" *") for part in entry[1].split(",")]
        for name in names if not entry else ():
            described[name] = f"{described.get(name, '')} {line.strip()}".strip()
    return described


def with_options(
    groups: Mapping[str, Iterable[Argument]], renamed: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes `**options` one option for each argument, in named panels; what is left out is None.

    Parameters
    ----------
    groups
        Arguments by the title of their panel.
    renamed
        Names on the command line that differ from those of the arguments.
    """
    renamed = renamed or {}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                argument.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    argument.type | None,
                    typer.Option(
                        *([renamed[argument.name]] if argument.name in renamed else []),
                        help=argument.help,
                        rich_help_panel=panel,
                        show_default=False,
                    ),
                ],
            )
            for panel, arguments in groups.items()
            for argument in arguments
        ]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        return command

    return decorate


def given(options: Mapping[str, Any], arguments: Iterable[Argument]) -> dict[str, Any]:
    """Return the options of some arguments that were given on the command line."""
    return {a.name: options[a.name] for a in arguments if options.get(a.name) is not None}
