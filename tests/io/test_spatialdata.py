"""SpatialData and back: whatever affine map lies between elements and image, spots are where they were drawn."""

from __future__ import annotations

import warnings

import anndata as ad
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
import tifffile
from builders import fast, spots_of
from scipy import sparse
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation, set_transformation

from hist2scrna.io import concat, from_spatialdata, to_spatialdata
from hist2scrna.tl import fit, predict

pytestmark = [
    pytest.mark.filterwarnings("ignore:A spot of section:UserWarning"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning"),
    pytest.mark.filterwarnings("ignore:The index of the dataframe is not monotonic:UserWarning"),
]

WIDTH, HEIGHT, N = 420, 260, 12


def colors() -> np.ndarray:
    rising = np.linspace(20, 230, N)
    return np.stack([rising, rising[::-1], np.arange(N) % 3 * 80 + 20], axis=1).astype(np.uint8)


def places() -> np.ndarray:
    return np.stack([40 + 100 * (np.arange(N) % 4), 30 + 90 * (np.arange(N) // 4)], axis=1).astype(float)


def draw_squares() -> np.ndarray:
    """Landscape, with a square of its own color around each spot."""
    pixels = np.full((HEIGHT, WIDTH, 3), 250, dtype=np.uint8)
    for (x, y), color in zip(places().astype(int), colors(), strict=True):
        pixels[y - 12 : y + 12, x - 12 : x + 12] = color
    return pixels


def middle(adata: ad.AnnData, **options) -> np.ndarray:
    options = {"library_key": None, "spatial_key": "spatial", "patch_px": 9, **options}
    return spots_of(adata, **options).patches.read(np.arange(adata.n_obs))[:, :, 4, 4].astype(int)


def affine(matrix) -> Affine:
    return Affine(np.asarray(matrix, dtype=float), input_axes=("x", "y"), output_axes=("x", "y"))


AFFINES = {
    "same": np.eye(3),
    "scaled and moved": [[2.5, 0, 100], [0, 2.5, -40], [0, 0, 1]],
    "a quarter turn": [[0, -1, 300], [1, 0, 0], [0, 0, 1]],
    "mirrored": [[-1, 0, 420], [0, 1, 0], [0, 0, 1]],
    "sheared and stretched": [[1.3, 0.5, 10], [-0.2, 0.7, 30], [0, 0, 1]],
}


def element(kind: str, own: np.ndarray):
    """The spots as an element whose own coordinates are mapped by `own` to where they are on the image."""
    xy = (np.column_stack([places(), np.ones(N)]) @ np.linalg.inv(own).T)[:, :2]
    names = [f"spot{i}" for i in range(N)]
    if kind == "circles":
        return ShapesModel.parse(xy, geometry=0, radius=9.0, index=names), names
    if kind == "polygons":
        return ShapesModel.parse(
            gpd.GeoDataFrame(geometry=[shapely.box(x - 3, y - 3, x + 3, y + 3) for x, y in xy], index=names)
        ), names
    return PointsModel.parse(pd.DataFrame(xy, columns=["x", "y"], index=np.arange(N) + 5)), list(np.arange(N) + 5)


def make(kind="circles", to_world="same", own="same", *, scales=None, system="global") -> sd.SpatialData:
    to_world, own = np.array(AFFINES[to_world], dtype=float), np.array(AFFINES[own], dtype=float)
    image = Image2DModel.parse(
        draw_squares().transpose(2, 0, 1), dims=("c", "y", "x"), scale_factors=scales, c_coords=["r", "g", "b"]
    )
    set_transformation(image, affine(to_world), system)
    spots, names = element(kind, own)
    set_transformation(spots, affine(to_world @ own), system)
    if system != "global":
        for e in (image, spots):
            sd.transformations.remove_transformation(e, "global")
    order = np.random.default_rng(0).permutation(N)
    table = ad.AnnData(
        X=sparse.csr_matrix(np.arange(N * 3).reshape(N, 3)[order].astype(np.float32)),
        obs=pd.DataFrame(
            {"region": pd.Categorical(["spots"] * N), "id": np.array(names)[order], "i": order},
            index=[f"row{i}" for i in order],
        ),
    )
    table = TableModel.parse(table, region="spots", region_key="region", instance_key="id")
    return sd.SpatialData.init_from_elements({"he": image, "spots": spots, "table": table})


def take(sdata, **options) -> ad.AnnData:
    return from_spatialdata(sdata, **{"image": "he", "table": "table", "um_per_unit": 0.5, **options})


@pytest.mark.parametrize("own", ["same", "scaled and moved", "a quarter turn"])
@pytest.mark.parametrize("to_world", AFFINES)
def test_spots_are_where_they_were_drawn(to_world, own):
    matrix = np.array(AFFINES[to_world], dtype=float)
    adata = take(make(to_world=to_world, own=own))
    np.testing.assert_allclose(adata.obsm["spatial"], places()[adata.obs["i"]], atol=1e-6)
    np.testing.assert_array_equal(middle(adata), colors()[adata.obs["i"]])
    np.testing.assert_array_equal(adata.X.toarray(), np.arange(N * 3).reshape(N, 3)[adata.obs["i"]])
    factors = adata.uns["spatial"]["spots"]["scalefactors"]
    area = abs(np.linalg.det(matrix[:2, :2]))
    assert factors["mpp"] == pytest.approx(0.5 * area**0.5)
    assert factors["spot_diameter_fullres"] == pytest.approx(
        18 * abs(np.linalg.det(np.array(AFFINES[own])[:2, :2])) ** 0.5
    )


@pytest.mark.parametrize("kind", ["polygons", "points"])
def test_kinds_of_elements(kind):
    adata = take(make(kind, "sheared and stretched", "mirrored"))
    np.testing.assert_array_equal(middle(adata, patch_um=5), colors()[adata.obs["i"]])
    diameter = adata.uns["spatial"]["spots"]["scalefactors"].get("spot_diameter_fullres")
    assert diameter == (pytest.approx(6 * 2 / np.pi**0.5) if kind == "polygons" else None)


def test_labels():
    sdata = make(to_world="a quarter turn")
    grid = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for i, (x, y) in enumerate(places().astype(int)):
        grid[y - 5 : y + 5, x - 5 : x + 5] = 100 + i
    sdata["cells"] = Labels2DModel.parse(
        grid, dims=("y", "x"), transformations={"global": affine(AFFINES["a quarter turn"])}
    )
    table = ad.AnnData(
        X=np.ones((N, 1), dtype=np.float32),
        obs=pd.DataFrame(
            {"region": pd.Categorical(["cells"] * N), "id": np.arange(N) + 100}, index=[str(i) for i in range(N)]
        ),
    )
    sdata["cell_table"] = TableModel.parse(table, region="cells", region_key="region", instance_key="id")
    adata = take(sdata, table="cell_table")
    np.testing.assert_allclose(adata.obsm["spatial"], places())
    np.testing.assert_array_equal(middle(adata, patch_um=5), colors())


def test_chained_transformations_and_other_systems():
    """A sequence of maps, in a coordinate system of its own; in another, elements are not aligned."""
    sdata = make(system="slide")
    set_transformation(
        sdata["he"], Sequence([Scale([2.0, 3.0], axes=("x", "y")), Translation([7.0, 9.0], axes=("x", "y"))]), "slide"
    )
    set_transformation(sdata["spots"], affine([[2, 0, 7], [0, 3, 9], [0, 0, 1]]), "slide")
    adata = take(sdata, coordinate_system="slide")
    np.testing.assert_array_equal(middle(adata), colors()[adata.obs["i"]])
    with pytest.raises(KeyError, match=r"'he' is not aligned to the coordinate system 'global', only to \['slide'\]"):
        take(sdata)
    set_transformation(sdata["he"], Identity(), "global")
    with pytest.raises(KeyError, match="'spots' is not aligned to the coordinate system 'global'"):
        take(sdata)


def test_a_large_image_stays_lazy_on_disk(tmp_path, monkeypatch):
    """Of a pyramid in a Zarr store, the preview is a coarse level, and the finest is read by patches."""
    monkeypatch.setattr("hist2scrna.io._from_spatialdata.PREVIEW_PX", 120)
    make(to_world="scaled and moved", scales=[2, 2]).write(tmp_path / "s.zarr")
    adata = take(sd.read_zarr(tmp_path / "s.zarr"))
    images = adata.uns["spatial"]["spots"]["images"]
    assert isinstance(images["level0"], da.Array)
    assert images["hires"].shape == (65, 105, 3)
    np.testing.assert_array_equal(middle(adata), colors()[adata.obs["i"]])
    assert np.abs(middle(adata, img_key="hires") - colors()[adata.obs["i"]]).max() <= 3
    monkeypatch.setattr("hist2scrna.io._from_spatialdata.PREVIEW_PX", 30)
    strided = take(sd.read_zarr(tmp_path / "s.zarr")).uns["spatial"]["spots"]
    assert strided["images"]["hires"].shape == (17, 27, 3)
    adata.write_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(middle(ad.read_h5ad(tmp_path / "x.h5ad")), colors()[adata.obs["i"]])


def test_several_samples_in_one_object():
    a, b = make(), make(to_world="mirrored")
    joined = ad.concat([a["table"], b["table"]], index_unique="-")
    joined.obs["region"] = pd.Categorical(["spots"] * N + ["others"] * N)
    table = TableModel.parse(joined, region=["spots", "others"], region_key="region", instance_key="id")
    both = sd.SpatialData.init_from_elements(
        {"he": a["he"], "he2": b["he"], "spots": a["spots"], "others": b["spots"], "table": table}
    )
    with pytest.raises(ValueError, match=r"annotates 2 regions: \['spots', 'others'\]. Pass region="):
        take(both)
    adata = concat([take(both, region="spots"), take(both, region="others", image="he2", library_id="second")])
    assert list(adata.obs["library_id"].cat.categories) == ["spots", "second"]
    np.testing.assert_array_equal(middle(adata, library_key="library_id"), colors()[adata.obs["i"]])


def test_what_cannot_be_taken():
    sdata = make()
    for options, message in (
        ({"image": "x"}, r"Key 'x' not found .*\['he'\]"),
        ({"table": "x"}, r"Key 'x' not found .*\['table'\]"),
        ({"region": "x"}, r"does not annotate 'x'.*\['spots'\]"),
    ):
        with pytest.raises(KeyError, match=message):
            take(sdata, **options)
    with pytest.raises(ValueError, match="`um_per_unit` to be a positive"):
        take(sdata, um_per_unit=0.0)
    set_transformation(sdata["he"], affine([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), "global")
    with pytest.raises(ValueError, match="cannot be inverted"):
        take(sdata)
    sdata = make()
    sdata["stain"] = Image2DModel.parse(np.zeros((5, 40, 30), dtype=np.uint8), dims=("c", "y", "x"))
    with pytest.raises(ValueError, match=r"sdata.images\['stain'\] to be .*\(40, 30, 5\)"):
        take(sdata, image="stain")
    sdata["table"].obs["id"] = sdata["table"].obs["id"].replace("spot3", "spot99")
    with pytest.raises(ValueError, match="the first is 'spot99'"):
        take(sdata)
    sdata["table2"] = make()["table"]
    with pytest.raises(ValueError, match="holds 2 tables"):
        take(sdata, table=None)
    del sdata.tables["table"]
    del sdata["table2"].uns["spatialdata_attrs"]
    with pytest.raises(ValueError, match="annotates no element"):
        take(sdata, table=None)


def test_scale_is_never_made_up():
    with pytest.warns(UserWarning, match="Pass um_per_unit="):
        adata = take(make("points"), um_per_unit=None)
    with pytest.raises(KeyError, match="mpp="):
        middle(adata)
    np.testing.assert_array_equal(middle(adata, mpp=1.0, patch_um=5), colors()[adata.obs["i"]])


# -- to SpatialData and back ------------------------------------------------------------------------------------------
def test_there_and_back(make_section, tmp_path):
    adata = make_section("s0")
    adata.layers["more"] = adata.X.copy()
    model = fit(adata, **fast(labels_key="cell_type"))
    expected = predict(adata.copy(), model, progress=False)
    to_spatialdata(expected).write(tmp_path / "s.zarr")
    sdata = sd.read_zarr(tmp_path / "s.zarr")
    back = from_spatialdata(sdata, image="s0_image")
    assert list(back.obs_names) == list(adata.obs_names)
    np.testing.assert_array_equal(back.obsm["spatial"], adata.obsm["spatial"])
    np.testing.assert_array_equal(back.layers["more"].toarray(), adata.layers["more"].toarray())
    before, after = adata.uns["spatial"]["s0"], back.uns["spatial"]["s0"]
    np.testing.assert_array_equal(after["images"]["hires"], before["images"]["hires"])
    assert after["scalefactors"] == before["scalefactors"]
    again = predict(back.copy(), model, progress=False)
    for key in ("hist2scrna_mean", "hist2scrna_dropout"):
        np.testing.assert_array_equal(again.layers[key], expected.layers[key])
        np.testing.assert_array_equal(back.layers[key], expected.layers[key])
    assert "hires" in adata.uns["spatial"]["s0"]["images"]


def test_an_image_at_another_scale_and_a_file(make_section, tmp_path):
    """A preview at half the size covers the same ground; a TIFF goes in lazily, pixel for pixel."""
    adata = make_section()
    entry = adata.uns["spatial"]["s0"]
    whole = entry["images"]["hires"]
    entry["images"] = {"half": whole[::2, ::2].copy()}
    entry["scalefactors"] |= {"tissue_half_scalef": 0.5}
    back = from_spatialdata(to_spatialdata(adata), image="s0_image")
    np.testing.assert_allclose(back.obsm["spatial"], adata.obsm["spatial"] / 2)
    assert back.uns["spatial"]["s0"]["scalefactors"]["mpp"] == 4.0
    np.testing.assert_array_equal(middle(back, patch_um=40), middle(adata, patch_um=40))
    tifffile.imwrite(tmp_path / "w.tif", whole, photometric="rgb", tile=(64, 64))
    entry["metadata"]["source_image_path"] = str(tmp_path / "w.tif")
    sdata = to_spatialdata(adata)
    assert isinstance(sdata["s0_image"].data, da.Array)
    np.testing.assert_array_equal(sdata["s0_image"].data.compute(), whole.transpose(2, 0, 1))


def test_sections_have_systems_of_their_own(make_section):
    parts = [make_section("a", seed=1), make_section("b", seed=2)]
    both = concat(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sdata = to_spatialdata(both, library_key="library_id")
    assert sorted(sdata.coordinate_systems) == ["a", "b"]
    back = concat([from_spatialdata(sdata, image=f"{s}_image", region=s, coordinate_system=s) for s in "ab"])
    np.testing.assert_array_equal(back.obsm["spatial"], both.obsm["spatial"])
    np.testing.assert_array_equal(middle(back, library_key="library_id"), middle(both, library_key="library_id"))
    with pytest.raises(KeyError, match="not aligned to the coordinate system 'global'"):
        from_spatialdata(sdata, image="a_image", region="a")
    both.obs_names = ["x"] * both.n_obs
    with pytest.raises(ValueError, match="obs_names are not unique"):
        to_spatialdata(both, library_key="library_id")
