"""The section that is drawn, or the spot in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna import slots
from hist2scrna.pl._spatial_compare import _picture, _spots
from hist2scrna.pl._tissue import Tissue
from hist2scrna.slides.preview import spot_diameter
from hist2scrna.slides.spots import read_coordinates

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


SIDE_INCHES = 4.6


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
        """Return the spots with the picture between two corners."""
        entry = self.adata.uns.get(slots.SPATIAL, {})
        entry = entry.get(self.library, {}) if self.library is not None else next(iter(entry.values()), {})
        source = (entry.get(slots.METADATA) or {}).get(slots.SOURCE_IMAGE_PATH)
        if self.img_key is None and not entry.get(slots.IMAGES) and not source:
            return Tissue(self.xy, self.diameter)
        return Tissue(self.xy, self.diameter, *_picture(self.adata, self.library, self.img_key, low, high))


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
        column = library_key or (slots.LIBRARY if slots.LIBRARY in adata.obs else None)
        if library is None and column in adata.obs:
            library = str(adata.obs[column].iloc[adata.obs_names.get_loc(spot)])
    library, spots = _spots(adata, library, library_key)
    chosen = None
    if spot is not None:
        place = np.flatnonzero(adata.obs_names[spots] == spot)
        if not len(place):
            raise KeyError(f"Spot {spot!r} is not in section {library!r}. Leave out library= to draw its own.")
        chosen = int(place[0])
    xy = read_coordinates(adata, spatial_key)[spots]
    return Section(adata, library, spots, xy, spot_diameter(adata, library, xy), chosen, img_key)


def section_axes(ax: Axes | None, aspect: float) -> Axes:
    """Return the axes, or those of a new figure of this height over width."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(
            figsize=(SIDE_INCHES + 1, SIDE_INCHES * min(max(aspect, 0.3), 3.0) + 0.4), layout="compressed"
        )
    return ax
