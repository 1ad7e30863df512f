"""The patches of all spots, from the images of their sections or from files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.images.patches import PatchGeometry, PatchSource
from hist2scrna.images.placement import check_placement
from hist2scrna.messages import warn_user
from hist2scrna.spots.patch_files import open_patch_files
from hist2scrna.spots.scale import PATCH_PER_SPOT, default_patch_um

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.spots.sections import OpenedSections, Section

log = logging.getLogger(__name__)

# Few pixels a spot are no fault of the image where the spots are small: bins, cells, a fine lattice.
FINE_ENOUGH_PX = 32
COARSEST_UM = 1.2


@dataclass(frozen=True)
class PatchSize:
    """How large a patch a model is given.

    Attributes
    ----------
    px
        Side in pixels, as the model sees it.
    um
        Side in microns; None: `per_spot` spot diameters.
    per_spot
        Side in spot diameters.
    """

    px: int
    um: float | None = None
    per_spot: float = PATCH_PER_SPOT


def open_patches(opened: OpenedSections, xy: NDArray[np.float64], size: PatchSize) -> tuple[PatchSource, PatchGeometry]:
    """Return the patches of all spots, and what a patch means; coordinates are checked against the images.

    Parameters
    ----------
    opened
        The sections.
    xy
        `(n, 2)` coordinates in full-resolution pixels.
    size
        How large a patch is.

    Raises
    ------
    KeyError, FileNotFoundError, ImportError, ValueError
        If an image or its scale is missing or wrong, or spots do not lie on it.
    """
    if opened.patches_are_files:
        return open_patch_files(opened, xy, size.px, size.um)
    where = f"adata.obsm[{opened.source.spatial_key!r}]"
    for section in opened.members:
        names = opened.adata.obs_names[section.rows]
        check_placement(section.name, names, xy[section.rows], section.image, section.scale.spot_px, where)
        _warn_of_few_pixels(section)
    channels = {section.name: section.image.channels for section in opened.members}
    if len(set(channels.values())) > 1:
        raise ValueError(f"The sections have images of different numbers of channels: {channels}. Give each the same.")
    scales = [section.scale for section in opened.members]
    um = default_patch_um(scales, size.per_spot) if size.um is None else float(size.um)
    if not np.isfinite(um) or um <= 0:
        raise ValueError(f"Expected `patch_um` to be a positive number, found {size.um}.")
    log.info("patches: %g um, %d px", um, size.px)
    images = [section.image for section in opened.members]
    patches = PatchSource(images, [um / scale.mpp for scale in scales], xy, opened.codes, size.px)
    return patches, PatchGeometry(um, size.px, scales[0].known_from)


def _warn_of_few_pixels(section: Section) -> None:
    image, scale = section.image, section.scale
    pixel_um = scale.mpp / image.scale
    if scale.spot_px is not None and scale.spot_px * image.scale < FINE_ENOUGH_PX and pixel_um > COARSEST_UM:
        warn_user(
            f"A spot of section {section.name!r} covers only {scale.spot_px * image.scale:.0f} px of the image "
            f"({image.origin}), of {pixel_um:.2g} um each: nuclei can hardly be seen. Pass image= with the "
            "full-resolution file, if there is one."
        )
