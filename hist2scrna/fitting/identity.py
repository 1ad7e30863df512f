"""What tells the spots of one run from those of another, and the settings in which two runs differ."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hist2scrna.spots.read import Spots

# Patches that are compared, all over the tissue.
SAMPLED = 32
# Of a value in a message.
SHOWN = 80


def sha256(*arrays: np.ndarray[Any, Any]) -> str:
    """Return the SHA-256 of the values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def spots_identity(spots: Spots) -> dict[str, Any]:
    """Return what tells spots and what a model sees of them from others: places, sections, patches, features, tiles."""
    identity = {
        "n_spots": len(spots),
        "sections": list(spots.sections),
        "coordinates": sha256(spots.xy, spots.section),
    }
    some = np.unique(np.linspace(0, len(spots) - 1, SAMPLED).astype(np.int64))
    if spots.patches is not None:
        identity["patches"] = sha256(spots.patches.read(some))
    if spots.features is not None:
        identity["features"] = sha256(spots.features)
    if spots.tiles is not None and len(shown := np.unique(spots.tiles.owner[spots.tiles.owner >= 0])):
        identity["tiles"] = sha256(*spots.tiles.read(int(shown[0])))
    return identity


def differences(there: Mapping[str, Any], here: Mapping[str, Any], within: str = "") -> list[str]:
    """Return the settings that are others in a run that was kept than in this one, in words."""
    found = []
    for name in sorted({*there, *here}):
        theirs, ours = there.get(name), here.get(name)
        if isinstance(theirs, dict) and isinstance(ours, dict):
            found += differences(theirs, ours, f"{within}{name}.")
        elif theirs != ours:
            found.append(f"{within}{name} {_short(theirs)} there, {_short(ours)} here")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
