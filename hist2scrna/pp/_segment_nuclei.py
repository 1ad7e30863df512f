"""The nuclei of an image, one observation each."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd
from anndata import AnnData

from hist2scrna import keys
from hist2scrna.images.nuclei import MEASURED, NucleusSegmenter
from hist2scrna.images.tissue import tissue_mask
from hist2scrna.messages import arguments_known
from hist2scrna.pp._image import library_entry, open_scaled, positive

log = logging.getLogger(__name__)

SMALLEST_TILE = 64


@arguments_known
def segment_nuclei(
    image: Any,
    *,
    mpp: float | None = None,
    min_area_um2: float = 12.0,
    max_area_um2: float = 400.0,
    tile_px: int = 1024,
    library_id: str = "section",
    progress: bool = True,
) -> AnnData:
    """Find the nuclei in an H&E image, for single-cell prediction where there is no assay.

    Classical image analysis, without any training: hematoxylin by color deconvolution, a threshold that follows the
    surroundings, and a watershed on the distance to the rim and the contrast; see
    `hist2scrna.images.nuclei.NucleusSegmenter` for the steps and their sources. It works at 0.5 um per pixel, whatever
    the resolution of the image, within the tissue that :func:`hist2scrna.pp.tissue_grid` finds. Tiles are read with a
    margin, and thresholds hold for the whole section: the nuclei do not depend on `tile_px`, and memory is bounded by a
    tile. Where nuclei overlap, in thick or frozen sections, too few are found.

    Parameters
    ----------
    image
        The H&E image: a path (JPEG, PNG, TIFF, SVS, ...), or an array (height, width, 3), uint8, uint16 or float in
        0..1. Its pixels are the full-resolution pixels, at most 1.5 um wide.
    mpp
        Microns per pixel; None: from the metadata of the file.
    min_area_um2, max_area_um2
        Nuclei that are smaller (12: 4 um across) or larger (400: 23 um across) are left out.
    tile_px
        Side of a tile in pixels of 0.5 um; a margin of 144 is added on all sides. About 0.3 GB at 1,024.
    library_id
        Name of the section.
    progress
        Show a bar.

    Returns
    -------
    AnnData without genes (`X` None, `n_vars` 0), one observation per nucleus, from top to bottom, ready for
    :func:`hist2scrna.tl.predict`.

    `.obsm["spatial"]` : float64 (n_obs, 2)
        Centroids in full-resolution pixels, x right, y down.
    `.obs["area_um2"]`, `.obs["perimeter_um"]` : float64
        Area and perimeter.
    `.obs["major_axis_um"]`, `.obs["minor_axis_um"]`, `.obs["eccentricity"]`, `.obs["orientation_deg"]` : float64
        Axes and eccentricity of the ellipse with the same second moments; direction of its long axis in degrees, 0 to
        180, clockwise from the right.
    `.obs["solidity"]` : float64
        Area divided by that of the convex hull, in pixels.
    `.obs["hematoxylin"]` : float64
        Mean density of hematoxylin, as :func:`skimage.color.rgb2hed` scales it, relative to the glass.
    `.obs["library_id"]` : categorical
        `library_id`.
    `.uns["spatial"][library_id]` : dict
        As :func:`hist2scrna.pp.tissue_grid` writes it, but without `spot_diameter_fullres`: there are no spots. Plot
        with `sq.pl.spatial_scatter(nuclei, shape=None)`.

    Raises
    ------
    TypeError
        If `image` is neither a path nor an array.
    FileNotFoundError
        If there is no such file.
    ValueError
        If an argument is out of range, the array is not an RGB image, nothing tells the microns per pixel or they are
        above 1.5, or there is no tissue, or no nucleus in it.

    Examples
    --------
    >>> nuclei = h2s.pp.segment_nuclei(picture[:200, :200], mpp=1.0, progress=False)
    >>> list(nuclei.obs.columns[:3])
    ['library_id', 'area_um2', 'perimeter_um']
    """
    from tqdm.auto import tqdm

    smallest, largest = positive(min_area_um2, "min_area_um2"), positive(max_area_um2, "max_area_um2")
    if smallest >= largest:
        raise ValueError(f"Expected `min_area_um2` to be below `max_area_um2`, found {smallest:g} and {largest:g}.")
    if isinstance(tile_px, bool) or not isinstance(tile_px, int) or tile_px < SMALLEST_TILE:
        raise ValueError(f"Expected `tile_px` to be a whole number of at least {SMALLEST_TILE}, found {tile_px!r}.")
    opened, scale = open_scaled(image, mpp)
    segmenter = NucleusSegmenter(opened, scale, tissue_mask(opened, scale))
    parts = []
    for tile in tqdm(segmenter.tiles(tile_px), desc="segmenting", unit="tile", disable=not progress):
        part = segmenter.nuclei(*tile)
        parts.append(part[part["area_um2"].between(smallest, largest)])
    nuclei = pd.concat(parts, ignore_index=True).sort_values(["seed_y", "seed_x"], ignore_index=True)
    if nuclei.empty:
        raise ValueError(
            f"No nucleus of {smallest:g} to {largest:g} um2 found in the tissue of the image ({opened.origin}). "
            f"Check that it is stained by hematoxylin, and mpp= (here {scale:g}), or widen the range."
        )
    log.info("%d nuclei, %.1f um2 in the median", len(nuclei), nuclei["area_um2"].median())
    obs = nuclei[list(MEASURED.values())].set_axis([f"{library_id}_{i}" for i in range(len(nuclei))])
    obs.insert(0, keys.LIBRARY, pd.Categorical([library_id] * len(nuclei)))
    return AnnData(
        obs=obs,
        obsm={keys.SPATIAL: nuclei[["x", "y"]].to_numpy()},
        uns={keys.SPATIAL: {library_id: library_entry(image, opened, scale, None)}},
    )
