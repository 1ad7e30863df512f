"""Values of the options of our models, checked before a network of them is built."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hist2scrna.arguments import require_flag, require_number, require_whole

if TYPE_CHECKING:
    import inspect

# Wider than any layer, and more than the blocks, that a computer trains; beyond, a slip of the key fills the memory.
LARGEST, DEEPEST = 2**16, 1000
LAYERS = ("depth", "n_layers")
# There may be none of them: layers, augmented views.
NONE_ALLOWED = (*LAYERS, "bake")


def check_option(name: str, value: Any, parameter: inspect.Parameter) -> None:
    """Refuse a value of another kind than the signature says, or out of any range.

    Raises
    ------
    ValueError
        If it is one; the value is named.
    """
    kind = str(parameter.annotation)
    if value is None and "None" in kind:
        return
    if kind.startswith("int"):
        _check_number(name, value, least=0 if name.startswith(NONE_ALLOWED) or parameter.default == 0 else 1)
    elif kind.startswith("Sequence[int]"):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(
                f"Expected `{name}` to be whole numbers, one a layer, such as (192, 192), found {value!r}."
            )
        for place, width in enumerate(value):
            _check_number(f"{name}[{place}]", width, least=1)
    elif kind.startswith("float"):
        require_number(name, value)
        if name == "dropout" and not 0 <= float(value) < 1:
            raise ValueError(f"Expected `dropout` to be at least 0 and less than 1, found {value!r}.")
    elif kind == "bool":
        require_flag(name, value)
    elif kind.startswith("Literal["):
        known = ast.literal_eval(kind.removeprefix("Literal").removesuffix(" | None"))
        if value not in known:
            raise ValueError(f"Expected `{name}` to be {' or '.join(map(repr, known))}, found {value!r}.")


def _check_number(name: str, value: Any, least: int) -> None:
    most = DEEPEST if name.startswith(LAYERS) else LARGEST
    require_whole(name, value, least, most)
