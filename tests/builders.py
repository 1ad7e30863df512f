"""What tests build from: the spots of an AnnData as the package reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hist2scrna.spots.graph import DEFAULT, Neighbors
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import Spots, read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from anndata import AnnData


def spots_of(
    adata: AnnData,
    *,
    patch_px: int | None = None,
    patch_um: float | None = None,
    patch_per_spot: float = 1.5,
    n_features: int | None = None,
    on_array: bool = False,
    neighbors: Neighbors = DEFAULT,
    **source: Any,
) -> Spots:
    """Read the spots of `adata`; further arguments are those of `Source`."""
    patch = None if patch_px is None else PatchSize(patch_px, patch_um, patch_per_spot)
    opened = open_sections(adata, Source(**source))
    return read_spots(opened, patch=patch, n_features=n_features, on_array=on_array, neighbors=neighbors)
