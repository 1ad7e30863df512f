"""What is said to the user in the same words everywhere: warnings, missing keys, unknown names."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import warnings
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from hist2scrna.arguments import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import FrameType

PACKAGE = str(Path(__file__).parent)
Class = TypeVar("Class")
P = ParamSpec("P")
R = TypeVar("R")
# What was said of sections, and of which, by what it is about.
_counted: ContextVar[dict[str, tuple[str, list[str]]] | None] = ContextVar("_counted", default=None)


# Lines of the log that stand for the whole process.
_said: set[str] = set()


def log_once(log: logging.Logger, text: str, *values: Any) -> None:
    """Log a fact about a file as information, once a process: a file is opened by each function that reads it."""
    line = text % values
    if log.isEnabledFor(logging.INFO) and line not in _said:
        _said.add(line)
        log.info("%s", line)


def warn_user(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line outside this package: the user's own, whatever the route there."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def warn_of_section(section: str, about: str, text: str) -> None:
    """Warn of a section; within :func:`sections_counted` once for all of which the same is said.

    Parameters
    ----------
    section
        Its name.
    about
        What it is about: warnings of one kind are counted together.
    text
        What is said of this section.
    """
    counted = _counted.get()
    if counted is None:
        warn_user(text)
    elif section not in (names := counted.setdefault(about, (text, []))[1]):
        names.append(section)


def sections_counted(function: Callable[P, R]) -> Callable[P, R]:
    """Let what :func:`warn_of_section` says come once a call, at its end: of the first section, and how many more."""

    @functools.wraps(function)
    def called(*values: P.args, **named: P.kwargs) -> R:
        if _counted.get() is not None:
            return function(*values, **named)
        counted: dict[str, tuple[str, list[str]]] = {}
        token = _counted.set(counted)
        try:
            return function(*values, **named)
        finally:
            _counted.reset(token)
            for text, (_, *others) in counted.values():
                more = f" The same holds of {len(others)} more: {listed(others)}." if others else ""
                warn_user(text + more)

    return called


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names with commas between them; of many, the first ones and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def percent(share: float | None) -> str:
    """Return a share in whole percent, none of which is `-0%`; a dash for None."""
    return "-" if share is None else f"{round(100 * share)}%"


def require_key(holder: Mapping[str, Any], key: str, where: str, hint: str = "") -> None:
    """Refuse a key that is missing in a slot of AnnData.

    Parameters
    ----------
    holder
        The slot: `adata.obs`, `adata.layers`, ...
    key
        The key.
    where
        How the user writes the slot, for instance `"adata.obs"`.
    hint
        What to do about it, as a whole sentence.

    Raises
    ------
    KeyError
        If it is missing; the keys that are there are named.
    TypeError
        If it is no word.
    """
    if not isinstance(key, str):
        raise TypeError(f"Expected the key of {where} to be a word, found {shown(key)}.")
    if key not in holder:
        raise KeyError(f"Key {key!r} not found in {where}. Available keys: {list(holder)}.{' ' * bool(hint)}{hint}")


def require_adata(adata: Any) -> None:
    """Refuse what is no AnnData, and say how to make one of it.

    Raises
    ------
    TypeError
        If it is something else, such as a path or a list.
    """
    from anndata import AnnData

    if isinstance(adata, AnnData):
        return
    if isinstance(adata, str | Path):
        read = "read_zarr" if Path(adata).suffix == ".zarr" else "read_h5ad"
        found = f"the path '{adata}'. Read it first: anndata.{read}({str(adata)!r})"
        if Path(adata).is_dir() and read == "read_h5ad":
            found = f"the folder '{adata}'. Read it first, for instance with hist2scrna.io.read_visium({str(adata)!r})"
    elif isinstance(adata, list | tuple | dict):
        found = f"a {type(adata).__name__} of {len(adata)}. Join several first: hist2scrna.io.concat(...)"
    else:
        found = type(adata).__name__
    raise TypeError(f"Expected `adata` to be an AnnData, found {found}.")


def nearest(value: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is most like a name, None where none is much like it."""
    near = get_close_matches(str(value), list(choices), n=1)
    return near[0] if near else None


def require_known(kind: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a name that is none of the choices.

    Raises
    ------
    ValueError
        If it is none of them; the nearest and all choices are named.
    """
    known = list(choices)
    if value not in known:
        near = nearest(value, known)
        hint = "" if near is None else f" Did you mean {near!r}?"
        raise ValueError(f"Unknown {kind} {value!r}.{hint} Available: {known}.")


def fields_known(kind: str) -> Callable[[type[Class]], type[Class]]:
    """Return a decorator by which a dataclass meets an unknown field as :func:`require_known` does."""

    def decorate(cls: type[Class]) -> type[Class]:
        init: Callable[..., None] = cls.__init__
        names = list(inspect.signature(cls).parameters)

        @functools.wraps(init)
        def checked(self: Class, *values: Any, **named: Any) -> None:
            for name in named:
                require_known(kind, name, names)
            init(self, *values, **named)

        cls.__init__ = checked  # type: ignore[method-assign,assignment]
        return cls

    return decorate


def arguments_known(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function meet an argument that it does not have with the nearest one that it has."""
    parameters = inspect.signature(function).parameters
    names = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]

    @functools.wraps(function)
    def checked(*values: P.args, **named: P.kwargs) -> R:
        for name in named:
            if name not in parameters:
                near = nearest(name, names)
                hint = f"Did you mean {near}=?" if near else f"It has {listed(names, 30)}."
                raise TypeError(f"`{function.__name__}` has no argument `{name}`. {hint}")
        return function(*values, **named)

    return checked
