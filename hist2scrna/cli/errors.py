"""What a user reads when something is wrong: one line, and an exit code that scripts can test."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")
# What public functions raise where the input is wrong, a file is missing, or training diverged.
EXPECTED = (OSError, KeyError, TypeError, ValueError, ImportError, FloatingPointError, MemoryError)


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
            typer.echo(f"Error: {' '.join(str(said).split())}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "Interrupted.", err=True)
            raise typer.Exit(130) from error

    return run
