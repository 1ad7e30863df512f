"""What a row of AnnData is: a spot, a bin, a cell or a slide, how large, and whether it fits the coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.spatial import cKDTree

from hist2scrna import keys
from hist2scrna.spots.lattice import find_lattice
from hist2scrna.spots.scale import section_scale, spot_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.spots.sections import OpenedSections, Section

Kind = Literal["spot", "bin", "cell", "slide"]

# Spots lie side by side: assays have a pitch of at least the diameter.
LEAST_PITCH = 0.5
# Scattered, and no larger than this: cells. Arrays of spots whose lattice is irregular have larger ones.
LARGEST_CELL_UM = 25.0
# Bins of a square lattice touch each other.
GAP = 1.05
# In diameter; in area, and so in counts, it is more than twofold.
LARGEST_EXCESS = 0.5


@dataclass(frozen=True)
class Unit:
    """What a row is, and its diameter (of a bin: its side) in microns; None where that is not known."""

    kind: Kind
    um: float | None = None

    def __str__(self) -> str:
        return self.rows if self.um is None else f"{self.rows} of {self.um:.3g} um"

    @property
    def rows(self) -> str:
        """What several of them are called."""
        return f"{self.kind}s"

    def differs_from(self, other: Unit, by: float = LARGEST_EXCESS) -> bool:
        """Whether both sizes are known, and one is wider than the other by more than a share (default: a half)."""
        if self.um is None or other.um is None:
            return False
        return max(self.um, other.um) > (1 + by) * min(self.um, other.um)


def read_unit(opened: OpenedSections, xy: NDArray[np.float64], *, slides: bool = False, sums: bool = False) -> Unit:
    """Return what the rows are: of several sections the kind of the first, and the median size.

    Places that :func:`hist2scrna.pp.tissue_grid` laid out were not measured, and have no size of their own.

    Parameters
    ----------
    opened
        The sections.
    xy
        `(n, 2)` coordinates in full-resolution pixels.
    slides
        The rows are slides.
    sums
        The rows are sums of nuclei, which are rows of their own: no row is then a cell, however small.
    """
    if slides:
        return Unit("slide")
    if keys.TISSUE_FRACTION in opened.adata.obs:
        return Unit("spot")
    units = [_section_unit(section, xy[section.rows], opened.source.features_key is None) for section in opened.members]
    sizes = [unit.um for unit in units if unit.um is not None]
    kind: Kind = "spot" if sums and units[0].kind == "cell" else units[0].kind
    return Unit(kind, round(float(np.median(sizes)), 3) if sizes else None)


def read_pitch(opened: OpenedSections, xy: NDArray[np.float64]) -> tuple[float | None, ...]:
    """Return the median distance to the nearest spot of each section in microns, None where that is not known."""
    has_patches = opened.source.features_key is None
    found = []
    for section in opened.members:
        pitch, mpp = nearest_distance(xy[section.rows]), _microns(section, has_patches)
        found.append(None if mpp is None or pitch == 0 else pitch * mpp)
    return tuple(found)


def _section_unit(section: Section, xy: NDArray[np.float64], has_patches: bool) -> Unit:
    spot_px, pitch, lattice = spot_pixels(section.name, section.entry), nearest_distance(xy), find_lattice(xy)
    mpp = _microns(section, has_patches)
    um = None if spot_px is None or mpp is None else spot_px * mpp
    if lattice == "irregular":
        # Nuclei that were segmented have no diameter here; the distance between them is about that of a cell.
        apart = um if mpp is None or spot_px is not None else pitch * mpp
        return Unit("cell", apart) if apart is not None and apart <= LARGEST_CELL_UM else Unit("spot", um)
    if lattice == "square" and spot_px is not None and pitch <= GAP * spot_px:
        return Unit("bin", um)
    return Unit("spot", um)


def _microns(section: Section, has_patches: bool) -> float | None:
    """Return the microns per pixel, None where nothing tells them; for features alone no image is opened."""
    try:
        scale = section.scale if has_patches else section_scale(section.name, section.entry, section.source.mpp)
    except KeyError:
        return None
    return scale.mpp


def nearest_distance(xy: NDArray[np.float64]) -> float:
    """Return the median distance to the nearest other point, 0 where there is none."""
    if len(xy) < 2:
        return 0.0
    distance = cKDTree(xy).query(xy, k=2)[0][:, 1]
    positive = distance[distance > 0]
    return float(np.median(positive)) if len(positive) else 0.0


def check_pitch(section: Section, xy: NDArray[np.float64], where: str) -> None:
    """Refuse spots of a lattice that would overlap: coordinates and diameter are then not in the same pixels.

    The diameter of scattered cells is an estimate, and they are not looked at.

    Raises
    ------
    ValueError
        If the pitch is less than half the diameter of a spot.
    """
    spot_px, pitch = spot_pixels(section.name, section.entry), nearest_distance(xy)
    if spot_px is None or not 0 < pitch < LEAST_PITCH * spot_px or find_lattice(xy) == "irregular":
        return
    raise ValueError(
        f"The spots of section {section.name!r} would overlap: they are {pitch:.4g} px apart in {where}, but "
        f"{spot_px:.4g} px wide by scalefactors['{keys.SPOT_DIAMETER}']. Both must be full-resolution pixels: if the "
        "coordinates are pixels of a smaller image, divide them by its scalefactors['tissue_..._scalef']; else correct "
        "the diameter."
    )
