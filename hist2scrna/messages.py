"""What is said to the user in the same words everywhere: warnings, missing keys, unknown names."""

from __future__ import annotations

import sys
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import FrameType

PACKAGE = str(Path(__file__).parent)


def warn_user(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line outside this package: the user's own, whatever the route there."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names with commas between them; of many, the first ones and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
    """
    if key not in holder:
        raise KeyError(f"Key {key!r} not found in {where}. Available keys: {list(holder)}.{' ' * bool(hint)}{hint}")


def require_known(kind: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a name that is none of the choices.

    Raises
    ------
    ValueError
        If it is none of them; the nearest and all choices are named.
    """
    known = list(choices)
    if value not in known:
        near = get_close_matches(value, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown {kind} {value!r}.{hint} Available: {known}.")
