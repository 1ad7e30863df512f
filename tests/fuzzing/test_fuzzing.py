"""A few damaged files of the kinds that are quick to read; `make fuzz` takes all kinds, for as long as it is given."""

from __future__ import annotations

import numpy as np
import pytest
from fuzzing.children import attempt, in_child
from fuzzing.mutations import damaged_bytes, damaged_json
from fuzzing.run import run

from hist2scrna.images.open import open_file


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_our_own_words() -> None:
    found = run(["svs", "png", "weights", "patch folder"], minutes=2, per_kind=6)
    assert found.total() == 24
    assert {name for name in found if not name.endswith((": taken", ": refused"))} == set()


def test_what_must_not_be_is_told_from_what_may(tmp_path) -> None:
    assert attempt(lambda: None).kind == "taken"
    assert attempt(lambda: open_file(tmp_path / "none")).kind == "refused"
    assert attempt(lambda: np.zeros(3).reshape(2)).kind == "foreign error"
    assert in_child(lambda: bytearray(8 << 30)).kind == "memory"
    assert in_child(lambda: __import__("os").abort()).kind == "crash"
    assert in_child(lambda: __import__("time").sleep(60), seconds=0.2).kind == "hang"


def test_damage_depends_on_the_seed_alone_and_changes_the_file() -> None:
    content, text = bytes(range(256)) * 9, '{"a": [1, {"b": "c"}], "d": null}'
    damaged = [
        (damaged_bytes(rng, content), damaged_json(rng, text))
        for rng in (np.random.default_rng(seed) for seed in (0, 0, 1, 2, 3))
    ]
    assert damaged[0] == damaged[1]
    assert len({bytes_ for bytes_, _ in damaged}) == len({json_ for _, json_ in damaged}) == 4
    assert all(bytes_ != content for bytes_, _ in damaged)
