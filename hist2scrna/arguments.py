"""Values of arguments, refused in the same words wherever they are taken."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def require_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number in a range.

    Raises
    ------
    ValueError
        If it is none; the value is named.
    """
    fits = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
    if not fits or (most is not None and int(value) > most):
        reach = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"Expected `{name}` to be a whole number {reach}, found {shown(value)}.")


def require_number(name: str, value: Any, least: float = -math.inf, *, above: bool = False) -> None:
    """Refuse what is no finite number, or is less than `least`; with `above`, also what equals it.

    Raises
    ------
    ValueError
        If it is none; the value is named.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if math.isfinite(number) and (number > least if above else number >= least):
        return
    reach = "a finite number" if least == -math.inf else f"a number {'above' if above else 'of at least'} {least:g}"
    if above and least == 0:
        reach = "a positive number"
    raise ValueError(f"Expected `{name}` to be {reach}, found {shown(value)}.")


def positive_number(value: Any, what: str) -> float:
    """Return a number of AnnData or of the user, which may be written as a word.

    Raises
    ------
    ValueError
        If it is none, or not positive; `what` names it.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"Expected {what} to be a positive number, found {shown(value)}.")
    return number


def require_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    Raises
    ------
    ValueError
        If it is something else; it is named.
    """
    if not isinstance(value, bool):
        raise ValueError(f"Expected `{name}` to be True or False, found {shown(value)}.")


def shown(value: Any, most: int = 80) -> str:
    """Return a value as it is written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..., a {type(value).__name__}"
