"""Nuclei measured all at once are as scikit-image measures each."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, label
from scipy.spatial import ConvexHull, Delaunay
from skimage.measure import regionprops_table

from hist2scrna.images.nucleus_measures import measure_nuclei

NAMES = ("label", "area", "perimeter", "eccentricity", "intensity_mean", "bbox", "centroid", "orientation")
AXES = ("axis_major_length", "axis_minor_length")


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Blobs of all shapes, some cut by the rim, some that touch another, a line and a single pixel."""
    noise = np.random.default_rng(0).normal(size=(120, 150))
    labels = label(gaussian_filter(noise, 2.5) > 0.04)[0].astype(np.int32)
    labels[:, 75:][labels[:, 75:] > 0] += 100
    labels[60:64] = 0
    labels[62, 10:20], labels[62, 40] = 900, 901
    return labels, np.random.default_rng(1).random((120, 150)).astype(np.float32)


def test_measures_are_those_of_scikit_image() -> None:
    labels, density = blobs()
    truth = pd.DataFrame(regionprops_table(labels, density, properties=(*NAMES, *AXES))).set_index("label")
    found = measure_nuclei(labels, density)
    np.testing.assert_array_equal(found.index, truth.index)
    same = {"area": "area", "perimeter": "perimeter", "eccentricity": "eccentricity", "hematoxylin": "intensity_mean"}
    same |= {"major": AXES[0], "minor": AXES[1], "left": "bbox-1", "top": "bbox-0"}
    for ours, theirs in same.items():
        np.testing.assert_allclose(found[ours], truth[theirs], rtol=1e-5, atol=1e-6, err_msg=ours)
    np.testing.assert_array_equal(found[["right", "bottom"]], truth[["bbox-3", "bbox-2"]] - 1)
    np.testing.assert_allclose(found[["y", "x"]], truth[["centroid-0", "centroid-1"]] + 0.5)
    long = found["eccentricity"] > 0.1
    turned = np.mod(90 - np.degrees(truth["orientation"]), 180)
    np.testing.assert_allclose(np.sin(np.radians(found["orientation"] - turned))[long], 0, atol=1e-6)


def test_solidity_is_the_share_of_the_pixels_in_the_hull() -> None:
    labels, density = blobs()
    found = measure_nuclei(labels, density)
    grid = np.argwhere(np.ones_like(labels))
    for name in found.index[found["area"] > 30]:
        pixels = np.argwhere(labels == name)
        corners = pixels[ConvexHull(pixels).vertices]
        center = corners.mean(axis=0)
        within = (Delaunay(center + (corners - center) * (1 + 1e-9)).find_simplex(grid) >= 0).sum()
        assert found.loc[name, "solidity"] == len(pixels) / within
    np.testing.assert_array_equal(found.loc[[900, 901], "solidity"], 1)


def test_an_image_without_nuclei_has_no_rows() -> None:
    found = measure_nuclei(np.zeros((4, 4), dtype=np.int32), np.zeros((4, 4), dtype=np.float32))
    assert len(found) == 0 and {"x", "y", "solidity", "left"} <= set(found)
