"""TransformerST on sections as they come: Visium, other arrays, a lattice without array positions; what learns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import hist2scrna as h2s
from hist2scrna.models import create_model
from hist2scrna.models.array_position import ArrayPosition

QUIET = {"model": "transformerst", "progress": False, "training": {"max_epochs": 1, "accelerator": "cpu"}}
SMALL = {"patch_size": 6, "dim": 16, "n_layers": 1}


def visium(rows: np.ndarray, columns: np.ndarray, *, with_array: bool = True, pitch: float = 8.0) -> AnnData:
    """Spots of a hexagonal array, with an image whose color follows the place."""
    rng = np.random.default_rng(0)
    xy = np.stack([columns * pitch / 2, rows * pitch * np.sqrt(3) / 2], axis=1) + 20
    width, height = (int(side) + 20 for side in xy.max(axis=0))
    image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    obs = pd.DataFrame(index=[f"spot{i}" for i in range(len(xy))])
    if with_array:
        obs = obs.assign(array_row=rows, array_col=columns)
    entry = {
        "images": {"hires": image},
        "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 6.0, "mpp": 10.0},
    }
    return AnnData(
        X=rng.poisson(3.0, (len(xy), 5)).astype(np.float32),
        obs=obs,
        obsm={"spatial": xy},
        uns={"spatial": {"s": entry}},
    )


def corners_and_some(n_rows: int, n_columns: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Some spots of an array, its four corners among them, columns in half steps."""
    rows, columns = np.divmod(np.arange(n_rows * n_columns), n_columns)
    there = (rows + columns) % 2 == 0
    rows, columns = rows[there], columns[there]
    rim = (np.isin(rows, [0, n_rows - 1])) & (np.isin(columns, [0, 1, n_columns - 2, n_columns - 1]))
    kept = rim | np.isin(
        np.arange(len(rows)), np.random.default_rng(1).choice(len(rows), min(n, len(rows)), replace=False)
    )
    return rows[kept], columns[kept]


@pytest.fixture
def positions(monkeypatch) -> list[torch.Tensor]:
    """The positions that the tables of the model were read at."""
    seen = []
    forward = ArrayPosition.forward

    def recorded(self, grid):
        seen.append(grid)
        return forward(self, grid)

    monkeypatch.setattr(ArrayPosition, "forward", recorded)
    return seen


def test_visium_fits_the_tables_row_by_row_and_column_by_column(positions) -> None:
    rows, columns = corners_and_some(78, 128)
    section = visium(rows, columns)
    model = h2s.tl.fit(section, **QUIET, **SMALL)
    predicted = h2s.tl.predict(section.copy(), model, progress=False)
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()
    np.testing.assert_array_equal(positions[-1].numpy(), np.stack([rows, columns], axis=1))
    grid = torch.tensor([[77.0, 127.0], [0.0, 0.0]])
    tables = model.module.position
    expected = tables.x.weight[[77, 0]] + tables.y.weight[[127, 0]]
    torch.testing.assert_close(tables(grid), expected)


@pytest.mark.parametrize(("n_rows", "n_columns"), [(4, 20), (200, 40), (30, 400)])
def test_sections_of_any_array_size(n_rows, n_columns) -> None:
    section = visium(*corners_and_some(n_rows, n_columns), pitch=6.0)
    model = h2s.tl.fit(section, **QUIET, **SMALL)
    predicted = h2s.tl.predict(section.copy(), model, progress=False)
    assert np.isfinite(predicted.layers["hist2scrna_mean"]).all()


def test_a_lattice_without_array_positions(positions) -> None:
    rows, columns = np.divmod(np.arange(20 * 30), 30)
    there = (rows + columns) % 2 == 0
    rows, columns = rows[there], columns[there]
    model = h2s.tl.fit(visium(rows, columns), **QUIET, **SMALL)
    h2s.tl.predict(visium(rows, columns), model, progress=False)
    with_array = positions[-1]
    h2s.tl.predict(visium(rows, columns, with_array=False), model, progress=False)
    torch.testing.assert_close(positions[-1], with_array)


def test_only_the_head_learns_unless_all_weights_are_asked_for() -> None:
    section = visium(*corners_and_some(12, 20, 40))
    for preset, learns in (("published", {"norm", "heads"}), ("full", None)):
        model = h2s.tl.fit(section, preset=preset, **QUIET, **SMALL)
        torch.manual_seed(0)
        untouched = create_model("transformerst", n_genes=section.n_vars, preset=preset, **SMALL).state_dict()
        changed = {name for name, value in model.module.state_dict().items() if not torch.equal(value, untouched[name])}
        assert any(name.startswith("heads") for name in changed)
        parts = {name.split(".")[0] for name in changed}
        assert parts == learns if learns else parts >= {"patch_embedding", "blocks", "norm", "heads"}
    with pytest.raises(ValueError, match="Unknown value of `trained` 'body'"):
        create_model("transformerst", n_genes=3, trained="body")


@torch.no_grad()
def test_rows_and_columns_of_a_patch_are_told_apart() -> None:
    section = visium(*corners_and_some(12, 20, 40))
    model = h2s.tl.fit(section, **QUIET, **SMALL)
    spots = model.read(section)
    patches = torch.from_numpy(spots.patches.read(np.arange(len(spots))))
    flat = model.module.pixels(patches).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(flat[0].view(6, 6, 3), patches[0].permute(1, 2, 0) / 255)
