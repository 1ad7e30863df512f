"""Nuclei as polygons: drawn as Pillow and scikit-image draw them, measured as scikit-image measures them."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pandas as pd
import pytest
from shapely import Point, Polygon, affinity
from skimage.draw import polygon2mask
from skimage.measure import regionprops_table

from hist2scrna.images.nucleus_polygons import PolygonMask, are_polygons, read_polygons
from hist2scrna.images.nucleus_shapes import label_shapes, polygon_shapes

STAR = Polygon([(10.2, 4.1), (30.7, 8.3), (25.1, 30.9), (12.4, 22.2)])
RING = Polygon([(40, 10), (60, 10), (60, 30), (40, 30)], holes=[[(46, 16), (54, 16), (54, 24), (46, 24)]])
NUCLEI = np.array([STAR, RING], dtype=object)


def test_polygons_are_drawn_where_pixel_centers_lie_in_them() -> None:
    whole = PolygonMask(NUCLEI, np.array([4, 7]), 1.0).read(0, 0, 70, 40)
    corners = np.array(STAR.exterior.coords)[:, ::-1] - 0.5
    np.testing.assert_array_equal(whole == 5, polygon2mask((40, 70), corners))
    ring = np.zeros((40, 70), dtype=bool)
    ring[10:30, 40:60] = True
    ring[16:24, 46:54] = False
    np.testing.assert_array_equal(whole == 8, ring)
    # Windows agree with the whole, also over the border, and at half the resolution.
    mask = PolygonMask(NUCLEI, np.array([4, 7]), 1.0)
    np.testing.assert_array_equal(mask.read(20, 5, 30, 20), whole[5:25, 20:50])
    np.testing.assert_array_equal(mask.read(-5, -5, 30, 20)[5:, 5:], whole[:15, :25])
    half = PolygonMask(NUCLEI, np.array([4, 7]), 2.0).read(0, 0, 35, 20)
    assert (half == 8).sum() == ring.sum() / 4


def test_the_first_of_two_that_overlap_keeps_the_pixel() -> None:
    squares = np.array([Polygon([(0, 0), (6, 0), (6, 6), (0, 6)]), Polygon([(4, 0), (9, 0), (9, 6), (4, 6)])])
    row = PolygonMask(squares, np.array([0, 1]), 1.0).read(0, 3, 10, 1)[0]
    np.testing.assert_array_equal(row, [1] * 6 + [2] * 3 + [0])


def test_shapes_are_those_of_scikit_image() -> None:
    labels = PolygonMask(NUCLEI, np.array([2, 6]), 0.25).read(0, 0, 280, 160)
    names = ("label", "area", "centroid", "axis_major_length", "axis_minor_length", "orientation")
    truth = pd.DataFrame(regionprops_table(labels, properties=names)).set_index("label")
    found = label_shapes(labels)
    assert found.index.tolist() == [3, 7]
    pairs = {"area": "area", "major": "axis_major_length", "minor": "axis_minor_length"}
    for ours, theirs in pairs.items():
        # There a pixel is a point, here a square.
        np.testing.assert_allclose(found[ours], truth[theirs], rtol=1e-3)
    np.testing.assert_allclose(found[["y", "x"]], truth[["centroid-0", "centroid-1"]] + 0.5)
    turned = np.mod(90 - np.degrees(truth["orientation"]), 180)
    assert found["orientation"].iloc[0] == pytest.approx(turned.iloc[0])
    # The polygons themselves, exactly; the label image is of quarter pixels.
    exact = polygon_shapes(["a", "b"], NUCLEI)
    np.testing.assert_allclose(exact["area"], [STAR.area, RING.area])
    np.testing.assert_allclose(exact[["x", "y"]], [STAR.centroid.coords[0], RING.centroid.coords[0]])
    np.testing.assert_allclose(exact[["major", "minor"]], found[["major", "minor"]] / 4, rtol=0.01)
    assert exact["orientation"].iloc[0] == pytest.approx(found["orientation"].iloc[0], abs=1)


def test_an_ellipse_is_its_own_ellipse() -> None:
    disc = affinity.rotate(affinity.scale(Point(9000.5, 20.0).buffer(1, quad_segs=200), 12, 5), 30)
    shape = polygon_shapes(["a"], np.array([disc])).iloc[0]
    assert shape[["major", "minor", "orientation"]].tolist() == pytest.approx([24, 10, 30], rel=1e-3)


def test_labels_that_bands_cut_are_one(monkeypatch) -> None:
    labels = np.zeros((40, 20), dtype=np.uint16)
    labels[5:33, 3:9] = 9
    whole = label_shapes(labels)
    monkeypatch.setattr("hist2scrna.images.nucleus_shapes.ROWS", 7)
    pd.testing.assert_frame_equal(label_shapes(labels), whole)


def feature(shape: Polygon, **more: object) -> dict[str, object]:
    return {"type": "Feature", "geometry": shape.__geo_interface__, "properties": {}, **more}


def test_files_of_qupath_xenium_and_geopandas(tmp_path) -> None:
    rim = STAR.buffer(3)
    cells = [feature(rim, id="cell", nucleusGeometry=STAR.__geo_interface__), feature(RING, id="nucleus")]
    (tmp_path / "qupath.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": cells}))
    (tmp_path / "list.json").write_text(json.dumps(cells))
    table = geopandas.GeoDataFrame(geometry=list(NUCLEI), index=["cell", "nucleus"])
    table.to_parquet(tmp_path / "table.parquet")
    for given in (tmp_path / "qupath.geojson", str(tmp_path / "list.json"), table, tmp_path / "table.parquet"):
        assert are_polygons(given)
        names, polygons = read_polygons(given, np.eye(3))
        assert names == ["cell", "nucleus"]
        assert all(a.equals(b) for a, b in zip(polygons, NUCLEI, strict=True))
    corners = {name: np.array(shape.exterior.coords) for name, shape in zip(names, NUCLEI, strict=True)}
    rows = [(name, *corner) for name, points in corners.items() for corner in points]
    pd.DataFrame(rows, columns=["cell_id", "vertex_x", "vertex_y"]).to_parquet(tmp_path / "xenium.parquet")
    turned = np.array([[0, -4.0, 100.0], [4.0, 0, 2.0], [0, 0, 1]])
    names, polygons = read_polygons(tmp_path / "xenium.parquet", turned)
    assert names == ["cell", "nucleus"]
    expected = affinity.affine_transform(STAR, [0, -4, 4, 0, 100, 2])
    assert polygons[0].symmetric_difference(expected).area < 1e-9
    circles = geopandas.GeoDataFrame({"radius": [5.0]}, geometry=[Point(20, 20)])
    assert read_polygons(circles, np.eye(3))[1][0].area == pytest.approx(np.pi * 25, rel=0.01)
    assert not are_polygons(np.zeros((3, 3), dtype=int)) and not are_polygons("nuclei.tif")


def test_files_without_nuclei_are_refused(tmp_path) -> None:
    def written(content: object) -> object:
        (tmp_path / "n.geojson").write_text(json.dumps(content))
        return tmp_path / "n.geojson"

    with pytest.raises(FileNotFoundError, match="No file of nuclei"):
        read_polygons(tmp_path / "nowhere.geojson", np.eye(3))
    with pytest.raises(ValueError, match="no GeoJSON with features"):
        read_polygons(written({"type": "Point"}), np.eye(3))
    with pytest.raises(ValueError, match="to be polygons, found none"):
        read_polygons(written([]), np.eye(3))
    with pytest.raises(ValueError, match="to be polygons, found Point"):
        read_polygons(written([feature(Point(1, 1))]), np.eye(3))
    with pytest.raises(ValueError, match="'a' occurs more than once"):
        read_polygons(written([feature(STAR, id="a"), feature(RING, id="a")]), np.eye(3))
    pd.DataFrame({"cell_id": ["a"]}).to_parquet(tmp_path / "cells.parquet")
    with pytest.raises(ValueError, match="Expected the columns .* of Xenium"):
        read_polygons(tmp_path / "cells.parquet", np.eye(3))


def test_a_polygon_that_crosses_itself_is_mended() -> None:
    bow = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    table = geopandas.GeoDataFrame(geometry=[bow])
    polygon = read_polygons(table, np.eye(3))[1][0]
    assert polygon.is_valid and polygon.area == pytest.approx(50)
