"""Single cells: scattered observations, patches in microns around each, neighbors within a radius."""

from __future__ import annotations

import numpy as np
import pytest

import hist2scrna as h2s

RADIUS_UM = 25.0


@pytest.fixture(scope="module")
def cells():
    (section,) = h2s.datasets.simulate("small", n_spots=150, n_genes=20, level="cell", seed=2)
    return section


@pytest.fixture(scope="module")
def model(cells):
    return h2s.tl.fit(
        cells,
        model="hist2scrna",
        preset="tiny",
        patch_px=16,
        patch_um=20.0,
        neighbors=h2s.Neighbors("delaunay", radius_um=RADIUS_UM),
        labels_key="cell_type",
        library_key="library_id",
        training={"max_epochs": 2},
        progress=False,
    )


def test_patch_and_radius_are_remembered_and_used_in_prediction(cells, model, tmp_path) -> None:
    again = h2s.TrainedModel.load(model.save(tmp_path / "model"))
    assert (again.geometry.um, again.geometry.px) == (20.0, 16)
    spots = again.read(cells)
    assert spots.graph.origin == ("delaunay",)
    edges = spots.graph.adjacency.tocoo()
    factors = cells.uns["spatial"]["section_0"]["scalefactors"]
    mpp = factors.get("mpp", 1.0)
    length = np.linalg.norm(spots.xy[edges.row] - spots.xy[edges.col], axis=1) * mpp
    assert 0 < len(length) and length.max() <= RADIUS_UM * (1 + 1e-9)
    predicted = again.predict(cells, copy=True, progress=False)
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()
    assert predicted.obs["hist2scrna_cell_type"].notna().all()


def test_cells_without_neighbors_are_predicted_from_their_own_patch(cells, model) -> None:
    far = cells[:6].copy()
    far.obsm["spatial"] = np.asarray(cells.obsm["spatial"])[[0, 30, 60, 90, 120, 149]]
    spots = model.read(far)
    assert spots.graph.adjacency.sum() <= 6
    assert np.isfinite(model.predict(far, copy=True, progress=False).layers["hist2scrna_mean"]).all()


def test_what_a_cell_sees_ends_at_its_radius(cells, model) -> None:
    # Cells beyond two radii of the first: whether they are there makes no difference to it.
    xy = np.asarray(cells.obsm["spatial"], dtype=float)
    mpp = cells.uns["spatial"]["section_0"]["scalefactors"].get("mpp", 1.0)
    near = np.linalg.norm(xy - xy[0], axis=1) * mpp < 4 * RADIUS_UM
    adjacency = model.read(cells).graph.adjacency.toarray()
    reach = (np.linalg.matrix_power(np.eye(len(xy)) + adjacency, 2) > 0)[0]
    assert (np.linalg.norm(xy[reach] - xy[0], axis=1) * mpp <= 2 * RADIUS_UM * (1 + 1e-9)).all()
    assert near[reach].all()
