"""What the values of a model's card are, one row a value: whoever reads one need not ask again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

from hist2scrna.spots.unit import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _size(value: Any) -> bool:
    return _number(value) and 0 < value < 1e12


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_size, value))


def _colors(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_number, value))


def _unit(value: Any) -> bool:
    known = isinstance(value, dict) and set(value) <= {"kind", "um"} and value.get("kind") in get_args(Kind)
    return known and (value.get("um") is None or _size(value["um"]))


def _features(value: Any) -> bool:
    return isinstance(value, dict) and _text(value.get("encoder", ""))


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


# Those in brackets may be null, as may those that are not there.
VALUES: dict[str, dict[str, Callable[[Any], bool] | tuple[Callable[[Any], bool]]]] = {
    "geometry": {"um": _size, "px": _whole, "scale_from": _text},
    "encoder": {
        "name": _text,
        "version": _text,
        "sha256": _text,
        "by_name": _flag,
        "weights": _text,
        "mean": _colors,
        "std": _colors,
        "px": (_whole,),
        "um": (_size,),
        "um_per_px": (_size,),
        "license": _text,
    },
    "parameters": {
        "preset": (_text,),
        "spatial_key": _text,
        "library_key": (_text,),
        "group_key": (_text,),
        "features_key": (_text,),
        "labels_key": (_text,),
        "layer": (_text,),
        "neighbors": (lambda value: isinstance(value, dict),),
        "seed": _whole,
    },
    "training": {
        "sections": _texts,
        "donors": _texts,
        "nuclei": _texts,
        "unit": _unit,
        "pitch_um": (_size,),
        "pixel_um": (_sizes,),
        "features": (_features,),
        "n_training": _whole,
        "n_validation": _whole,
        "n_nuclei": (_whole,),
        "validation": _text,
        "monitor": _text,
        "best_epoch": _whole,
        "variance_explained": (_number,),
    },
}


def wrong_value(card: Mapping[str, Any]) -> str | None:
    """Return where a card holds a value of another kind, and which, in words; None if it does not."""
    for field, values in VALUES.items():
        held = card[field] or {}
        for name, rule in values.items():
            if name not in held or (isinstance(rule, tuple) and held[name] is None):
                continue
            fits = rule[0] if isinstance(rule, tuple) else rule
            if not fits(held[name]):
                return f"{name!r} in {field!r} is {str(held[name])[:80]!r}"
    return None
