"""From AnnData to the arrays of its spots: coordinates, graph, patches or features, counts, labels."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hist2scrna import keys
from hist2scrna.images.patches import (
    PATCH_PER_SPOT,
    PatchGeometry,
    PatchSource,
    default_patch_um,
    section_scale,
)
from hist2scrna.images.placement import check_placement
from hist2scrna.spots.array import array_graph, read_array
from hist2scrna.spots.graph import DEFAULT, Neighbors, SpatialGraph, build_graph
from hist2scrna.spots.library import library_entry, open_image
from hist2scrna.spots.patch_files import has_patch_files, open_patch_files
from hist2scrna.spots.sections import read_sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray


log = logging.getLogger(__name__)

# Few pixels a spot are no fault of the picture where the spots are small: bins, cells, a fine lattice.
FINE_ENOUGH_PX = 32
COARSEST_UM = 1.2


@dataclass
class Spots:
    """All spots of an AnnData, as arrays.

    Attributes
    ----------
    names
        Names of the spots.
    sections
        Names of the sections.
    section
        `(n,)` int64, number of the section of each spot.
    xy
        `(n, 2)` float64, full-resolution pixels, x right, y down.
    graph
        Neighbors.
    patches, geometry
        Patches and what they mean; None for models on features.
    features
        `(n, d)` float32; None for models on patches.
    grid
        `(n, 2)` float32 array column and row; None for models that do not read these.
    counts
        `(n, G)` CSR float32; None for prediction.
    label
        `(n,)` int64 class, -1 where unknown; None without labels.
    groups, group
        Names of the groups of sections that are left out together, such as donors, and `(n,)` int64 the number of the
        group of each spot; None: each section is left out alone.
    """

    names: pd.Index
    sections: tuple[str, ...]
    section: NDArray[np.int64]
    xy: NDArray[np.float64]
    graph: SpatialGraph
    patches: PatchSource | None = None
    geometry: PatchGeometry | None = None
    features: NDArray[np.float32] | None = None
    grid: NDArray[np.float32] | None = None
    counts: sparse.csr_array | None = None
    label: NDArray[np.int64] | None = None
    groups: tuple[str, ...] | None = None
    group: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def library_size(self) -> NDArray[np.float64]:
        """`(n,)`, sum of the counts of each spot over the modeled genes."""
        if self.counts is None:
            raise ValueError("These spots were read without counts.")
        return np.asarray(self.counts.sum(axis=1, dtype=np.float64)).ravel()


def read_coordinates(adata: AnnData, spatial_key: str) -> NDArray[np.float64]:
    """Return the coordinates, `(n, 2)` float64, checked.

    Raises
    ------
    KeyError
        If the slot is missing.
    ValueError
        If it is not two finite numbers a spot.
    """
    where = f"adata.obsm[{spatial_key!r}]"
    if spatial_key not in adata.obsm:
        raise KeyError(f"Key {spatial_key!r} not found in adata.obsm. Available keys: {list(adata.obsm)}.")
    xy = np.asarray(adata.obsm[spatial_key])
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.issubdtype(xy.dtype, np.number):
        raise ValueError(f"Expected {where} to be numbers of shape (n_obs, 2), found {xy.dtype} {xy.shape}.")
    xy = xy.astype(np.float64)
    bad = ~np.isfinite(xy).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} spots have NaN or infinite coordinates in {where} "
            f"(the first is {adata.obs_names[bad][0]!r}). Drop them: adata = adata[~np.isnan({where}).any(axis=1)]."
        )
    return xy


def read_features(adata: AnnData, features_key: str, width: int | None = None) -> NDArray[np.float32]:
    """Return the features, `(n, d)` float32, checked.

    Raises
    ------
    KeyError
        If the slot is missing.
    ValueError
        If the values are not finite, or not `width` a spot.
    """
    where = f"adata.obsm[{features_key!r}]"
    if features_key not in adata.obsm:
        raise KeyError(f"Key {features_key!r} not found in adata.obsm. Available keys: {list(adata.obsm)}.")
    held: Any = adata.obsm[features_key]
    features = np.asarray(held.toarray() if sparse.issparse(held) else held, dtype=np.float32)
    if features.ndim != 2 or (width is not None and features.shape[1] != width):
        expected = "(n_obs, d)" if width is None else f"(n_obs, {width}), as in training"
        raise ValueError(f"Expected {where} to be of shape {expected}, found {features.shape}.")
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} spots have NaN or infinite features in {where} "
            f"(the first is {adata.obs_names[bad][0]!r}). Extract them again, or drop these spots."
        )
    return features


def read_spots(
    adata: AnnData,
    *,
    library_key: str | None,
    spatial_key: str,
    img_key: str | Sequence[str] | None = None,
    image: Any = None,
    features_key: str | None = None,
    n_features: int | None = None,
    patch_px: int | None = None,
    patch_um: float | None = None,
    patch_per_spot: float = PATCH_PER_SPOT,
    mpp: float | None = None,
    on_array: bool = False,
    neighbors: Neighbors = DEFAULT,
) -> Spots:
    """Read coordinates, graph and patches or features; nothing is written to `adata`.

    Parameters
    ----------
    adata
        Annotated data.
    library_key, spatial_key, img_key, image, features_key
        As in :func:`hist2scrna.tl.fit`.
    n_features
        Width that the features must have.
    patch_px
        Side of a patch in pixels, as the model sees it; None for models on features.
    patch_um
        Side of a patch in microns; None for `patch_per_spot` spot diameters.
    patch_per_spot
        Side of a patch in spot diameters.
    mpp
        Microns per full-resolution pixel, where the metadata do not tell.
    on_array
        Read array columns and rows too, and take the neighbors from these (directed, as Hist2ST has them).
    neighbors
        Which spots or cells are neighbors.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        If a slot or file is missing or wrong.
    """
    sections, section = read_sections(adata, library_key)
    xy = read_coordinates(adata, spatial_key)
    features = patches = geometry = None
    if patch_px is None:
        if features_key is None:
            raise ValueError("This model reads features: pass features_key=, the slot in adata.obsm that holds them.")
        features = read_features(adata, features_key, n_features)
    else:
        patches, geometry = _open_patches(
            adata,
            sections,
            section,
            xy,
            library_key,
            spatial_key,
            img_key,
            image,
            patch_px,
            patch_um,
            patch_per_spot,
            mpp,
        )
    grid = read_array(adata, xy, section, sections) if on_array else None
    if grid is not None:
        graph = array_graph(grid, xy, section, len(sections))
    else:
        scales = None
        if neighbors.radius_um is not None:
            scales = [_microns(adata, name, library_key, img_key, image, mpp) for name in sections]
        graph = build_graph(adata, xy, section, sections, neighbors, scales)
    return Spots(
        names=adata.obs_names,
        sections=sections,
        section=section,
        xy=xy,
        graph=graph,
        patches=patches,
        geometry=geometry,
        features=features,
        grid=grid,
    )


def _microns(
    adata: AnnData,
    section: str,
    library_key: str | None,
    img_key: str | Sequence[str] | None,
    image: Any,
    mpp: float | None,
) -> float:
    """Return microns per full-resolution pixel of a section, with or without a picture."""
    library = None if library_key is None else section
    entry = library_entry(adata, library)[1] if adata.uns.get(keys.SPATIAL) else {}
    picture = None
    if image is not None or entry.get(keys.IMAGES) or (entry.get(keys.METADATA) or {}).get(keys.SOURCE_IMAGE_PATH):
        own = library if not isinstance(image, dict) else section
        picture = open_image(adata, own, img_key=img_key, image=image)
    return section_scale(section, entry, mpp, picture).mpp


def _open_patches(
    adata: AnnData,
    sections: tuple[str, ...],
    section: NDArray[np.int64],
    xy: NDArray[np.float64],
    library_key: str | None,
    spatial_key: str,
    img_key: str | Sequence[str] | None,
    image: Any,
    patch_px: int,
    patch_um: float | None,
    patch_per_spot: float,
    mpp: float | None,
) -> tuple[PatchSource, PatchGeometry]:
    if image is not None and not isinstance(image, dict) and len(sections) > 1:
        raise ValueError(
            f"One `image` was given for {len(sections)} sections: {list(sections)}. Pass a dictionary of images "
            "by section."
        )
    if image is None and img_key is None:
        entries = {name: library_entry(adata, None if library_key is None else name)[1] for name in sections}
        if has_patch_files(entries):
            return open_patch_files(adata, entries, xy, section, patch_px, patch_um)
    images, scales = [], []
    for name in sections:
        library = None if library_key is None else name
        known = bool(adata.uns.get(keys.SPATIAL))
        entry = library_entry(adata, library)[1] if image is None or known else {}
        picture = open_image(adata, library if not isinstance(image, dict) else name, img_key=img_key, image=image)
        scale = section_scale(name, entry, mpp, picture)
        images.append(picture)
        scales.append(scale)
    where = f"adata.obsm[{spatial_key!r}]"
    for code, (name, picture, scale) in enumerate(zip(sections, images, scales, strict=True)):
        own = section == code
        check_placement(name, adata.obs_names[own], xy[own], picture, scale.spot_px, where)
        pixel_um = scale.mpp / picture.scale
        if scale.spot_px is not None and scale.spot_px * picture.scale < FINE_ENOUGH_PX and pixel_um > COARSEST_UM:
            warnings.warn(
                f"A spot of section {name!r} covers only {scale.spot_px * picture.scale:.0f} px of the picture "
                f"({picture.origin}), of {pixel_um:.2g} um each: nuclei can hardly be seen. Pass image= with the "
                "full-resolution file, if there is one.",
                UserWarning,
                stacklevel=4,
            )
    found = {name: picture.channels for name, picture in zip(sections, images, strict=True)}
    if len(set(found.values())) > 1:
        raise ValueError(f"The sections have pictures of different numbers of channels: {found}. Give each the same.")
    um = default_patch_um(scales, patch_per_spot) if patch_um is None else float(patch_um)
    if not np.isfinite(um) or um <= 0:
        raise ValueError(f"Expected `patch_um` to be a positive number, found {patch_um}.")
    log.info("patches: %g um, %d px", um, patch_px)
    side = [um / scale.mpp for scale in scales]
    return PatchSource(images, side, xy, section, patch_px), PatchGeometry(um, patch_px, scales[0].known_from)
