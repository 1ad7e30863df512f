"""Microns per full-resolution pixel of a section, the diameter of its spots, and the side of a patch that follows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.arguments import positive_number
from hist2scrna.messages import log_once, warn_of_section
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hist2scrna.images.base import SectionImage

log = logging.getLogger(__name__)

# Space Ranger writes the diameter of 65 um; the Spatial Transcriptomics arrays have spots of 100 um.
VISIUM_SPOT_UM = 65.0
ARRAY_SPOT_UM = 100.0
PATCH_PER_SPOT = 1.5
PATCH_UM_WITHOUT_SPOT = 112.0
LARGEST_DISAGREEMENT = 0.2
SMALLEST_MPP, LARGEST_MPP = 1e-3, 1e3
# Bins of 2 um in an image of the whole slide that was made small are less than a pixel wide; none is less than this.
LEAST_SPOT_PX = 0.01
# Ten times the widest spots, those of older arrays.
WIDEST_SPOT_UM = 1000.0


@dataclass(frozen=True)
class SectionScale:
    """Microns per full-resolution pixel of one section, where that is known from, and its spot diameter in pixels."""

    mpp: float
    known_from: str
    spot_px: float | None


def section_scale(
    library: str, entry: Mapping[str, Any], mpp: float | None, image: SectionImage | None = None
) -> SectionScale:
    """Find the scale of a section: `mpp`, else its metadata, else what its image file says, else the spot diameter.

    Parameters
    ----------
    library
        Name of the section, for messages.
    entry
        Its entry in `.uns["spatial"]`, or `{}`.
    mpp
        Microns per full-resolution pixel, as the user says.
    image
        Its image.

    Warns
    -----
    UserWarning
        If the image file tells the scale, and the diameter of the spots would give one that differs by more than 20 %.

    Raises
    ------
    KeyError
        If nothing tells the scale.
    ValueError
        If what tells it is not a positive number.
    """
    where = f"adata.uns['{keys.SPATIAL}']['{library}']"
    factors = entry.get(keys.SCALEFACTORS) or {}
    metadata = entry.get(keys.METADATA) or {}
    spot_px = spot_pixels(library, entry)
    if mpp is not None:
        return SectionScale(_microns(mpp, "`mpp`", spot_px), "argument", spot_px)
    for name, holder in ((keys.SCALEFACTORS, factors), (keys.METADATA, metadata)):
        for key in (keys.MPP, keys.MICRONS_PER_PIXEL):
            if holder.get(key) is not None:
                return SectionScale(_microns(holder[key], f"{where}['{name}']['{key}']", spot_px), "metadata", spot_px)
    file_mpp = None if image is None or image.mpp is None else image.mpp * image.scale
    if spot_px is None:
        if image is not None and file_mpp is not None:
            log.log(HINT, "section %s: %.4g um a pixel, as %s says", library, file_mpp, image.origin)
            return SectionScale(file_mpp, "image file", None)
        silent = "" if image is None else f", and the image ({image.origin}) does not tell its microns per pixel"
        raise KeyError(
            f"Scale factor '{keys.SPOT_DIAMETER}' not found in {where}['{keys.SCALEFACTORS}'] (available: "
            f"{list(factors)}){silent}. Pass mpp= (microns per full-resolution pixel), or write the spot diameter in "
            "full-resolution pixels there."
        )
    assumed = VISIUM_SPOT_UM if keys.CHEMISTRY in metadata else ARRAY_SPOT_UM
    diameter = positive_number(factors.get(keys.SPOT_DIAMETER_UM, assumed), f"{where}['{keys.SPOT_DIAMETER_UM}']")
    if image is not None and file_mpp is not None:
        log.log(HINT, "section %s: %.4g um a pixel, as %s says", library, file_mpp, image.origin)
        if abs(diameter / spot_px / file_mpp - 1) > LARGEST_DISAGREEMENT:
            warn_of_section(
                library,
                "scale that two things tell",
                f"The image of section {library!r} ({image.origin}) says {file_mpp:.4g} um a pixel, which is used; but "
                f"its spots of {spot_px:g} px, taken as {diameter:g} um, say {diameter / spot_px:.4g}. Check that the "
                "coordinates are pixels of this image, or pass mpp=.",
            )
        return SectionScale(file_mpp, "image file", spot_px)
    said = "section %s: spots of %g px taken as %g um: %.4g um a pixel"
    log_once(log, said, library, spot_px, diameter, diameter / spot_px)
    return SectionScale(diameter / spot_px, "spot diameter", spot_px)


def spot_pixels(library: str, entry: Mapping[str, Any]) -> float | None:
    """Return the diameter of a spot in full-resolution pixels that the entry of a section tells, None without.

    Raises
    ------
    ValueError
        If it is not a positive number.
    """
    diameter = (entry.get(keys.SCALEFACTORS) or {}).get(keys.SPOT_DIAMETER)
    where = f"adata.uns['{keys.SPATIAL}']['{library}']['{keys.SCALEFACTORS}']['{keys.SPOT_DIAMETER}']"
    if diameter is None:
        return None
    px = positive_number(diameter, where)
    if px < LEAST_SPOT_PX:
        raise ValueError(
            f"Expected {where} to be the diameter of a spot in full-resolution pixels, found {px:.4g}, less than "
            f"{LEAST_SPOT_PX:g} of one. Correct it, or delete it and pass mpp= and patch_um=."
        )
    return px


def _microns(value: Any, what: str, spot_px: float | None) -> float:
    """Return microns a pixel, refused where no microscope has such pixels, or no assay spots that are so wide."""
    mpp = positive_number(value, what)
    if not SMALLEST_MPP <= mpp <= LARGEST_MPP:
        raise ValueError(
            f"Expected {what} to be microns per full-resolution pixel, from {SMALLEST_MPP:g} to {LARGEST_MPP:g}, found "
            f"{value!r}. Scanners have 0.2 to 1."
        )
    if spot_px is not None and spot_px * mpp > WIDEST_SPOT_UM:
        raise ValueError(
            f"With {what} of {mpp:g} um a pixel, spots of {spot_px:g} px would be {spot_px * mpp:,.0f} um wide; those "
            f"of assays are 2 to 110. Pass the right mpp=, or correct scalefactors['{keys.SPOT_DIAMETER}']."
        )
    return mpp


def default_patch_um(scales: Sequence[SectionScale], patch_per_spot: float = PATCH_PER_SPOT) -> float:
    """One and a half spot diameters, so that the patch shows the rim of the spot too; 112 um where there is no spot."""
    known = [s.spot_px * s.mpp for s in scales if s.spot_px is not None]
    return round(patch_per_spot * float(np.median(known)), 3) if known else PATCH_UM_WITHOUT_SPOT
