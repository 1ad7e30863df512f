"""Damage to files: bytes flipped, cut out and put in, and values of JSON exchanged, all drawn from one generator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# Numbers at which the arithmetic of headers goes wrong: signs, sizes, and just beside them.
EDGES = [0, 1, 2, 3, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**70), 10**400, 1e308, -1e-320, float("nan"), float("inf")),
    *("", "a", "\0", "../../x", "/", "1", "nan", "\ud83d", "g" * 5000),
    *([], {}, [[]], [None], {"": None}, [1, "a"], {"a": {"a": {}}}),
]
HEADER = 4096
MOST_INSERTED = 2000


def damaged_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """Return a file with one to four of its places damaged; half of these are near its start, where headers are."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            return bytes(rng.integers(0, 256, int(rng.integers(0, 50)), dtype="uint8"))
        at = int(rng.integers(0, min(len(data), HEADER if rng.random() < 0.5 else len(data))))
        length = int(rng.integers(1, 1 + min(len(data) - at, int(rng.choice([1, 4, 64, 4096])))))
        match rng.integers(0, 9):
            case 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                data[at] = int(rng.integers(0, 256))
            case 2 | 3:
                size = int(rng.choice([2, 4, 8]))
                order = "little" if rng.random() < 0.7 else "big"
                data[at : at + size] = (int(EDGES[rng.integers(len(EDGES))]) % 256**size).to_bytes(size, order)
            case 4:
                del data[at:]
            case 5:
                del data[at : at + length]
            case 6:
                data[at:at] = data[at : at + length]
            case 7:
                data[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, MOST_INSERTED)), dtype="uint8"))
            case 8:
                data[at : at + length] = bytes(rng.choice([0, 255]) for _ in range(1)) * length
    return bytes(data)


def damaged_json(rng: np.random.Generator, text: str) -> str:
    """Return JSON of which one to three values, at any depth, are others, missing, doubled, or elsewhere."""
    tree = json.loads(text)
    for _ in range(int(rng.integers(1, 4))):
        holders = list(_holders(tree))
        if not holders:
            tree = _value(rng)
            continue
        holder = holders[rng.integers(len(holders))]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = keys[rng.integers(len(keys))]
        match rng.integers(0, 5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(_value(rng))] = holder.pop(key)
            case 2 if isinstance(holder[key], list) and len(holder[key]) < MOST_INSERTED:
                holder[key] = holder[key] * int(rng.integers(2, 4))
            case 3:
                # Its own kind of value, from another place.
                other = holders[rng.integers(len(holders))]
                holder[key] = json.loads(json.dumps(next(iter(other.values() if isinstance(other, dict) else other))))
            case _:
                holder[key] = _value(rng)
    if rng.random() < 0.01:
        tree = "DEEP"
    return json.dumps(tree).replace('"DEEP"', "[" * 20_000 + "]" * 20_000)


def _value(rng: np.random.Generator) -> Any:
    return VALUES[rng.integers(len(VALUES))]


def _holders(tree: Any) -> Any:
    """Yield every list and dictionary that is not empty."""
    if isinstance(tree, dict | list) and tree:
        yield tree
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _holders(value)
