"""Which layers a prediction writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.arguments import shown
from hist2scrna.messages import require_known

if TYPE_CHECKING:
    from hist2scrna.trained.fitted import FittedModel


def checked_layers(layers: Any) -> list[str]:
    """Return the names of the layers to write.

    Raises
    ------
    ValueError
        If one is not known; the nearest is named.
    """
    if not isinstance(layers, Iterable):
        raise ValueError(f"Expected `layers` to be names among {list(keys.LAYERS)}, found {shown(layers)}.")
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        require_known("name in `layers`", name, keys.LAYERS)
    return names


def default_layers(model: FittedModel) -> list[str]:
    """Return the layers that are written unless others are asked for: those that the likelihood has."""
    absent = {"mse": {"dropout", "log_normalized"}, "zinb": set()}.get(model.likelihood, {"dropout"})
    if model.module.target == "log_counts":
        absent = {"dropout"}
    return [name for name in keys.DEFAULT_LAYERS if name not in absent]
