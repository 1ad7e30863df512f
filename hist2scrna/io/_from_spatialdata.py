"""From SpatialData to AnnData with an image: coordinates are taken into the pixels of the image."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.images.base import ArrayImage
from hist2scrna.io.affine import invert, magnification, transform
from hist2scrna.messages import require_key, warn_user
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

log = logging.getLogger(__name__)

ATTRIBUTES = "spatialdata_attrs"
FULL, PREVIEW = "level0", "hires"
PREVIEW_PX = 2000


def from_spatialdata(
    sdata: SpatialData,
    *,
    image: str,
    table: str | None = None,
    region: str | None = None,
    coordinate_system: str = "global",
    library_id: str | None = None,
    um_per_unit: float | None = None,
) -> ad.AnnData:
    """Take the spots, bins or cells of one section, and their image, out of SpatialData.

    The center of each element goes through its own transformation into `coordinate_system`, and from there through the
    inverse of the image's into pixels of the image: the two may be aligned by any affine transformation. For several
    sections call this for each, and join the results with :func:`concat`.

    Parameters
    ----------
    sdata
        SpatialData, in memory or on disk.
    image
        Name of the H&E image in `sdata.images`, one scale or several; it is read lazily.
    table
        Name of the table in `sdata.tables` with the counts; None: the only one.
    region
        Name of the shapes, labels or points that the table annotates; None: the only ones.
    coordinate_system
        In which both are aligned.
    library_id
        Name of the section; None: `region`.
    um_per_unit
        Microns per unit of `coordinate_system` (1 if its unit is the micron). None: what :func:`to_spatialdata` kept,
        else unknown: microns are then taken from the diameter of the spots, or `mpp=` is passed to
        :func:`hist2scrna.tl.fit`.

    Returns
    -------
    AnnData, the rows of the table that annotate `region` x genes; `.X`, layers, `.var` and `.obs` as in the table, and

    - `.obs["library_id"]`: categorical.
    - `.obsm["spatial"]`: float64, pixels of the image, x to the right, y down.
    - `.uns["spatial"][library]`: `images["hires"]`, an array of at most 2,000 pixels a side, and if the image is
      larger, `images["level0"]`, all of it as a Dask array (which is read whole if the AnnData is written);
      `scalefactors` with those of the images, `spot_diameter_fullres` (of circles; of polygons, the diameter of a
      circle of the median area) and `mpp`, where known.

    Raises
    ------
    KeyError
        If an element or the coordinate system is missing, or an element is not aligned to it.
    ValueError
        If it is not clear which is meant, the image is not RGB, a row has no element, or the transformation cannot be
        inverted.

    Examples
    --------
    >>> sdata = h2s.io.to_spatialdata(test)
    >>> h2s.io.from_spatialdata(sdata, image=next(iter(sdata.images))).shape
    (30, 12)
    """
    from spatialdata import get_centroids, get_pyramid_levels

    adata = _rows(sdata, table, region)
    attributes = adata.uns[ATTRIBUTES]
    region = str(adata.obs[attributes["region_key"]].iloc[0])
    library = library_id or region
    require_key(sdata.images, image, "sdata.images")
    if region not in sdata:
        raise KeyError(f"The table annotates {region!r}, which is not in sdata. Elements: {_names(sdata)}.")
    to_world = _matrix(sdata.images[image], image, coordinate_system)
    from_element = _matrix(sdata[region], region, coordinate_system)
    to_image = invert(to_world, f"The transformation of {image!r} to {coordinate_system!r}")

    with warnings.catch_warnings():
        # Rows are matched by name below.
        warnings.filterwarnings("ignore", message="The index of the dataframe is not monotonic", category=UserWarning)
        centers = get_centroids(sdata[region], coordinate_system).compute()
    instances = adata.obs[attributes["instance_key"]].to_numpy()
    order = centers.index.get_indexer(pd.Index(instances))
    if (order < 0).any() or not centers.index.is_unique:
        lost = instances[order < 0]
        problem = f"{len(lost)} rows without, the first is {lost[0]!r}" if len(lost) else "elements with the same name"
        raise ValueError(f"Expected one element of {region!r} for each row of the table, problem {problem}.")
    xy = transform(to_image, centers[["x", "y"]].to_numpy(dtype=np.float64)[order])

    kept: Mapping[str, Any] = adata.uns.get(keys.SPATIAL, {}).get(library, {})
    factors = {k: v for k, v in kept.get(keys.SCALEFACTORS, {}).items() if k == keys.SPOT_DIAMETER_UM}
    if um_per_unit is None:
        um_per_unit = kept.get(keys.SCALEFACTORS, {}).get(keys.MPP)
    if um_per_unit is not None:
        if not (np.isfinite(um_per_unit) and um_per_unit > 0):
            raise ValueError(f"Expected `um_per_unit` to be a positive number, found {um_per_unit}.")
        factors[keys.MPP] = float(um_per_unit) * magnification(to_world)
    diameter = _diameter(sdata[region])
    if diameter is not None:
        factors[keys.SPOT_DIAMETER] = diameter * magnification(to_image @ from_element)
    if not {keys.MPP, keys.SPOT_DIAMETER} & set(factors):
        warn_user(f"Nothing tells how many microns a pixel of {image!r} is. Pass um_per_unit= here, or mpp= later.")
    element = sdata.images[image]
    levels = [element] if hasattr(element, "data") else list(get_pyramid_levels(element))
    images, scales = _preview_and_whole(levels, image)
    adata.obs[keys.LIBRARY] = pd.Categorical([library] * adata.n_obs)
    adata.obsm[keys.SPATIAL] = xy
    adata.uns[keys.SPATIAL] = {
        library: {
            keys.IMAGES: images,
            keys.SCALEFACTORS: {**factors, **scales},
            keys.METADATA: dict(kept.get(keys.METADATA, {})),
        }
    }
    del adata.uns[ATTRIBUTES]
    return adata


def _names(sdata: SpatialData) -> list[str]:
    return [name for _, name, _ in sdata.gen_spatial_elements()]


def _rows(sdata: SpatialData, table: str | None, region: str | None) -> ad.AnnData:
    """Return a copy of the rows of the table that annotate one region."""
    tables = list(sdata.tables)
    if table is None:
        if len(tables) != 1:
            raise ValueError(f"sdata.tables holds {len(tables)} tables: {tables}. Pass table=.")
        table = tables[0]
    require_key(sdata.tables, table, "sdata.tables")
    adata = sdata.tables[table]
    attributes = adata.uns.get(ATTRIBUTES)
    if not attributes:
        raise ValueError(
            f"Table {table!r} annotates no element: it has no uns['{ATTRIBUTES}']. Set it with TableModel.parse."
        )
    annotated = adata.obs[attributes["region_key"]].astype(str)
    regions = list(annotated.unique())
    if region is None and len(regions) != 1:
        raise ValueError(f"Table {table!r} annotates {len(regions)} regions: {regions}. Pass region=.")
    region = regions[0] if region is None else region
    if region not in regions:
        raise KeyError(f"Table {table!r} does not annotate {region!r}. Regions that it annotates: {regions}.")
    return adata[(annotated == region).to_numpy()].copy()


def _matrix(element: Any, name: str, coordinate_system: str) -> NDArray[np.float64]:
    """Return the affine matrix of an element to the coordinate system."""
    from spatialdata.transformations import get_transformation

    known = get_transformation(element, get_all=True)
    if coordinate_system not in known:
        raise KeyError(
            f"Element {name!r} is not aligned to the coordinate system {coordinate_system!r}, only to {list(known)}. "
            "Pass coordinate_system=, or align the elements first (spatialdata.transformations.set_transformation)."
        )
    axes = ("x", "y")
    return np.asarray(known[coordinate_system].to_affine_matrix(axes, axes), dtype=np.float64)


def _diameter(element: Any) -> float | None:
    """Return the diameter of shapes in their own units; None for labels and points."""
    if "radius" in getattr(element, "columns", ()):
        return 2 * float(np.median(element["radius"]))
    if hasattr(element, "area") and hasattr(element, "geometry"):
        return 2 * float(np.sqrt(np.median(element.area) / np.pi))
    return None


def _preview_and_whole(levels: Sequence[Any], name: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the preview, and the whole if that is larger, channels last; and their scale factors."""
    origin = f"sdata.images[{name!r}]"
    arrays = [level.transpose("y", "x", "c").data for level in levels]
    ArrayImage(arrays[0], 1.0, origin)
    height, width = arrays[0].shape[:2]
    fit = next((array for array in arrays if max(array.shape[:2]) <= PREVIEW_PX), None)
    if fit is None:
        step = -(-max(arrays[-1].shape[:2]) // PREVIEW_PX)
        fit = arrays[-1][::step, ::step]
    preview = np.asarray(fit)
    scale = max(preview.shape[:2]) / max(height, width)
    images, scales = {PREVIEW: preview}, {keys.image_scale(PREVIEW): scale}
    if scale < 1:
        images, scales = {FULL: arrays[0], **images}, {keys.image_scale(FULL): 1.0, **scales}
    log.log(HINT, "image %s: %d x %d px, %d levels", name, width, height, len(levels))
    return images, scales
