"""The section that is drawn, or the spot in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.pl._figure import Size, figure_size
from hist2scrna.pl._tissue import Tissue
from hist2scrna.spots.coordinates import read_coordinates
from hist2scrna.spots.library import has_image, libraries, open_image
from hist2scrna.spots.sections import read_sections
from hist2scrna.spots.source import resolve_library_key
from hist2scrna.spots.window import spot_diameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

SIDE_INCHES = 4.6
LONGEST_IMAGE = 1200


@dataclass(frozen=True)
class Section:
    """The section to draw: its library, the numbers of its spots, coordinates, and the place of the spot chosen."""

    adata: AnnData
    library: str | None
    spots: NDArray[np.int64]
    xy: NDArray[np.float64]
    diameter: float
    chosen: int | None
    img_key: str | None

    @property
    def title(self) -> str:
        """Name of the spot, or of the section."""
        if self.chosen is not None:
            return str(self.adata.obs_names[self.spots[self.chosen]])
        return self.library or "section"

    def tissue(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> Tissue:
        """Return the spots with the image between two corners."""
        if self.img_key is None and not has_image(_entry(self.adata, self.library)):
            return Tissue(self.xy, self.diameter)
        return Tissue(self.xy, self.diameter, *_read_window(self.adata, self.library, self.img_key, low, high))


def find_section(
    adata: AnnData,
    spot: str | None,
    library: str | None,
    library_key: str | None,
    spatial_key: str,
    img_key: str | None,
) -> Section:
    """Return the section to draw: `library`, else that of `spot`, else the only one.

    Raises
    ------
    KeyError
        If the spot, the section or a slot is missing.
    ValueError
        If there are several sections and none is named.
    """
    if spot is not None:
        if spot not in adata.obs_names:
            raise KeyError(f"Spot {spot!r} not found in adata.obs_names, such as {list(adata.obs_names[:3])}.")
        column = resolve_library_key(adata, library_key)
        if library is None and column is not None:
            library = str(adata.obs[column].iloc[adata.obs_names.get_loc(spot)])
    library, spots = _spots(adata, library, library_key)
    chosen = None
    if spot is not None:
        place = np.flatnonzero(adata.obs_names[spots] == spot)
        if not len(place):
            raise KeyError(f"Spot {spot!r} is not in section {library!r}. Leave out library= to draw its own.")
        chosen = int(place[0])
    xy = read_coordinates(adata, spatial_key)[spots]
    return Section(adata, library, spots, xy, spot_diameter(_entry(adata, library), xy), chosen, img_key)


def _entry(adata: AnnData, library: str | None) -> Mapping[str, Any]:
    """Return the entry of the library in `.uns["spatial"]`; for None the first; empty where there is none."""
    known = libraries(adata)
    return known.get(library, {}) if library is not None else next(iter(known.values()), {})


def _spots(adata: AnnData, library: str | None, library_key: str | None) -> tuple[str | None, NDArray[np.int64]]:
    """Return the name of the library in `.uns["spatial"]`, and the numbers of its spots."""
    library_key = resolve_library_key(adata, library_key)
    if library_key is None:
        return library, np.arange(adata.n_obs)
    sections, codes = read_sections(adata, library_key)
    if library is None:
        if len(sections) > 1:
            raise ValueError(
                f"adata.obs[{library_key!r}] holds {len(sections)} sections; one is drawn at a time. Pass library=, "
                f"one of {list(sections)}."
            )
        library = sections[0]
    if library not in sections:
        raise KeyError(f"Section {library!r} not found in adata.obs[{library_key!r}]. Available: {list(sections)}.")
    return library, np.flatnonzero(codes == sections.index(library))


def _read_window(
    adata: AnnData, library: str | None, img_key: str | None, low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Read the window between two corners (full-resolution pixels), no finer than a figure can show."""
    image = open_image(adata, library, img_key=img_key)
    level = image.level_for(LONGEST_IMAGE / float((high - low).max()))
    scale, size = image.scales[level], np.array(image.size(level))
    first = np.clip(np.floor(low * scale).astype(int), 0, size - 1)
    last = np.clip(np.ceil(high * scale).astype(int), first + 1, size)
    window = image.read(level, int(first[0]), int(first[1]), *(int(v) for v in last - first))
    step = max(1, int((last - first).max()) // LONGEST_IMAGE)
    left, top, right, bottom = (float(v) for v in np.concatenate([first, last]) / scale)
    return window[::step, ::step], (left, right, bottom, top)


def section_axes(ax: Axes | None, figsize: Size | None, aspect: float) -> Axes:
    """Return the axes, or those of a new figure, of this height over width unless another size was asked for."""
    import matplotlib.pyplot as plt

    size = figure_size(ax, figsize, (SIDE_INCHES + 1, SIDE_INCHES * min(max(aspect, 0.3), 3.0) + 0.4))
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="compressed")
    return ax
