"""How large a patch is on the tissue, and the patches of all spots, cut when they are needed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import slots
from hist2scrna.slides.image import cut_patches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hist2scrna.slides.image import SlideImage

log = logging.getLogger(__name__)

# Space Ranger writes the diameter of 65 um; the Spatial Transcriptomics arrays have spots of 100 um.
VISIUM_SPOT_UM = 65.0
ARRAY_SPOT_UM = 100.0
PATCH_PER_SPOT = 1.5
PATCH_UM_WITHOUT_SPOT = 112.0
CACHE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class PatchGeometry:
    """What a patch means: `um` microns of tissue, seen by the model as `px` x `px` pixels, centred on the spot.

    `scale_from` says how microns were known in training: `"argument"`, `"metadata"` or `"spot diameter"`.
    """

    um: float
    px: int
    scale_from: str


@dataclass(frozen=True)
class SectionScale:
    """Microns per full-resolution pixel of one section, where that is known from, and its spot diameter in pixels."""

    mpp: float
    known_from: str
    spot_px: float | None


def section_scale(library: str, entry: Mapping[str, Any], mpp: float | None) -> SectionScale:
    """Find the scale of a section: `mpp`, else the metadata, else the diameter of its spots.

    Raises
    ------
    KeyError
        If nothing tells the scale.
    ValueError
        If what tells it is not a positive number.
    """
    where = f"adata.uns['{slots.SPATIAL}']['{library}']"
    factors = entry.get(slots.SCALEFACTORS) or {}
    metadata = entry.get(slots.METADATA) or {}
    spot_px = factors.get(slots.SPOT_DIAMETER)
    spot_px = (
        None if spot_px is None else _positive(spot_px, f"{where}['{slots.SCALEFACTORS}']['{slots.SPOT_DIAMETER}']")
    )
    if mpp is not None:
        return SectionScale(_positive(mpp, "`mpp`"), "argument", spot_px)
    for name, holder in ((slots.SCALEFACTORS, factors), (slots.METADATA, metadata)):
        for key in (slots.MPP, slots.MICRONS_PER_PIXEL):
            if holder.get(key) is not None:
                return SectionScale(_positive(holder[key], f"{where}['{name}']['{key}']"), "metadata", spot_px)
    if spot_px is None:
        raise KeyError(
            f"Scale factor '{slots.SPOT_DIAMETER}' not found in {where}['{slots.SCALEFACTORS}']. "
            f"Available: {list(factors)}. Pass mpp= (microns per full-resolution pixel), or write the spot diameter in "
            "full-resolution pixels there."
        )
    assumed = VISIUM_SPOT_UM if slots.CHEMISTRY in metadata else ARRAY_SPOT_UM
    diameter = _positive(factors.get(slots.SPOT_DIAMETER_UM, assumed), f"{where}['{slots.SPOT_DIAMETER_UM}']")
    log.info(
        "section %s: spots of %g px taken as %g um: %.4g um a pixel", library, spot_px, diameter, diameter / spot_px
    )
    return SectionScale(diameter / spot_px, "spot diameter", spot_px)


def _positive(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number) or number <= 0:
        raise ValueError(f"Expected {what} to be a positive number, found {value!r}.")
    return number


def default_patch_um(scales: Sequence[SectionScale], patch_per_spot: float = PATCH_PER_SPOT) -> float:
    """One and a half spot diameters, so that the patch shows the rim of the spot too; 112 um where there is no spot."""
    known = [s.spot_px * s.mpp for s in scales if s.spot_px is not None]
    return round(patch_per_spot * float(np.median(known)), 3) if known else PATCH_UM_WITHOUT_SPOT


class PatchSource:
    """The patches of all spots; each is cut once, and kept while all of them fit in 2 GiB.

    Parameters
    ----------
    images
        Picture of each section.
    side
        Side of a patch in full-resolution pixels, for each section.
    xy
        `(n, 2)` centres in full-resolution pixels.
    section
        `(n,)` number of the section of each spot.
    px
        Side of a patch in pixels.
    """

    def __init__(
        self,
        images: Sequence[SlideImage],
        side: Sequence[float],
        xy: NDArray[np.float64],
        section: NDArray[np.int64],
        px: int,
    ) -> None:
        self.images = images
        self.side = side
        self.xy = xy
        self.section = section
        self.px = px
        keep = len(xy) * 3 * px * px <= CACHE_BYTES
        self._cache = np.empty((len(xy), 3, px, px), dtype=np.uint8) if keep else None
        self._cut = np.zeros(len(xy), dtype=bool)

    def read(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the patches of the spots `index`, `(len(index), 3, px, px)` uint8."""
        if self._cache is None:
            return self._read(index)
        missing = np.unique(index[~self._cut[index]])
        if len(missing):
            self._cache[missing] = self._read(missing)
            self._cut[missing] = True
        return self._cache[index]

    def _read(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        patches = np.empty((len(index), 3, self.px, self.px), dtype=np.uint8)
        for code in np.unique(self.section[index]):
            own = self.section[index] == code
            patches[own] = cut_patches(self.images[code], self.xy[index[own]], self.side[code], self.px)
        return patches
