"""Features on disk, by what they were computed from: `hist2scrna.settings.cache_dir`."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import __version__
from hist2scrna.files import replaced_whole
from hist2scrna.messages import warn_user

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.encoders import Encoder
    from hist2scrna.fitting.look import Look
    from hist2scrna.spots.read import Spots

FOLDER, SUFFIX = "features", ".safetensors"
# Of what an encoder's card says, what does not change its features.
WITHOUT_EFFECT = ("license", "hub_id", "weights", "um", "um_per_px", "width", "by_name")


def features_key(
    encoder: Encoder, precision: str, spots: Spots, members: NDArray[np.int64], looks: Sequence[Look]
) -> tuple[str, dict[str, str]]:
    """Return the name of the features of some spots of one section, and what goes into it.

    The name is a SHA-256 over the image (its path, size and time of change, else its pixels), the spots, the geometry
    of the patches, how each was varied, the encoder with the SHA-256 of its weights, and the version of the package.

    Parameters
    ----------
    encoder, precision
        The encoder, by name, and in what it computes.
    spots, members
        All spots, with patches; those of one section.
    looks
        How each patch was varied.
    """
    assert spots.geometry is not None and spots.patches is not None
    card = {name: value for name, value in encoder.card().items() if name not in WITHOUT_EFFECT}
    about: dict[str, Any] = {
        "hist2scrna": __version__,
        "encoder": json.dumps(card, sort_keys=True),
        "precision": precision,
        "patch": f"{spots.geometry.um!r} um, {spots.geometry.px} px",
        "patches": spots.patches.fingerprint(members),
        "looks": " ".join(_digest(look, members) for look in looks),
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return key, {**about, "section": spots.sections[spots.section[members[0]]], "spots": str(len(members))}


def _digest(look: Look, members: NDArray[np.int64]) -> str:
    if look.variation is None:
        return "plain"
    digest = hashlib.sha256(type(look.variation).__name__.encode())
    for values in look.drawn_for(members):
        digest.update(np.ascontiguousarray(values.numpy()).data)
    return digest.hexdigest()


def stored_features(folder: Path, key: str, n_looks: int, n: int) -> list[Tensor] | None:
    """Return the features that are stored under a name, `(n, d)` float32 of each look; None where there are none.

    Warns
    -----
    UserWarning
        If the file is damaged; the features are then computed again, and the file is replaced.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / FOLDER / f"{key}{SUFFIX}"
    if not file.is_file():
        return None
    try:
        stored = load_file(file)
        looks = [stored[f"look_{number}"] for number in range(n_looks)]
    except (SafetensorError, OSError, KeyError) as error:
        warn_user(f"The cached features in '{file}' are damaged ({error}): they are computed again.")
        return None
    if any(look.ndim != 2 or len(look) != n or look.dtype != torch.float32 for look in looks):
        warn_user(f"The cached features in '{file}' are of another shape than ({n}, d): they are computed again.")
        return None
    return looks


def store_features(folder: Path, key: str, about: dict[str, str], looks: Sequence[Tensor]) -> None:
    """Write the features of each look; the file appears once it is whole. What they are of stands in its header."""
    from safetensors.torch import save_file

    named = {f"look_{number}": look.contiguous() for number, look in enumerate(looks)}
    with replaced_whole(folder / FOLDER / f"{key}{SUFFIX}") as file:
        save_file(named, file, metadata=about)
