"""Which preset suits the data and the wishes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hist2scrna.models.registry import FEW, model_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hist2scrna.spots.sections import OpenedSections

log = logging.getLogger(__name__)

# It was compared with networks on some 1,000 spots, and won; how far beyond it stays ahead is not known.
MOST_SPOTS = 20_000


def suited_preset(opened: OpenedSections, model: str, preset: str | None, of_networks: Mapping[str, Any]) -> str | None:
    """Return the preset to fit: the given one; else `"few"` for few spots, if nothing asks for a network.

    Parameters
    ----------
    opened
        The sections.
    model, preset
        As given to :func:`hist2scrna.tl.fit`.
    of_networks
        Arguments that only networks have, None where not given.

    Raises
    ------
    ValueError
        If the model or preset is not known, or `"few"` is asked for together with what only a network has.
    """
    entry, few = model_entry(model, preset), model_entry(model).few
    asked = [name for name, value in of_networks.items() if value is not None]
    if preset is not None or few is None:
        if entry is few and asked:
            raise ValueError(
                f"Preset {FEW!r} is solved at once: it has no {', '.join(f'`{name}`' for name in asked)}. Leave that "
                f"out, or choose among preset={[*model_entry(model).presets]}."
            )
        return preset
    if asked or opened.adata.n_obs > MOST_SPOTS:
        return None
    if few.model.needs == "patches" and not _is_rgb(opened):
        return None
    log.info("Preset %r of %r for %d spots; pass preset= to choose another.", FEW, model, opened.adata.n_obs)
    return FEW


def _is_rgb(opened: OpenedSections) -> bool:
    """Tell whether patches are cut from images of three channels: files and further stains are for networks."""
    return not opened.patches_are_files and opened.members[0].image.channels == 3
