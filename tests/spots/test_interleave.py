"""Fine lattices are taken apart into lattices at the pitch of the training, and predicted as on the coarse one."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
from builders import fast
from scipy.spatial import cKDTree

from hist2scrna import keys, pp
from hist2scrna.spots.interleave import interleaved
from hist2scrna.tl import fit, predict

TRAINED_UM = 50.0
# Of the sections that `make_section` gives: 50 pixels of 2 microns.
SECTION_UM = 100.0


def lattice(kind: str, pitch: float, n: int = 24, turn: float = 0.0) -> np.ndarray:
    """Points of a lattice in no order, turned by an angle."""
    row, column = np.divmod(np.arange(n * n), n)
    xy = np.column_stack([column, row]) * pitch
    if kind == "hexagonal":
        xy = np.column_stack([column + row % 2 / 2, row * np.sqrt(3) / 2]) * pitch
    xy = xy @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.random.default_rng(0).permutation(xy)


@pytest.mark.parametrize("turn", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["hexagonal", "square"])
@pytest.mark.parametrize(("pitch", "k"), [(25.0, 2), (33.0, 2), (16.7, 3), (12.5, 4)])
def test_every_part_is_a_lattice_of_the_kind_at_k_times_the_pitch(kind, turn, pitch, k, caplog) -> None:
    xy = lattice(kind, pitch, turn=turn)
    with caplog.at_level(logging.INFO, logger="hist2scrna"):
        parts = interleaved(xy, np.zeros(len(xy), dtype=np.int64), ["s"], [pitch], TRAINED_UM)
    assert parts is not None and np.bincount(parts.part).tolist() == [len(xy) // k**2] * k**2
    for number in range(k**2):
        place = xy[parts.part == number]
        distance = cKDTree(place).query(place, k=5)[0]
        np.testing.assert_allclose(distance[:, 1], k * pitch, rtol=1e-6)
        # The nearest points of a square lattice are all along its axes, of a hexagonal one six are as near.
        assert (np.abs(distance[:, 1:3] - k * pitch) < 1e-6).mean() > 0.9
    (line,) = (record.getMessage() for record in caplog.records)
    assert f"{k**2} interleaved lattices" in line and line.startswith("section s:")


def test_what_is_not_finer_or_no_lattice_stays_whole() -> None:
    section = np.zeros(576, dtype=np.int64)
    for pitch in (50.0, 40.0, 34.0, 100.0, None):
        assert interleaved(lattice("square", 10.0), section, ["s"], [pitch], TRAINED_UM) is None
    scattered = np.random.default_rng(0).uniform(0, 1000, (576, 2))
    assert interleaved(scattered, section, ["s"], [20.0], TRAINED_UM) is None


def test_only_sections_that_are_finer_are_taken_apart() -> None:
    xy = np.concatenate([lattice("square", 50.0), lattice("square", 25.0)])
    parts = interleaved(xy, np.repeat([0, 1], 576), ["coarse", "fine"], [50.0, 25.0], TRAINED_UM)
    assert parts is not None
    assert parts.names == ("coarse", "fine (1 of 4)", "fine (2 of 4)", "fine (3 of 4)", "fine (4 of 4)")
    assert parts.section.tolist() == [0, 1, 1, 1, 1] and (parts.part[:576] == 0).all()
    assert np.unique(parts.step[:576]).tolist() == [1] and np.unique(parts.step[576:]).tolist() == [2]


# -- prediction -------------------------------------------------------------------------------------------------------
def grids(kind: str, image: np.ndarray) -> tuple[ad.AnnData, ad.AnnData, np.ndarray]:
    """A fine grid over an image, the coarse one of every second of its places, and the numbers of these."""
    fine = pp.tissue_grid(image, spacing_um=SECTION_UM / 2, lattice=kind, mpp=2.0, min_tissue=0)
    column, row = (fine.obs[key].to_numpy() for key in keys.ARRAY_COORDINATES)
    along = (column - row) // 2 if kind == "hexagonal" else column
    every = np.flatnonzero((along % 2 == 0) & (row % 2 == 0))
    coarse = fine[every].copy()
    for key in keys.ARRAY_COORDINATES:
        coarse.obs[key] //= 2
    coarse.uns[keys.SPATIAL]["section"][keys.SCALEFACTORS][keys.SPOT_DIAMETER] *= 2
    return fine, coarse, every


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    coarse = np.random.default_rng(3).integers(60, 220, (24, 30, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["hexagonal", "square"])
def test_the_transformer_predicts_the_same_on_a_fine_and_on_a_coarse_grid(make_section, image, kind, caplog) -> None:
    model = fit(make_section(kind=kind, n_spots=40), **fast(lr=1e-2, max_epochs=3))
    assert model.training["pitch_um"] == pytest.approx(SECTION_UM)
    compare(model, kind, image, caplog)


def test_attention_on_features_predicts_the_same_on_a_fine_and_on_a_coarse_grid(make_section, image, caplog) -> None:
    asked = fast(model="hist2scrna-lightweight", preset=None, encoder="morphology", lr=1e-2, max_epochs=3)
    compare(fit(make_section(n_spots=40), **asked), "hexagonal", image, caplog)


def test_a_model_of_whole_sections_predicts_the_same_on_a_fine_and_on_a_coarse_grid(
    make_section, image, caplog
) -> None:
    asked = fast(model="histogene", preset=None, dim=64, n_layers=2, lr=1e-2, max_epochs=2)
    compare(fit(make_section(kind="square", n_spots=40), **asked), "square", image, caplog)


def compare(model, kind, image, caplog) -> None:
    fine, coarse, every = grids(kind, image)
    with caplog.at_level(logging.INFO, logger="hist2scrna"):
        on_fine = predict(fine, model, progress=False, accelerator="cpu")
    assert "4 interleaved lattices of 100 um" in caplog.text
    caplog.clear()
    on_coarse = predict(coarse, model, progress=False, accelerator="cpu")
    assert "interleaved" not in caplog.text
    expected = on_coarse.layers["hist2scrna_mean"]
    np.testing.assert_allclose(on_fine.layers["hist2scrna_mean"][every], expected, rtol=2e-5, atol=1e-6)
    if model.module.on_array:
        return
    # The neighbors matter, so that on the graph of the fine grid it would be another prediction.
    fine.obsp[keys.CONNECTIVITIES] = fine_graph(fine)
    given = predict(fine, model, progress=False, accelerator="cpu").layers["hist2scrna_mean"][every]
    assert np.abs(given / expected - 1).max() > 1e-3


def fine_graph(fine: ad.AnnData):
    tree = cKDTree(fine.obsm[keys.SPATIAL])
    return (tree.sparse_distance_matrix(tree, 0.6 * SECTION_UM / 2).tocsr() > 0).astype(np.float32)


def test_models_of_the_patch_alone_are_left_as_they_are(make_section, image, caplog) -> None:
    model = fit(make_section(n_spots=40), model="ridge", encoder="morphology", progress=False)
    with caplog.at_level(logging.INFO, logger="hist2scrna"):
        predict(grids("square", image)[0], model, progress=False, accelerator="cpu")
    assert "predicting" in caplog.text and "interleaved" not in caplog.text
