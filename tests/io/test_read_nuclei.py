"""Nuclei of others become observations that a model can predict."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
from shapely import Polygon

from hist2scrna.io import read_nuclei

IMAGE = np.full((60, 100, 3), 200, dtype=np.uint8)
SQUARES = [Polygon([(10, 10), (22, 10), (22, 16), (10, 16)]), Polygon([(50, 30), (58, 30), (58, 38), (50, 38)])]


def labels() -> np.ndarray:
    image = np.zeros((60, 100), dtype=np.int32)
    image[10:16, 10:22], image[30:38, 50:58] = 5, 9
    return image


@pytest.mark.parametrize("kind", ["labels", "half", "polygons", "spatialdata"])
def test_nuclei_of_all_kinds_are_read_alike(kind) -> None:
    given: object = labels()
    if kind == "half":
        given = labels()[::2, ::2]
    elif kind == "polygons":
        given = geopandas.GeoDataFrame(geometry=SQUARES, index=[5, 9])
    elif kind == "spatialdata":
        from spatialdata.models import Labels2DModel

        given = Labels2DModel.parse(labels(), dims=("y", "x"), scale_factors=[2])
    nuclei = read_nuclei(given, IMAGE, mpp=0.5, library_id="s")
    assert nuclei.shape == (2, 0) and nuclei.obs["nucleus"].astype(str).tolist() == ["5", "9"]
    np.testing.assert_allclose(nuclei.obsm["spatial"], [[16, 13], [54, 34]])
    np.testing.assert_allclose(nuclei.obs["area_um2"], [18, 16])
    # Of a rectangle, the ellipse with its moments: the sides times 2 / sqrt(3).
    np.testing.assert_allclose(nuclei.obs["major_axis_um"], np.array([6, 4]) * 2 / np.sqrt(3))
    np.testing.assert_allclose(nuclei.obs["minor_axis_um"], np.array([3, 4]) * 2 / np.sqrt(3))
    assert nuclei.obs["orientation_deg"].iloc[0] == pytest.approx(0)
    assert nuclei.uns["spatial"]["s"]["scalefactors"]["mpp"] == 0.5


def test_what_cannot_be_nuclei_of_the_image_is_refused(tmp_path) -> None:
    far = geopandas.GeoDataFrame(geometry=[SQUARES[0], Polygon([(200, 10), (210, 10), (210, 20), (200, 20)])])
    with pytest.raises(ValueError, match="1 of 2 nuclei lie off the image, which is 100 x 60 px"):
        read_nuclei(far, IMAGE, mpp=0.5)
    with pytest.raises(ValueError, match="There is no nucleus in `nuclei`"):
        read_nuclei(np.zeros((60, 100), dtype=int), IMAGE, mpp=0.5)
    with pytest.raises(ValueError, match="label image is 50 x 60 px"):
        read_nuclei(labels()[:, :50], IMAGE, mpp=0.5)
    with pytest.raises(ValueError, match="Nothing tells the microns per pixel"):
        read_nuclei(labels(), IMAGE)
