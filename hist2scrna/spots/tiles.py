"""Tiles of the image with all nuclei in them, for models that read these; which tile predicts which nucleus."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.images.nuclei import ResampledImage
from hist2scrna.images.patches import PatchGeometry
from hist2scrna.images.placement import check_placement
from hist2scrna.messages import warn_user
from hist2scrna.spots.nuclei import nucleus_mask
from hist2scrna.spots.nuclei_in_spots import NucleiBySpot, check_tile_holds_spot, read_table, spot_places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hist2scrna.images.nucleus_masks import NucleusMask
    from hist2scrna.spots.sections import OpenedSections

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileSize:
    """Side of a tile in pixels and in microns, and by how many pixels neighboring tiles overlap."""

    px: int
    um: float
    overlap: int = 0


def tile_starts(length: int, px: int, overlap: int) -> list[int]:
    """Return where tiles begin along one axis: side by side but for the overlap, the last one flush with the end."""
    last = max(0, length - px)
    return [*range(0, last, px - overlap), last]


class TileSource:
    """All tiles that show a nucleus, read when they are needed.

    Opening reads the masks once, tile by tile, so that memory is bounded by a tile and by the number of nuclei.

    Parameters
    ----------
    images, masks
        Image and nuclei of each section, in pixels of tiles.
    n_rows
        Number of nuclei, over all sections.
    size
        How large a tile is.
    origin
        Where the masks of each section are from.
    by_spot
        The spots that nuclei lie in, where the rows of AnnData are spots: there is one tile for each spot, centered on
        it. None: the rows are the nuclei, and tiles lie side by side.

    Attributes
    ----------
    place
        `(t, 3)` int64, section and first column and row of each tile.
    spot
        `(t,)` int64, the spot that each tile is centered on; None: the rows are the nuclei.
    first
        `(t + 1,)` int64: of `row`, those from `first[i]` to before `first[i + 1]` show in tile `i`.
    row
        `(m,)` int64, the nuclei that show in each tile, ascending within a tile.
    owner
        `(n_rows,)` int64, the tile in which each nucleus shows the most pixels (of several the first), or that of its
        spot; -1: in none.
    pixels
        `(n_rows,)` int64, how many these are.
    """

    def __init__(
        self,
        images: Sequence[ResampledImage],
        masks: Sequence[NucleusMask],
        n_rows: int,
        size: TileSize,
        origin: Sequence[str] = (),
        by_spot: NucleiBySpot | None = None,
    ) -> None:
        self.images, self.masks = images, masks
        self.px = size.px
        self.by_spot = by_spot
        self.origin = tuple(origin)
        self.owner = np.full(n_rows, -1, dtype=np.int64)
        self.pixels = np.zeros(n_rows, dtype=np.int64)
        places: list[tuple[int, int, int]] = []
        shown: list[NDArray[np.int64]] = []
        centered: list[int] = []
        for section, (image, mask) in enumerate(zip(images, masks, strict=True)):
            for x, y, spot in _grid(image, size) if by_spot is None else by_spot.tiles(section, size.px):
                window = mask.read(x, y, size.px, size.px)
                rows, pixels = np.unique(window[window > 0] - 1, return_counts=True)
                mine = pixels > self.pixels[rows] if by_spot is None else by_spot.spot[rows] == spot
                if len(rows) == 0 or (by_spot is not None and not mine.any()):
                    continue
                self.owner[rows[mine]], self.pixels[rows[mine]] = len(places), pixels[mine]
                places.append((section, x, y))
                shown.append(rows)
                centered.append(spot)
        self.place = np.array(places, dtype=np.int64).reshape(-1, 3)
        self.spot = None if by_spot is None else np.array(centered, dtype=np.int64)
        self.first = np.cumsum([0, *(len(rows) for rows in shown)], dtype=np.int64)
        self.row = np.concatenate([np.empty(0, dtype=np.int64), *shown])

    def __len__(self) -> int:
        return len(self.place)

    def rows(self, tile: int) -> NDArray[np.int64]:
        """Return the nuclei that show in a tile."""
        return self.row[self.first[tile] : self.first[tile + 1]]

    def showing(self, members: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the tiles in which some of the nuclei that `members` marks show; of spots, those that it marks."""
        if self.spot is not None:
            return np.flatnonzero(members[self.spot])
        tile = np.repeat(np.arange(len(self)), np.diff(self.first))
        return np.unique(tile[members[self.row]])

    def picture(self, section: int, x: int, y: int) -> NDArray[np.uint8]:
        """Return what the image shows in a tile that begins anywhere, `(3, px, px)`."""
        return self.images[section].read(x, y, self.px, self.px).transpose(2, 0, 1)

    def read(self, tile: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return a tile, `(3, px, px)`, and its mask, `(px, px)`: 0, or 1 + the number of the nucleus."""
        section, x, y = self.place[tile].tolist()
        return self.picture(section, x, y), self.masks[section].read(x, y, self.px, self.px)

    def side_by_side(self, tiles: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the tiles in which the nuclei of some spots are predicted by themselves: these lie side by side.

        Parameters
        ----------
        tiles
            Numbers of tiles that are centered on spots.

        Returns
        -------
        `(k, 3)` section and first column and row of each, and `(k,)` one of `tiles`, of whose spot it shows a nucleus.
        """
        assert self.by_spot is not None and self.spot is not None
        found: dict[tuple[int, ...], int] = {}
        for tile in tiles.tolist():
            section, *corner = self.place[tile].tolist()
            mask = self.masks[section].read(*corner, self.px, self.px)
            inside = mask > 0
            inside[inside] = self.by_spot.spot[mask[inside] - 1] == self.spot[tile]
            place = np.argwhere(inside)[:, ::-1] + corner + 0.5
            _, number = np.unique(mask[inside], return_inverse=True)
            middle = np.stack([np.bincount(number, axis) / np.bincount(number) for axis in place.T], axis=1)
            starts = [np.array(tile_starts(length, self.px, 0)) for length in self.images[section].size]
            columns, rows = (
                begin[np.abs(begin[:, None] + self.px / 2 - at).argmin(axis=0)].tolist()
                for begin, at in zip(starts, middle.T, strict=True)
            )
            for x, y in zip(columns, rows, strict=True):
                found.setdefault((section, x, y), tile)
        return np.array(list(found), dtype=np.int64).reshape(-1, 3), np.array(list(found.values()), dtype=np.int64)

    def colors(self, tiles: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean and the standard deviation of each color within a tile, `(3,)`, mean over some tiles."""
        within = [(p.mean(axis=(1, 2)), p.std(axis=(1, 2))) for p in (self.read(tile)[0] for tile in tiles.tolist())]
        mean, deviation = np.array(within).mean(axis=0)
        return mean, np.maximum(deviation, 1.0)

    def n_nuclei(self) -> NDArray[np.int64]:
        """Return `(n,)` the number of nuclei that are seen in each row of AnnData: of a nucleus 1, or 0."""
        if self.by_spot is None:
            return (self.pixels > 0).astype(np.int64)
        spot = self.by_spot.spot[self.owner >= 0]
        return np.bincount(spot, minlength=self.by_spot.n_spots).astype(np.int64)


def _grid(image: ResampledImage, size: TileSize) -> Iterator[tuple[int, int, int]]:
    across, down = (tile_starts(length, size.px, size.overlap) for length in image.size)
    return ((x, y, -1) for y in down for x in across)


def with_nucleus(tiles: TileSource) -> NDArray[np.bool_]:
    """Tell which rows show a nucleus in some tile, and warn of those that do not."""
    seen = tiles.n_nuclei() > 0
    if not seen.all():
        lack = "cells have no nucleus on the image" if tiles.by_spot is None else "spots have no nucleus in them"
        warn_user(
            f"{int((~seen).sum())} of {len(seen)} {lack} ({tiles.origin[0]}): they are neither trained on nor "
            "predicted."
        )
    return seen


def open_tiles(opened: OpenedSections, xy: NDArray[np.float64], size: TileSize) -> tuple[TileSource, PatchGeometry]:
    """Return the tiles of all sections that show a nucleus, and what they mean; coordinates are checked.

    Parameters
    ----------
    opened
        The sections.
    xy
        `(n, 2)` coordinates in full-resolution pixels.
    size
        How large a tile is.

    Raises
    ------
    KeyError, FileNotFoundError, ImportError, ValueError
        If an image, its scale or a label image is missing or wrong, nuclei do not lie on the image, or no tile shows
        any.
    """
    um = size.um / size.px
    table = read_table(opened)
    images, masks, origins = [], [], []
    for number, section in enumerate(opened.members):
        where = f"adata.obsm[{opened.source.spatial_key!r}]"
        names = opened.adata.obs_names[section.rows]
        check_placement(section.name, names, xy[section.rows], section.image, section.scale.spot_px, where)
        image = ResampledImage(section.image, section.scale.mpp, um)
        if table is None:
            mask, origin = nucleus_mask(section, opened.adata, xy, image, um)
        else:
            check_tile_holds_spot(section, size.px, size.um)
            mask, origin = table.mask(number, image, um)
        images.append(image)
        masks.append(mask)
        origins.append(origin)
    if table is None:
        tiles = TileSource(images, masks, len(xy), size, origins)
    else:
        by_spot = NucleiBySpot(table.spots(opened, xy), spot_places(opened, images, xy), len(xy))
        tiles = TileSource(images, masks, len(table.xy), size, origins, by_spot)
    if len(tiles) == 0:
        raise ValueError("No tile of the image shows a nucleus. Check the label image in nuclei=, and adata.obs.")
    log.info("%d tiles of %g um with nuclei (%s)", len(tiles), size.um, ", ".join(sorted(set(origins))))
    return tiles, PatchGeometry(size.um, size.px, opened.members[0].scale.known_from)
