"""Nuclei by name from polygons, and in rows of their own where the rows of AnnData are spots."""

from __future__ import annotations

import anndata as ad
import geopandas
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from shapely import box

from hist2scrna.fitting.tile_batches import make_tile_batch, tiles_of
from hist2scrna.spots.read import Spots, read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source
from hist2scrna.spots.tiles import TileSize, with_nucleus

PX, MPP = 64, 0.5
SQUARES = [(2, 20, 8, 32), (40, 30, 52, 34), (70, 4, 90, 9)]


def section(n: int = 3, names: list[str] | None = None, **factors: float) -> ad.AnnData:
    picture = np.random.default_rng(0).integers(0, 255, (70, 100, 3)).astype(np.uint8)
    xy = np.array([[5, 26], [46, 32], [80, 6.5], [50, 50], [70, 60], [20, 55]])
    scale = {"tissue_level0_scalef": 1.0, "mpp": MPP, **factors}
    return ad.AnnData(
        obs=pd.DataFrame(index=names or [f"c{i}" for i in range(n)]),
        obsm={"spatial": xy[:n]},
        uns={"spatial": {"s": {"images": {"level0": picture}, "scalefactors": scale}}},
    )


def read(adata: ad.AnnData, nuclei: object, px: int = PX) -> Spots:
    return read_spots(open_sections(adata, Source(nuclei=nuclei)), tile=TileSize(px, px * MPP))


# -- polygons ----------------------------------------------------------------------------------------------------------
def test_polygons_are_found_by_name() -> None:
    table = geopandas.GeoDataFrame(geometry=[box(*square) for square in SQUARES], index=["c2", "c0", "other"])
    tiles = read(section(), table).tiles
    np.testing.assert_array_equal(tiles.pixels, [12 * 4, 0, 6 * 12])
    assert tiles.origin == ("polygons",)
    adata = section()
    adata.obs["nucleus"] = ["other", "nobody", "c2"]
    np.testing.assert_array_equal(read(adata, {"s": table}).tiles.pixels, [20 * 5, 0, 72])
    adata.obs["nucleus"] = ["x", "y", "z"]
    with pytest.raises(ValueError, match="No polygon in `nuclei` is named as a row of section 's'"):
        read(adata, table)
    adata.obs["nucleus"] = ["c2", "c2", "z"]
    with pytest.raises(ValueError, match="'c2' of section 's' occurs in more than one row"):
        read(adata, table)


# -- nuclei in spots ---------------------------------------------------------------------------------------------------
@pytest.fixture
def nuclei() -> ad.AnnData:
    xy = np.random.default_rng(1).uniform((2, 2), (98, 68), (40, 2))
    obs = pd.DataFrame({"nucleus_area": 4.0}, index=[f"n{i}" for i in range(40)])
    return ad.AnnData(obs=obs, obsm={"spatial": xy})


def test_a_nucleus_is_in_the_spot_around_its_center_and_seen_in_its_tile(nuclei) -> None:
    adata = section(spot_diameter_fullres=40.0)
    spots = read(adata, nuclei)
    distance = cdist(nuclei.obsm["spatial"], adata.obsm["spatial"])
    expected = np.where(distance.min(axis=1) <= 20, distance.argmin(axis=1), -1)
    np.testing.assert_array_equal(spots.tiles.by_spot.spot, expected)
    np.testing.assert_array_equal(spots.tiles.n_nuclei(), np.bincount(expected[expected >= 0], minlength=3))
    np.testing.assert_array_equal(spots.tiles.spot, [0, 1, 2])
    np.testing.assert_array_equal(spots.tiles.place[:, 1:] + PX // 2, np.round(adata.obsm["spatial"] - 1e-9))
    # A batch has the nuclei of its spots as core, each once, and all others that show as halo.
    members = np.array([True, False, True])
    tiles = tiles_of(spots, members, owned=True)
    batch, rows = make_tile_batch(spots, tiles, members, owned=True, supervised=False)
    np.testing.assert_array_equal(rows, [0, 2])
    assert batch.n_core == np.isin(expected, rows).sum()
    np.testing.assert_array_equal(np.bincount(batch.spot), spots.tiles.n_nuclei()[rows])
    np.testing.assert_array_equal(batch.spot, batch.tile[: batch.n_core])
    assert batch.n_core < len(batch.tile)


def test_spots_without_a_nucleus_are_told(nuclei) -> None:
    adata = section(spot_diameter_fullres=40.0)
    distance = cdist(nuclei.obsm["spatial"], adata.obsm["spatial"])
    some = nuclei[distance[:, 1] > 20].copy()
    with pytest.warns(UserWarning, match="1 of 3 spots have no nucleus in them"):
        seen = with_nucleus(read(adata, some).tiles)
    np.testing.assert_array_equal(seen, [True, False, True])


def test_nuclei_of_several_sections_are_told_apart(nuclei) -> None:
    both = section(6, spot_diameter_fullres=40.0)
    both.obs["library_id"] = pd.Categorical(["s", "t"] * 3)
    both.uns["spatial"]["t"] = both.uns["spatial"]["s"]
    nuclei.obs["library_id"] = ["t"] * 20 + ["s"] * 20
    spots = read(both, nuclei)
    found = spots.tiles.by_spot.spot
    assert set(found[:20]) <= {-1, 1, 3, 5} and set(found[20:]) <= {-1, 0, 2, 4}
    nuclei.obs["library_id"] = "t"
    with pytest.raises(ValueError, match="No nucleus in `nuclei` is of s: .* names t"):
        read(both, nuclei)
    del nuclei.obs["library_id"]
    with pytest.raises(KeyError, match="It tells the section of each nucleus"):
        read(both, nuclei)


def test_a_file_of_nuclei_is_read(nuclei, tmp_path) -> None:
    nuclei.write_h5ad(tmp_path / "nuclei.h5ad")
    adata = section(spot_diameter_fullres=40.0)
    from_file, at_hand = (read(adata, given).tiles for given in (tmp_path / "nuclei.h5ad", nuclei))
    np.testing.assert_array_equal(from_file.n_nuclei(), at_hand.n_nuclei())
    with pytest.raises(FileNotFoundError, match="No file of nuclei"):
        read(adata, "nowhere.h5ad")


def test_spots_that_no_tile_holds_and_nuclei_elsewhere_are_refused(nuclei) -> None:
    wide = section(spot_diameter_fullres=40.0)
    with pytest.raises(ValueError, match="are 20 um wide, and a tile 16 um.*tile_um=24, tile_px=48"):
        read(wide, nuclei, px=32)
    with pytest.raises(ValueError, match="Nothing tells how large the spots of section 's' are"):
        read(section(), nuclei)
    nuclei.obsm["spatial"] = nuclei.obsm["spatial"] + 1000
    with pytest.raises(ValueError, match="None of the 40 nuclei in `nuclei` lies in a spot"):
        read(wide, nuclei)
    with pytest.raises(ValueError, match="has no rows"):
        read(wide, nuclei[:0].copy())
