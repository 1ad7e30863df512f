"""Warnings point at the user's line; missing names are said with what is there."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from hist2scrna.messages import require_key, require_known, sections_counted, warn_of_section, warn_user


def test_warnings_point_at_the_first_line_outside_the_package() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_user("said")
    assert [w.filename for w in caught] == [__file__]
    code = compile(
        "def outer():\n    inner()\n\n\ndef inner():\n    warn_user('deep')\n", f"{_package()}/made_up.py", "exec"
    )
    space = {"warn_user": warn_user}
    exec(code, space)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        space["outer"]()
    assert [w.filename for w in caught] == [__file__]


def _package() -> str:
    import hist2scrna

    return str(Path(hist2scrna.__file__).parent)


def test_missing_names_are_said_with_what_is_there() -> None:
    require_key({"a": 1}, "a", "adata.obs")
    with pytest.raises(KeyError, match=r"Key 'b' not found in adata.obs. Available keys: \['a'\]. Pass it."):
        require_key({"a": 1}, "b", "adata.obs", "Pass it.")
    with pytest.raises(ValueError, match=r"Unknown model 'rigde'. Did you mean 'ridge'\? Available: \['ridge'\]."):
        require_known("model", "rigde", ["ridge"])


def test_what_is_said_of_sections_is_said_once_a_call() -> None:
    def read(names: str) -> None:
        for name in names:
            warn_of_section(name, "color", f"Section {name} is gray.")
        if "z" in names:
            raise ValueError("z")

    @sections_counted
    def outer(names: str) -> None:
        sections_counted(read)(names[:1])
        read(names)

    with pytest.warns(UserWarning) as said:
        outer("abc")
        outer("d")
    assert [str(w.message) for w in said] == [
        "Section a is gray. The same holds of 2 more: b, c.",
        "Section d is gray.",
    ]
    with pytest.warns(UserWarning, match="Section y is gray"), pytest.raises(ValueError, match="z"):
        outer("yz")
    with pytest.warns(UserWarning) as said:
        read("ab")
    assert len(said) == 2
