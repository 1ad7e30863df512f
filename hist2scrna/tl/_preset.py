"""Which preset suits the data and the wishes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.models.registry import FEW, model_entry
from hist2scrna.spots.library import open_image
from hist2scrna.spots.patch_files import has_patch_files
from hist2scrna.spots.sections import read_sections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

log = logging.getLogger(__name__)

# It was compared with networks on some 1,000 spots, and won; how far beyond it stays ahead is not known.
MOST_SPOTS = 20_000


def suited_preset(
    adata: AnnData,
    model: str,
    preset: str | None,
    of_networks: Mapping[str, Any],
    *,
    library_key: str | None,
    img_key: str | Sequence[str] | None,
    image: Any,
) -> str | None:
    """Return the preset to fit: the given one; else `"few"` for few spots, if nothing asks for a network.

    Parameters
    ----------
    adata, model, preset, library_key, img_key, image
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
    if asked or adata.n_obs > MOST_SPOTS:
        return None
    if few.model.needs == "patches" and not _is_rgb_picture(adata, library_key, img_key, image):
        return None
    log.info("Preset %r of %r for %d spots; pass preset= to choose another.", FEW, model, adata.n_obs)
    return FEW


def _is_rgb_picture(adata: AnnData, library_key: str | None, img_key: str | Sequence[str] | None, image: Any) -> bool:
    """Tell whether patches are cut from pictures of three channels: files and further stains are for networks."""
    if image is None and img_key is None and has_patch_files(adata.uns.get(keys.SPATIAL) or {}):
        return False
    name = read_sections(adata, library_key)[0][0]
    library = None if library_key is None and not isinstance(image, dict) else name
    return open_image(adata, library, img_key=img_key, image=image).channels == 3
