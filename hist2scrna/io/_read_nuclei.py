"""Nuclei that were segmented elsewhere, one observation each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from hist2scrna import keys
from hist2scrna.images.nuclei import MEASURED
from hist2scrna.images.nucleus_masks import labels_per_pixel, open_labels
from hist2scrna.images.nucleus_polygons import are_polygons, read_polygons
from hist2scrna.images.nucleus_shapes import label_shapes, polygon_shapes
from hist2scrna.pp._image import library_entry, open_scaled

if TYPE_CHECKING:
    from hist2scrna.images.base import SectionImage

COLUMNS = ("area", "major", "minor", "orientation")


def read_nuclei(nuclei: Any, image: Any, *, mpp: float | None = None, library_id: str = "section") -> AnnData:
    """Read nuclei that were segmented elsewhere, in the form in which `pp.segment_nuclei` returns its own.

    With them, a model predicts single nuclei, or is fitted to spots (`nuclei=` of :func:`hist2scrna.tl.fit`). Each is
    kept as the ellipse with the same moments up to the second, in closed form; where its rim is to count, pass the
    label image or the polygons as `nuclei=` beside the result: `.obs["nucleus"]` holds their names.

    Parameters
    ----------
    nuclei
        A label image on the pixels of the image, or on a whole fraction of these: an array, a TIFF, a Zarr folder or
        labels of SpatialData. Or polygons in full-resolution pixels: the path of a GeoJSON file as QuPath exports it
        (of cells, their nuclei are taken) or of a Parquet file of GeoPandas, or a GeoDataFrame, such as shapes of
        SpatialData. Or Xenium's `nucleus_boundaries.parquet`, in microns from the corner of the image.
    image
        The H&E image that they lie on: a path, or an array (height, width, 3).
    mpp
        Microns per pixel; None: from the metadata of the file.
    library_id
        Name of the section.

    Returns
    -------
    AnnData without genes (`X` None, `n_vars` 0), one observation per nucleus:

    - `.obsm["spatial"]`: float64, centroids in full-resolution pixels, x right, y down.
    - `.obs["nucleus"]`: the label, or the name of the polygon.
    - `.obs["area_um2"]`, `["major_axis_um"]`, `["minor_axis_um"]`, `["orientation_deg"]`: float64, as of
      :func:`hist2scrna.pp.segment_nuclei`.
    - `.obs["library_id"]` and `.uns["spatial"]`: as of :func:`hist2scrna.pp.segment_nuclei`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `image` is neither a path nor an array.
    ValueError
        If the file holds no nuclei, or others than polygons, the label image is not on the pixels of the image, or
        nothing tells the microns per pixel.

    Examples
    --------
    >>> nuclei = h2s.io.read_nuclei("qupath.geojson", "slide.svs")  # doctest: +SKIP
    >>> model = h2s.tl.fit(spots, model="ghist", nuclei=nuclei)  # doctest: +SKIP
    """
    opened, scale = open_scaled(image, mpp)
    shapes = _shapes(nuclei, opened, scale)
    if shapes.empty:
        raise ValueError("There is no nucleus in `nuclei`: the label image is 0 everywhere, or the file is empty.")
    width, height = (side / opened.scale for side in opened.size())
    off = ~(shapes["x"].between(0, width) & shapes["y"].between(0, height))
    if off.any():
        raise ValueError(
            f"{int(off.sum())} of {len(off)} nuclei lie off the image, which is {width:.0f} x {height:.0f} px: the "
            f"first is at {shapes.loc[off, 'x'].iloc[0]:.0f}, {shapes.loc[off, 'y'].iloc[0]:.0f}. Give them in "
            "full-resolution pixels of this image, x right and y down."
        )
    obs = pd.DataFrame(index=[f"{library_id}_{i}" for i in range(len(shapes))])
    obs[keys.LIBRARY] = pd.Categorical([library_id] * len(shapes))
    obs[keys.NUCLEUS] = shapes.index.to_numpy()
    for name, unit in zip(COLUMNS, (scale**2, scale, scale, 1.0), strict=True):
        obs[MEASURED[name]] = shapes[name].to_numpy() * unit
    return AnnData(
        obs=obs,
        obsm={keys.SPATIAL: shapes[["x", "y"]].to_numpy()},
        uns={keys.SPATIAL: {library_id: library_entry(image, opened, scale, None)}},
    )


def _shapes(nuclei: Any, image: SectionImage, mpp: float) -> pd.DataFrame:
    """Return the shapes of all nuclei in full-resolution pixels."""
    if are_polygons(nuclei):
        return polygon_shapes(*read_polygons(nuclei, np.diag([1 / mpp, 1 / mpp, 1.0])))
    labels = open_labels(nuclei)
    step = 1 / (labels_per_pixel(labels, image.size()) * image.scale)
    shapes = label_shapes(labels)
    lengths = ["x", "y", "major", "minor"]
    return shapes.assign(**(shapes[lengths] * step), area=shapes["area"] * step**2)
