"""Array columns and rows, and the graph on them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from hist2scrna.spots.array import read_array
from hist2scrna.spots.graph import array_graph
from hist2scrna.spots.lattice import array_from_pixels


def square(n=9, holes=0, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1).reshape(-1, 2)
    return grid[np.sort(rng.permutation(len(grid))[: len(grid) - holes])]


def hexagonal(rows=8, columns=9):
    """Visium's array: the columns of odd rows are odd."""
    row, place = np.divmod(np.arange(rows * columns), columns)
    return np.stack([2 * place + row % 2, row], axis=1)


def turned(points, degrees):
    angle = np.deg2rad(degrees)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@settings(deadline=None, max_examples=30)
@given(degrees=st.floats(-20, 20), pitch=st.floats(3, 900), holes=st.integers(0, 12), seed=st.integers(0, 99))
def test_a_square_lattice_is_found_from_its_pixels(degrees, pitch, holes, seed) -> None:
    rng = np.random.default_rng(seed)
    grid = square(holes=holes, seed=seed)
    xy = turned(grid * pitch, degrees) + rng.normal(0, 0.03 * pitch, grid.shape) + 5000
    np.testing.assert_array_equal(array_from_pixels(xy), grid - grid.min(axis=0))


@settings(deadline=None, max_examples=30)
@given(degrees=st.floats(-15, 15), pitch=st.floats(3, 900), seed=st.integers(0, 99))
def test_a_hexagonal_lattice_is_found_from_its_pixels(degrees, pitch, seed) -> None:
    rng = np.random.default_rng(seed)
    grid = hexagonal()
    upright = grid * [pitch / 2, pitch * np.sqrt(3) / 2]
    xy = turned(upright, degrees) + rng.normal(0, 0.02 * pitch, grid.shape)
    found = array_from_pixels(xy)
    offset = found - grid
    assert (offset == offset[0]).all()
    assert (found.sum(axis=1) % 2 == found[0].sum() % 2).all()


def test_an_error_of_the_pitch_does_not_add_up() -> None:
    # A section 60 columns wide whose pitch grows by a tenth from left to right.
    grid = np.stack(np.meshgrid(np.arange(60), np.arange(5), indexing="ij"), axis=-1).reshape(-1, 2)
    xy = np.column_stack([grid[:, 0] * 100 + 5 * grid[:, 0] ** 2 / 60, grid[:, 1] * 100.0])
    np.testing.assert_array_equal(array_from_pixels(xy), grid)


def test_scattered_spots_stand_in_units_of_their_distance() -> None:
    xy = np.random.default_rng(0).uniform(0, 1000, (200, 2))
    found = array_from_pixels(xy)
    nearest = np.sort(cdist(found, found), axis=1)[:, 1]
    assert np.median(nearest) == pytest.approx(1)
    np.testing.assert_allclose(found.min(axis=0), 0)


@pytest.mark.parametrize("section", ["C2", "C3", "C4", "C5", "C6"])
def test_real_sections_have_the_array_that_their_names_say(section, shared_data) -> None:
    from hist2scrna.datasets import her2st

    adata = her2st(shared_data / "her2st", sections=[section])
    named = np.array([name.split("_")[1].split("x") for name in adata.obs_names], dtype=float)
    found = array_from_pixels(np.asarray(adata.obsm["spatial"], dtype=float))
    np.testing.assert_array_equal(found, named - named.min(axis=0))
    given = read_array(adata, adata.obsm["spatial"], np.zeros(adata.n_obs, dtype=int), [section])
    np.testing.assert_array_equal(given, named)


def test_given_array_is_taken_and_a_broken_one_is_not() -> None:
    grid = square(4)
    adata = ad.AnnData(obs={"array_col": grid[:, 0] + 70, "array_row": grid[:, 1] - 3.0}, obsm={"spatial": grid * 10.0})
    section = np.zeros(len(grid), dtype=int)
    np.testing.assert_array_equal(read_array(adata, adata.obsm["spatial"], section, ["a"]), grid + [70, -3])
    adata.obs.loc["3", "array_row"] = np.nan
    np.testing.assert_array_equal(read_array(adata, adata.obsm["spatial"], section, ["a"]), grid)


def test_neighbors_are_the_four_nearest_within_two() -> None:
    rng = np.random.default_rng(1)
    grid = square(9, holes=25).astype(np.float32)
    section = (grid[:, 0] > 4).astype(int)
    graph = array_graph(grid, grid * 100.0, section, 2)
    adjacency = graph.adjacency.toarray()
    distance = np.where(section[:, None] == section[None], cdist(grid, grid), np.inf)
    np.fill_diagonal(distance, np.inf)
    for spot in range(len(grid)):
        chosen = distance[spot, adjacency[spot] > 0]
        expected = np.sort(distance[spot])[:4]
        np.testing.assert_allclose(np.sort(chosen), expected[expected <= 2])
    assert (adjacency != adjacency.T).any()
    np.testing.assert_allclose(graph.pitch, 100)
    shuffled = rng.permutation(len(grid))
    again = array_graph(grid[shuffled], grid[shuffled] * 100.0, section[shuffled], 2).adjacency
    np.testing.assert_array_equal(again.sum(axis=1), graph.adjacency.sum(axis=1)[shuffled])


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_spots_have_the_neighbors_there_are(n) -> None:
    grid = np.arange(2 * n, dtype=np.float32).reshape(n, 2) / 4
    graph = array_graph(grid, grid.astype(float), np.zeros(n, dtype=int), 1)
    np.testing.assert_array_equal(graph.adjacency.sum(axis=1), np.full(n, max(0, n - 1)))


def test_spots_on_one_position_are_neighbors_of_each_other_and_not_of_themselves() -> None:
    grid = np.array([[0, 0]] * 7 + [[1, 0]], dtype=np.float32)
    adjacency = array_graph(grid, grid.astype(float), np.zeros(8, dtype=int), 1).adjacency
    assert (adjacency.diagonal() == 0).all()
    assert (adjacency.sum(axis=1) == 4).all()
