"""What a user reads when something is wrong: one line in the words of the shell, and an exit code for scripts."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click
import typer

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")
# What public functions raise where the input is wrong, a file is missing, or training diverged.
EXPECTED = (OSError, KeyError, TypeError, ValueError, ImportError, FloatingPointError, MemoryError)

# An argument as messages write it: `name`, name=, or name=value.
ARGUMENT = re.compile(r"`(?P<quoted>\w+)`|(?<![\w.'-])(?P<name>[a-z_]+)=(?P<value>'[^']*'|[\w.]*\w)?(?![\w({\[])")


def in_one_line(command: Callable[P, R]) -> Callable[P, R]:
    """Turn expected errors of a command into one line on standard error and exit code 1.

    Wrong arguments end with 2 (Click's own), an interruption with 130.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EXPECTED as error:
            # The text of a KeyError is quoted by Python, that of an OSError comes with its number.
            said = error.args[0] if isinstance(error, KeyError) and error.args else error
            typer.echo(f"Error: {in_shell_words(str(said))}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "Interrupted.", err=True)
            raise typer.Exit(130) from error

    return run


def in_shell_words(text: str) -> str:
    """Return a message in one line, with the arguments that it names as options of the command that runs.

    `mpp=0.5` and `` `mpp` `` become `--mpp 0.5` and `--mpp`; what is no option of the command stays as it is.
    """
    line = " ".join(text.split())
    context = click.get_current_context(silent=True)
    if context is None:
        return line
    options = {p.name: p.opts[-1] for p in context.command.params if p.name and p.opts[-1].startswith("--")}

    def option(match: re.Match[str]) -> str:
        name, value = match["quoted"] or match["name"], match["value"]
        if name not in options:
            return match[0]
        return options[name] if value in (None, "True") else f"{options[name]} {value}"

    return ARGUMENT.sub(option, line)
