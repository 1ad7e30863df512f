"""Neighbor graphs: lattices are recognized, edges are those of an independent search, sections stay apart."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import Delaunay, cKDTree

from hist2scrna.spots.graph import Neighbors, as_neighbors, build_graph
from hist2scrna.spots.lattice import find_lattice

ROTATION = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])


def grid(kind, width=9, height=7):
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    column, row = column.ravel().astype(float), row.ravel().astype(float)
    if kind == "hexagonal":
        return np.stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2], axis=1) * 100
    return np.stack([column, row], axis=1) * 100


def graph_of(xy, section=None, obsp=None):
    section = np.zeros(len(xy), dtype=np.int64) if section is None else section
    adata = anndata.AnnData(obs={"spot": np.arange(len(xy))}, obsp=obsp or {})
    return build_graph(adata, xy, section, [f"s{i}" for i in range(section.max() + 1)])


@pytest.mark.parametrize("kind", ["hexagonal", "square"])
@pytest.mark.parametrize("jitter", [0.0, 2.0])
@pytest.mark.parametrize("turn", [np.eye(2), ROTATION])
def test_lattice_is_recognized_and_linked_as_by_radius(kind, jitter, turn):
    xy = grid(kind) @ turn + np.random.default_rng(0).normal(0, 1, (63, 2)) * jitter
    assert find_lattice(xy) == kind
    graph = graph_of(xy)
    pairs = cKDTree(xy).query_pairs(120, output_type="ndarray")
    expected = sparse.coo_array((np.ones(len(pairs)), pairs.T), shape=(63, 63)).toarray()
    np.testing.assert_array_equal(graph.adjacency.toarray(), expected + expected.T)
    assert graph.origin == (kind,)
    assert graph.pitch[0] == pytest.approx(100, rel=0.03)


def test_neighbors_are_given_as_one_as_a_dictionary_or_by_their_kind():
    asked = Neighbors("delaunay", radius_um=30.0)
    assert as_neighbors({"kind": "delaunay", "radius_um": 30.0}) == as_neighbors(asked) == asked
    assert as_neighbors("knn") == Neighbors("knn") and not as_neighbors(None).asked
    with pytest.raises(ValueError, match="Did you mean 'radius_um'"):
        as_neighbors({"radius": 30.0})


def test_scattered_cells_get_symmetric_nearest_neighbors():
    xy = np.random.default_rng(1).uniform(0, 1000, (150, 2))
    graph = graph_of(xy)
    assert graph.origin == ("irregular",)
    _, nearest = cKDTree(xy).query(xy, k=7)
    expected = np.zeros((150, 150))
    np.put_along_axis(expected, nearest[:, 1:], 1, axis=1)
    np.testing.assert_array_equal(graph.adjacency.toarray(), np.maximum(expected, expected.T))


def test_sections_stay_apart_even_where_coordinates_coincide():
    xy = np.concatenate([grid("hexagonal"), grid("hexagonal"), [[0.0, 0.0]]])
    section = np.array([0, 1] * 63 + [2])
    order = np.argsort(section, kind="stable")
    interleaved = np.empty_like(xy)
    interleaved[order] = xy
    graph = graph_of(interleaved, section)
    edges = sparse.coo_array(graph.adjacency)
    assert (section[edges.row] == section[edges.col]).all()
    alone = graph_of(grid("hexagonal")).adjacency.toarray()
    for code in (0, 1):
        own = section == code
        np.testing.assert_array_equal(graph.adjacency[own][:, own].toarray(), alone)
    assert graph.adjacency[section == 2].nnz == 0
    assert graph.pitch[2] == 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_tiny_sections(n):
    graph = graph_of(np.random.default_rng(0).uniform(0, 10, (n, 2)))
    np.testing.assert_array_equal(graph.adjacency.toarray(), 1 - np.eye(n))


def test_duplicate_points_keep_a_finite_pitch():
    graph = graph_of(np.repeat(np.random.default_rng(0).uniform(0, 10, (10, 2)), 2, axis=0))
    assert np.isfinite(graph.pitch).all() and (graph.pitch > 0).all()
    assert (graph.adjacency.diagonal() == 0).all()


def test_given_graph_is_used_made_symmetric_and_stripped_of_self_loops():
    given = sparse.csr_matrix(([1.0, 0.3, 2.0], ([0, 1, 2], [0, 2, 3])), shape=(4, 4))
    graph = graph_of(np.arange(8.0).reshape(4, 2), obsp={"spatial_connectivities": given})
    expected = np.zeros((4, 4))
    expected[[1, 2, 2, 3], [2, 1, 3, 2]] = 1
    np.testing.assert_array_equal(graph.adjacency.toarray(), expected)
    assert graph.origin == ("given",)


def test_given_graph_across_sections_is_refused():
    given = sparse.csr_matrix(([1.0], ([0], [1])), shape=(2, 2))
    with pytest.raises(ValueError, match=r"spatial_connectivities.*1 edges between sections.*library_key"):
        graph_of(np.zeros((2, 2)), np.array([0, 1]), {"spatial_connectivities": given})


# -- neighbors that are asked for ------------------------------------------------------------------------------------
def asked_graph(xy, *asked, mpp=1.0, obsp=None):
    adata = anndata.AnnData(obs={"spot": np.arange(len(xy))}, obsp=obsp or {})
    return build_graph(adata, xy, np.zeros(len(xy), dtype=np.int64), ["a"], Neighbors(*asked), [mpp])


def test_delaunay_is_that_of_scipy():
    xy = np.random.default_rng(2).uniform(0, 1000, (120, 2))
    expected = np.zeros((120, 120))
    for triangle in Delaunay(xy).simplices:
        expected[np.ix_(triangle, triangle)] = 1
    np.fill_diagonal(expected, 0)
    graph = asked_graph(xy, "delaunay")
    np.testing.assert_array_equal(graph.adjacency.toarray(), expected)
    assert graph.origin == ("delaunay",)


@pytest.mark.parametrize("kind", ["knn", "delaunay", None])
@pytest.mark.parametrize("mpp", [0.25, 2.0])
def test_radius_is_in_microns(kind, mpp):
    xy = np.random.default_rng(3).uniform(0, 1000, (120, 2)) / mpp
    far = asked_graph(xy, kind, None, None).adjacency.toarray()
    near = asked_graph(xy, kind, None, 60.0, mpp=mpp).adjacency.toarray()
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2) * mpp
    np.testing.assert_array_equal(near, far * (distance <= 60))
    assert near.sum() < far.sum()


def test_asked_number_of_nearest_on_a_lattice_and_against_a_given_graph():
    xy = grid("hexagonal")
    chain = sparse.diags_array([np.ones(62), np.ones(62)], offsets=[-1, 1])
    given = {"spatial_connectivities": sparse.csr_matrix(chain)}
    graph = asked_graph(xy, "knn", 2, None, obsp=given)
    degree = graph.adjacency.sum(axis=1)
    assert (degree >= 2).all() and degree.mean() < 4
    assert graph.origin == ("knn",)
    assert asked_graph(xy, obsp=given).origin == ("given",)


@pytest.mark.parametrize("xy", [np.zeros((5, 2)), np.column_stack([np.arange(6.0), np.arange(6.0)]), np.eye(2)])
def test_delaunay_where_there_is_no_triangle(xy):
    graph = asked_graph(xy, "delaunay")
    assert (graph.adjacency.diagonal() == 0).all()
    assert graph.adjacency.sum() > 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("ring",), "'knn' or 'delaunay'"),
        (("delaunay", 4), "goes with neighbors='knn'"),
        (("knn", 0), "at least 1"),
        ((None, None, -1.0), "positive"),
        ((None, None, float("nan")), "positive"),
    ],
)
def test_wrong_neighbors_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        Neighbors(*asked)


def test_radius_without_a_scale_is_refused():
    adata = anndata.AnnData(obs={"spot": np.arange(20)})
    with pytest.raises(ValueError, match="mpp="):
        build_graph(adata, grid("square")[:20], np.zeros(20, dtype=int), ["a"], Neighbors(None, None, 10.0))
