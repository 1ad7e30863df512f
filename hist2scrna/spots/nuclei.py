"""The nuclei that the rows of AnnData are: from label images, or drawn from what `.obs` says of their size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.images.nuclei import MEASURED
from hist2scrna.images.nucleus_masks import DrawnMask, LabelMask, labels_per_pixel, open_labels
from hist2scrna.images.nucleus_polygons import PolygonMask, are_polygons, read_polygons
from hist2scrna.messages import require_key
from hist2scrna.spots.source import image_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.images.nuclei import ResampledImage
    from hist2scrna.images.nucleus_masks import NucleusMask
    from hist2scrna.spots.sections import Section

# Where nothing tells the size.
DIAMETER_UM = 8.0
LABELED, POLYGONS, DISCS = "label image", "polygons", "discs"
MAJOR, MINOR, ORIENTATION = (MEASURED[name] for name in ("major", "minor", "orientation"))


def nucleus_mask(
    section: Section, adata: AnnData, xy: NDArray[np.float64], image: ResampledImage, um: float
) -> tuple[NucleusMask, str]:
    """Return the nuclei of a section on the pixels of its tiles, numbered by row of AnnData, and where they are from.

    Parameters
    ----------
    section
        The section; `section.source.nuclei` is the label image or the polygons, several of these by section, or None.
    adata
        Annotated data.
    xy
        `(n, 2)` coordinates of all rows in full-resolution pixels.
    image
        The image in pixels of tiles.
    um
        Microns per pixel of a tile.

    Raises
    ------
    KeyError, FileNotFoundError, ValueError
        If a label image, or the label of each row, is missing or wrong.
    """
    rows = section.rows
    if section.source.nuclei is None:
        axes, angle, origin = nucleus_sizes(adata.obs.iloc[rows])
        # Pixel centers lie at halves, in both systems.
        return DrawnMask(xy[rows] / image.full_resolution, axes / um, angle, rows), origin
    given = image_of(section.source.nuclei, section.name, "nuclei")
    if are_polygons(given):
        names, polygons = read_polygons(given, _from_microns(section))
        place = _rows_of_names(adata, rows, names, section.name)
        known = place >= 0
        return PolygonMask(polygons[known], rows[place[known]], image.full_resolution), POLYGONS
    labels = open_labels(given)
    per_pixel = labels_per_pixel(labels, section.image.size())
    step = image.full_resolution * section.image.scale * per_pixel
    return LabelMask(labels, step, _labels_of_rows(adata, rows, section.name), rows), LABELED


def _from_microns(section: Section) -> NDArray[np.float64]:
    """Return the `(3, 3)` matrix from microns to full-resolution pixels: what `io.read_xenium` kept, else the scale."""
    kept = (section.entry.get(keys.METADATA) or {}).get(keys.PIXELS_FROM_UM)
    return np.diag([1 / section.scale.mpp] * 2 + [1.0]) if kept is None else np.asarray(kept, dtype=np.float64)


def _rows_of_names(adata: AnnData, rows: NDArray[np.int64], names: list[str], section: str) -> NDArray[np.int64]:
    """Return the place among the rows of the cell of each polygon, -1 for none."""
    column = adata.obs[keys.NUCLEUS] if keys.NUCLEUS in adata.obs else adata.obs_names.to_series()
    called = pd.Index(column.iloc[rows].astype(str))
    if (twice := called[called.duplicated() & called.isin(names)]).size:
        raise ValueError(
            f"Nucleus {twice[0]!r} of section {section!r} occurs in more than one row of adata.obs[{keys.NUCLEUS!r}]: "
            "a nucleus is one row."
        )
    unique = ~called.duplicated()
    place = np.flatnonzero(unique)[called[unique].get_indexer(names)]
    place[~pd.Index(names).isin(called)] = -1
    if (place < 0).all():
        where = f"adata.obs[{keys.NUCLEUS!r}]" if keys.NUCLEUS in adata.obs else "adata.obs_names"
        raise ValueError(
            f"No polygon in `nuclei` is named as a row of section {section!r}: polygons are named {names[:2]}, and "
            f"{where} holds {called[:2].tolist()}. Set adata.obs[{keys.NUCLEUS!r}] to the names of the polygons."
        )
    return place


def _labels_of_rows(adata: AnnData, rows: NDArray[np.int64], name: str) -> NDArray[np.int64]:
    require_key(adata.obs, keys.NUCLEUS, "adata.obs", "It holds the label of each row in the label image.")
    column = pd.to_numeric(adata.obs[keys.NUCLEUS].iloc[rows], errors="coerce").fillna(0).to_numpy(dtype=np.float64)
    if (column != np.round(column)).any():
        raise ValueError(f"Expected adata.obs[{keys.NUCLEUS!r}] to hold whole numbers: labels of the label image.")
    labels = column.astype(np.int64)
    used, number = np.unique(labels[labels != 0], return_counts=True)
    if (number > 1).any():
        raise ValueError(
            f"Label {used[number > 1][0]} of section {name!r} occurs in more than one row of adata.obs"
            f"[{keys.NUCLEUS!r}]: a nucleus is one row."
        )
    # Rows without a nucleus get labels that no pixel has.
    without = labels == 0
    labels[without] = -1 - np.arange(without.sum())
    return labels


def nucleus_sizes(obs: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return both axes of each nucleus in microns, the direction of the long one in degrees, and what told them."""

    def column(name: str, default: float) -> NDArray[np.float64]:
        values: Any = pd.to_numeric(obs[name], errors="coerce").to_numpy(dtype=np.float64)
        return np.where(np.isfinite(values) & (values >= 0), values, default)

    if {MAJOR, MINOR, ORIENTATION} <= set(obs.columns):
        axes = np.stack([column(MAJOR, DIAMETER_UM), column(MINOR, DIAMETER_UM)], axis=1)
        return axes, column(ORIENTATION, 0.0), "ellipses"
    diameter = np.full(len(obs), DIAMETER_UM)
    origin = f"{DISCS} of {DIAMETER_UM:g} um"
    if keys.NUCLEUS_AREA in obs:
        area = column(keys.NUCLEUS_AREA, np.pi * (DIAMETER_UM / 2) ** 2)
        diameter, origin = 2 * np.sqrt(area / np.pi), f"{DISCS} of {keys.NUCLEUS_AREA}"
    return np.stack([diameter, diameter], axis=1), np.zeros(len(obs)), origin
