"""What a user reads when something is wrong: one line in the words of the shell, and an exit code for scripts."""

from __future__ import annotations

import functools
import logging
import re
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

P = ParamSpec("P")
R = TypeVar("R")
# What public functions raise where the input is wrong, a file is missing, or training diverged.
EXPECTED = (OSError, KeyError, TypeError, ValueError, ImportError, FloatingPointError, MemoryError)

# An argument as messages write it: `name`, name=, or name=value.
ARGUMENT = re.compile(r"`(?P<quoted>\w+)`|(?<![\w.'-])(?P<name>[a-z_]+)=(?P<value>'[^']*'|[\w.]*\w)?(?![\w({\[])")

# Options of the command that runs, by the arguments that they stand for.
_options: ContextVar[Mapping[str, str]] = ContextVar("_options")


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
            typer.echo(f"Error: {one_line(str(said))}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "Interrupted.", err=True)
            raise typer.Exit(130) from error

    return run


@contextmanager
def speaking_shell(command: Any) -> Iterator[None]:
    """Let errors, warnings and the log name the options of a command of typer, for as long as it runs."""
    token = _options.set({p.name: p.opts[-1] for p in command.params if p.name and p.opts[-1].startswith("--")})
    formatters = {handler: handler.formatter for handler in logging.getLogger("hist2scrna").handlers}
    for handler in formatters:
        handler.setFormatter(ShellFormatter())
    try:
        with warnings.catch_warnings():
            # Squidpy's import says this of its own docstrings; it is of no use to who reads a terminal.
            warnings.filterwarnings("ignore", category=SyntaxWarning, module="docrep")
            warnings.showwarning = _warn
            yield
    finally:
        for handler, formatter in formatters.items():
            handler.setFormatter(formatter)
        _options.reset(token)


def _warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning for the user in a line; those of libraries about themselves are left out."""
    if issubclass(category, UserWarning):
        typer.echo(f"Warning: {one_line(str(message))}", err=True)


class ShellFormatter(logging.Formatter):
    """Lines of the log in the words of the shell."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return in_shell_words(super().format(record))


def in_shell_words(text: str) -> str:
    """Return a message with the arguments that it names as options of the command that runs.

    `mpp=0.5` and `` `mpp` `` become `--mpp 0.5` and `--mpp`; what is no option of the command stays as it is.
    """
    options = _options.get({})

    def option(match: re.Match[str]) -> str:
        name, value = match["quoted"] or match["name"], match["value"]
        if name not in options:
            return match[0]
        return options[name] if value in (None, "True") else f"{options[name]} {value}"

    return ARGUMENT.sub(option, text)


def one_line(text: str) -> str:
    """Return a message in one line, in the words of the shell."""
    return in_shell_words(" ".join(text.split()))
