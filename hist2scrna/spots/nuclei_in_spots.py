"""The nuclei of a table of their own, where the rows of AnnData are spots: which spot each lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from scipy.spatial import cKDTree

from hist2scrna.images.nucleus_masks import DrawnMask
from hist2scrna.messages import listed, require_key
from hist2scrna.spots.coordinates import read_coordinates
from hist2scrna.spots.labels import read_labels
from hist2scrna.spots.nuclei import nucleus_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hist2scrna.images.nuclei import ResampledImage
    from hist2scrna.images.nucleus_masks import NucleusMask
    from hist2scrna.spots.sections import OpenedSections, Section


# Sides of tiles are multiples of this many pixels.
MULTIPLE = 16


@dataclass(frozen=True)
class NucleiBySpot:
    """Nuclei whose expression is known by spot alone, as a sum.

    Attributes
    ----------
    spot
        `(m,)` int64, number of the spot that each nucleus lies in, -1 for none.
    places
        Numbers of the spots of each section, and their centers in pixels of tiles, `(k, 2)`.
    n_spots
        Number of spots.
    """

    spot: NDArray[np.int64]
    places: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]
    n_spots: int

    def tiles(self, section: int, px: int) -> Iterator[tuple[int, int, int]]:
        """Return first column, first row and spot of the tile, `px` wide, that is centered on each spot."""
        numbers, centers = self.places[section]
        corners = np.round(centers - px / 2).astype(np.int64)
        return zip(*corners.T.tolist(), numbers.tolist(), strict=True)


@dataclass(frozen=True)
class NucleusTable:
    """Nuclei in rows of their own, each drawn as what its row tells of its size.

    Attributes
    ----------
    adata
        One row a nucleus, as :func:`hist2scrna.pp.segment_nuclei` returns them.
    xy
        `(m, 2)` centers in full-resolution pixels.
    members
        Numbers of the nuclei of each section.
    """

    adata: AnnData
    xy: NDArray[np.float64]
    members: tuple[NDArray[np.int64], ...]

    def mask(self, section: int, image: ResampledImage, um: float) -> tuple[NucleusMask, str]:
        """Return the nuclei of a section on the pixels of its tiles, of `um` microns, and what told their size."""
        rows = self.members[section]
        axes, angle, origin = nucleus_sizes(self.adata.obs.iloc[rows])
        return DrawnMask(self.xy[rows] / image.full_resolution, axes / um, angle, rows), origin

    def spots(self, opened: OpenedSections, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return `(m,)` the number of the spot that the center of each nucleus lies in, the nearest, or -1 for none.

        Parameters
        ----------
        opened
            The sections of the spots.
        xy
            `(n, 2)` centers of the spots in full-resolution pixels.

        Raises
        ------
        ValueError
            If nothing tells how large the spots of a section are, or no nucleus lies in any spot.
        """
        spot = np.full(len(self.xy), -1, dtype=np.int64)
        for section, rows in zip(opened.members, self.members, strict=True):
            if len(rows):
                radius = spot_diameter(section) / 2
                distance, nearest = cKDTree(xy[section.rows]).query(self.xy[rows])
                spot[rows] = np.where(distance <= radius, section.rows[nearest], -1)
        if (spot < 0).all():
            (left, top), (right, bottom) = self.xy.min(axis=0), self.xy.max(axis=0)
            raise ValueError(
                f"None of the {len(spot)} nuclei in `nuclei` lies in a spot. They span x {left:.0f} to {right:.0f}, y "
                f"{top:.0f} to {bottom:.0f} px; the spots x {xy[:, 0].min():.0f} to {xy[:, 0].max():.0f}, y "
                f"{xy[:, 1].min():.0f} to {xy[:, 1].max():.0f} px. Both must be full-resolution pixels of one image."
            )
        return spot


def spot_diameter(section: Section) -> float:
    """Return the diameter of a spot in full-resolution pixels.

    Raises
    ------
    ValueError
        If nothing tells it.
    """
    diameter = section.scale.spot_px
    if diameter is None:
        raise ValueError(
            f"Nothing tells how large the spots of section {section.name!r} are, so that nobody knows which nuclei lie "
            f"in them. Set adata.uns['spatial'][{section.name!r}]['scalefactors']['spot_diameter_fullres']."
        )
    return diameter


def check_tile_holds_spot(section: Section, px: int, um: float) -> None:
    """Refuse tiles that are narrower than a spot: nuclei in it would not be seen, and not be summed.

    Raises
    ------
    ValueError
        If they are; a side that does is named.
    """
    diameter = spot_diameter(section) * section.scale.mpp
    if um < diameter:
        wider = MULTIPLE * int(np.ceil(diameter / um * px / MULTIPLE))
        raise ValueError(
            f"The spots of section {section.name!r} are {diameter:.4g} um wide, and a tile {um:g} um: it must hold the "
            f"whole spot whose nuclei are summed. Fit with tile_um={wider * um / px:.4g}, tile_px={wider}, or with "
            "fewer pixels, a multiple of 16."
        )


def spot_places(
    opened: OpenedSections, images: Sequence[ResampledImage], xy: NDArray[np.float64]
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return the numbers of the spots of each section, and their centers in pixels of its tiles."""
    sections = zip(opened.members, images, strict=True)
    return [(section.rows, xy[section.rows] / image.full_resolution) for section, image in sections]


def read_table(opened: OpenedSections) -> NucleusTable | None:
    """Return the nuclei that are rows of their own (`nuclei=` is AnnData); None where the rows are the nuclei.

    Raises
    ------
    KeyError
        If coordinates are missing, or the column of sections, of which there are several.
    ValueError
        If coordinates are NaN, or a section has no nucleus.
    """
    nuclei, names = opened.source.nuclei, opened.names
    if not isinstance(nuclei, AnnData):
        return None
    if nuclei.n_obs == 0:
        raise ValueError("The AnnData in `nuclei` has no rows: one row a nucleus is expected.")
    xy = read_coordinates(nuclei, opened.source.spatial_key)
    if len(names) == 1:
        return NucleusTable(nuclei, xy, (np.arange(nuclei.n_obs),))
    key = opened.source.library_key
    assert key is not None
    require_key(nuclei.obs, key, "nuclei.obs", "It tells the section of each nucleus.")
    of = nuclei.obs[key].astype(str).to_numpy()
    members = tuple(np.flatnonzero(of == name) for name in names)
    if without := [name for name, rows in zip(names, members, strict=True) if not len(rows)]:
        raise ValueError(
            f"No nucleus in `nuclei` is of {listed(without)}: nuclei.obs[{key!r}] names {listed(sorted(set(of)))}."
        )
    return NucleusTable(nuclei, xy, members)


def read_nucleus_labels(opened: OpenedSections, labels_key: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes and the class of each row or, where these are in a table of their own, of each nucleus."""
    nuclei = opened.source.nuclei
    if isinstance(nuclei, AnnData):
        require_key(nuclei.obs, labels_key, "nuclei.obs", "Where rows are spots, cell types are those of the nuclei.")
        return read_labels(nuclei, labels_key)
    return read_labels(opened.adata, labels_key)
