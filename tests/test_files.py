"""Files appear whole or not at all; warnings point at the user's line; missing names are said with what is there."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from hist2scrna.files import replaced_whole
from hist2scrna.messages import require_key, require_known, warn_user


def test_a_file_is_replaced_only_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced_whole(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replaced_whole(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model"
    for text in ("first", "second"):
        with replaced_whole(path, folder=True) as scratch:
            (scratch / text).write_text(text)
    assert [p.name for p in path.iterdir()] == ["second"]
    with pytest.raises(RuntimeError), replaced_whole(path, folder=True) as scratch:
        (scratch / "third").write_text("third")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["second"]
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_name(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "model"
    with replaced_whole(path, folder=True) as scratch:
        (scratch / "weights").write_text("good")
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if self.name == "model" and self.parent != tmp_path:
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(OSError, match="disk full"), replaced_whole(path, folder=True) as scratch:
        (scratch / "weights").write_text("bad")
    assert (path / "weights").read_text() == "good"


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
