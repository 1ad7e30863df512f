"""Nuclei as polygons: read from files of QuPath, Xenium and SpatialData, and drawn window by window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

GEOJSON, PARQUET = (".geojson", ".json"), (".parquet",)
# Of Xenium: one row a vertex, in microns.
CELL_ID, VERTICES = "cell_id", ["vertex_x", "vertex_y"]


class PolygonMask:
    """Nuclei from polygons, with their holes; where two overlap, a pixel goes to the first.

    Parameters
    ----------
    polygons
        `(m,)` polygons or multipolygons of shapely, in full-resolution pixels.
    numbers
        `(m,)` number of each nucleus.
    full_resolution
        Full-resolution pixels per pixel wanted.
    """

    def __init__(self, polygons: NDArray[np.object_], numbers: NDArray[np.int64], full_resolution: float) -> None:
        from shapely import STRtree, prepare

        prepare(polygons)
        self.polygons = polygons
        self.numbers = numbers
        self.full_resolution = full_resolution
        self.tree = STRtree(polygons)

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.int64]:
        """Return a window, `(height, width)`: at each pixel 0, or 1 + the number of the nucleus around its center."""
        from shapely import box, contains_xy

        result = np.zeros((height, width), dtype=np.int64)
        corners = np.array([x, y, x + width, y + height]) * self.full_resolution
        for i in sorted(self.tree.query(box(*corners)).tolist()):
            bounds = np.array(self.polygons[i].bounds) / self.full_resolution - (x, y, x, y)
            left, top = np.maximum(np.floor(bounds[:2]), 0).astype(int)
            right, bottom = np.minimum(np.ceil(bounds[2:]), (width, height)).astype(int)
            across, down = (
                (np.arange(*ends) + start + 0.5) * self.full_resolution
                for ends, start in (((left, right), x), ((top, bottom), y))
            )
            part = result[top:bottom, left:right]
            inside = contains_xy(self.polygons[i], across[None, :], down[:, None])
            part[inside & (part == 0)] = self.numbers[i] + 1
        return result


def are_polygons(nuclei: Any) -> bool:
    """Return whether nuclei are given as polygons: a table of them, or a file that holds one."""
    if isinstance(nuclei, str | Path):
        return Path(nuclei).suffix.lower() in (*GEOJSON, *PARQUET)
    return hasattr(nuclei, "geometry") and isinstance(nuclei, pd.DataFrame)


def read_polygons(nuclei: Any, from_um: NDArray[np.float64]) -> tuple[list[str], NDArray[np.object_]]:
    """Return the name of each nucleus, and its polygon in full-resolution pixels.

    Parameters
    ----------
    nuclei
        A GeoJSON file of QuPath, in which a cell has a nucleus of its own, or is one; Xenium's Parquet file of
        boundaries; a Parquet file of GeoPandas; or a GeoDataFrame, such as the shapes of SpatialData, in pixels.
    from_um
        `(3, 3)` affine matrix from microns to full-resolution pixels, for Xenium's.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no polygons, or names one twice.
    """
    if isinstance(nuclei, str | Path):
        path = Path(nuclei).expanduser()
        origin = f"'{path}'"
        if not path.is_file():
            raise FileNotFoundError(f"No file of nuclei at {origin}.")
        names, shapes = _of_geojson(path) if path.suffix.lower() in GEOJSON else _of_parquet(path, from_um)
    else:
        origin, names, shapes = "`nuclei`", nuclei.index.astype(str).tolist(), np.asarray(nuclei.geometry.values)
        if "radius" in nuclei:
            shapes = np.asarray(nuclei.geometry.buffer(nuclei["radius"]).values)
    kinds = {None if shape is None else shape.geom_type for shape in shapes}
    if not kinds or not kinds <= {"Polygon", "MultiPolygon"}:
        found = ", ".join(sorted(str(kind) for kind in kinds)) or "none"
        raise ValueError(f"Expected the nuclei in {origin} to be polygons, found {found}. Leave the others out.")
    if len(set(names)) < len(names):
        twice = pd.Index(names)[pd.Index(names).duplicated()][0]
        raise ValueError(f"Nucleus {twice!r} occurs more than once in {origin}: give each a name of its own.")
    return names, _valid(shapes)


def _valid(shapes: Sequence[Any] | NDArray[np.object_]) -> NDArray[np.object_]:
    """Return polygons of which none crosses itself, as hand-drawn ones may: what they enclose stays."""
    from shapely import is_valid, make_valid

    polygons = np.asarray(shapes, dtype=object)
    crossing = ~is_valid(polygons)
    if crossing.any():
        polygons = polygons.copy()
        polygons[crossing] = make_valid(polygons[crossing], method="structure")
    return polygons


def _of_geojson(path: Path) -> tuple[list[str], NDArray[np.object_]]:
    from shapely.geometry import shape

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = content["features"] if isinstance(content, dict) else content
        # QuPath keeps the nucleus of a cell beside its rim.
        shapes = [shape(feature.get("nucleusGeometry") or feature["geometry"]) for feature in features]
        names = [str(feature.get("id", number)) for number, feature in enumerate(features)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"'{path}' is no GeoJSON with features: {error!r}. Export it from QuPath again.") from error
    return names, np.array(shapes, dtype=object)


def _of_parquet(path: Path, from_um: NDArray[np.float64]) -> tuple[list[str], NDArray[np.object_]]:
    from pyarrow.parquet import read_schema

    columns = read_schema(path).names
    if "geometry" in columns:
        import geopandas

        table = geopandas.read_parquet(path)
        return table.index.astype(str).tolist(), np.asarray(table.geometry.values)
    if not {CELL_ID, *VERTICES} <= set(columns):
        raise ValueError(f"Expected the columns {[CELL_ID, *VERTICES]} of Xenium in '{path}', found {columns}.")
    from shapely import linearrings, polygons

    vertices = pd.read_parquet(path, columns=[CELL_ID, *VERTICES])
    numbers, names = pd.factorize(vertices[CELL_ID])
    xy = vertices[VERTICES].to_numpy(dtype=np.float64) @ from_um[:2, :2].T + from_um[:2, 2]
    order = np.argsort(numbers, kind="stable")
    rings = linearrings(xy[order], indices=numbers[order])
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names], polygons(rings)
