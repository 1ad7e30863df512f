"""Ways in: a marker drawn at a known spot is in the middle of the patch that is cut there, whatever the platform."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from builders import spots_of
from PIL import Image
from scipy import sparse

from hist2scrna.datasets import simulate
from hist2scrna.io import concat, read_visium, read_visium_hd, read_xenium

pytestmark = pytest.mark.filterwarnings("ignore:A spot of section:UserWarning")

WIDTH, HEIGHT = 420, 260
N, GENES = 12, ("A", "B", "B", "C")
HEADER = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"


def colors(n: int = N) -> np.ndarray:
    """A color of its own for each spot."""
    return np.stack([np.linspace(20, 230, n), np.linspace(230, 20, n), np.arange(n) % 3 * 80 + 20], axis=1).astype(
        np.uint8
    )


def places(n: int = N) -> np.ndarray:
    """Where the spots are, (x, y): four columns, three rows; no two have x and y exchanged."""
    return np.stack([40 + 100 * (np.arange(n) % 4), 30 + 90 * (np.arange(n) // 4)], axis=1) + 0.5


def picture(size: int = 24) -> np.ndarray:
    """A landscape picture with a square of its own color at each spot."""
    pixels = np.full((HEIGHT, WIDTH, 3), 250, dtype=np.uint8)
    for (x, y), color in zip(places().astype(int), colors(), strict=True):
        pixels[y - size // 2 : y + size // 2, x - size // 2 : x + size // 2] = color
    return pixels


def middle(adata: ad.AnnData, **options) -> np.ndarray:
    """Color in the middle of each patch, `(n, 3)`."""
    spots = spots_of(adata, **{"library_key": None, "spatial_key": "spatial", "patch_px": 9, **options})
    return spots.patches.read(np.arange(adata.n_obs))[:, :, 4, 4].astype(int)


def counts_of(names: list[str]) -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, (len(names), len(GENES)))


def write_10x(path: Path, names: list[str], types: list[str] | None = None, **attributes) -> None:
    """The HDF5 file of 10x Genomics, version 3: features x barcodes, compressed by column."""
    matrix = sparse.csc_matrix(counts_of(names).T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(names, dtype="S")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group["shape"] = matrix.shape
        features = group.create_group("features")
        features["id"] = np.array([f"ENS{i}" for i in range(len(GENES))], dtype="S")
        features["name"] = np.array(GENES, dtype="S")
        features["feature_type"] = np.array(types or ["Gene Expression"] * len(GENES), dtype="S")
        features["genome"] = np.array(["GRCh38"] * len(GENES), dtype="S")
        features["_all_tag_keys"] = np.array(["genome"], dtype="S")
        for key, value in attributes.items():
            file.attrs[key] = value


def barcodes() -> list[str]:
    return [f"{c}-1" for c in np.random.default_rng(3).permutation([f"BARCODE{i:02d}" for i in range(N)])]


def positions(names: list[str]) -> pd.DataFrame:
    x, y = places().T
    table = pd.DataFrame(
        dict(zip(HEADER.split(","), (names, 1, np.arange(N) // 4, np.arange(N) % 4 * 2, y, x), strict=True))
    )
    off = table.iloc[[0]].assign(barcode="OFF-1", in_tissue=0)
    return pd.concat([off, table]).sample(frac=1, random_state=0)


def write_section(folder: Path, names: list[str], *, kind: str = "csv", hires: float = 0.5, **factors: float) -> Path:
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    write_10x(
        folder / "filtered_feature_bc_matrix.h5",
        names,
        library_ids=np.array([b"lib"]),
        chemistry_description="Visium V1",
        software_version="3.1.0",
    )
    table = positions(names)
    if kind == "parquet":
        table.to_parquet(spatial / "tissue_positions.parquet", index=False)
    elif kind == "list":
        table.to_csv(spatial / "tissue_positions_list.csv", index=False, header=False)
    else:
        table[table.columns[::-1] if kind == "reversed" else table.columns].to_csv(
            spatial / "tissue_positions.csv", index=False
        )
    whole = Image.fromarray(picture())
    for name, scale in (("hires", hires), ("lowres", hires / 2)):
        whole.resize((round(WIDTH * scale), round(HEIGHT * scale))).save(spatial / f"tissue_{name}_image.png")
        factors[f"tissue_{name}_scalef"] = scale
    (spatial / "scalefactors_json.json").write_text(json.dumps({"spot_diameter_fullres": 20.0, **factors}))
    return folder


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "slide.tif", picture(), photometric="rgb", tile=(64, 64))
    return tmp_path / "slide.tif"


# -- Visium -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["csv", "list", "parquet", "reversed"])
def test_visium_of_every_version(kind, slide, tmp_path):
    names = barcodes()
    folder = write_section(tmp_path / "outs", names, kind=kind)
    adata = read_visium(folder, source_image_path=slide)
    assert list(adata.obs_names) == names
    np.testing.assert_array_equal(adata.obsm["spatial"], places())
    np.testing.assert_array_equal(adata.X.toarray(), counts_of(names))
    assert list(adata.var_names) == ["A", "B", "B-1", "C"]
    assert adata.obs["array_col"].tolist() == (np.arange(N) % 4 * 2).tolist()
    assert adata.obs["library_id"].unique().tolist() == ["lib"]
    entry = adata.uns["spatial"]["lib"]
    assert entry["metadata"] == {
        "chemistry_description": "Visium V1",
        "software_version": "3.1.0",
        "source_image_path": str(slide),
    }
    assert {k: v.shape for k, v in entry["images"].items()} == {"hires": (130, 210, 3), "lowres": (65, 105, 3)}
    # The slide, pixel for pixel; and its preview at half the size.
    with pytest.warns(UserWarning, match="covers only 20 px"):
        np.testing.assert_array_equal(middle(adata), colors())
    with pytest.warns(UserWarning, match="covers only 10 px"):
        assert np.abs(middle(adata, img_key="hires") - colors()).max() <= 2
    # A spot diameter of Space Ranger stands for 65 um: one and a half are the default.
    spots = spots_of(adata, library_key=None, spatial_key="spatial", patch_px=9)
    assert spots.geometry.um == pytest.approx(97.5)


@pytest.mark.parametrize("kind", ["csv", "list"])
def test_visium_agrees_with_squidpy(kind, tmp_path):
    import squidpy as sq

    folder = write_section(tmp_path / "outs", barcodes(), kind=kind)
    with pytest.warns(UserWarning, match="Variable names are not unique"):
        theirs = sq.read.visium(folder)
    ours = read_visium(folder)
    np.testing.assert_array_equal(ours.obsm["spatial"], theirs.obsm["spatial"])
    np.testing.assert_array_equal(ours.X.toarray(), theirs.X.toarray())
    for column in ("in_tissue", "array_row", "array_col"):
        assert ours.obs[column].tolist() == theirs.obs[column].tolist()
    (ours,), (theirs,) = ours.uns["spatial"].values(), theirs.uns["spatial"].values()
    assert theirs["scalefactors"].items() <= ours["scalefactors"].items()
    for key in ("hires", "lowres"):
        np.testing.assert_array_equal(ours["images"][key], theirs["images"][key])


def test_visium_without_pictures_and_name(slide, tmp_path):
    folder = write_section(tmp_path / "mine", barcodes())
    for file in folder.glob("spatial/*.png"):
        file.unlink()
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "a") as file:
        for key in list(file.attrs):
            del file.attrs[key]
    adata = read_visium(folder)
    assert list(adata.uns["spatial"]) == ["mine"]
    with pytest.warns(UserWarning, match="covers only"):
        np.testing.assert_array_equal(middle(adata, image=slide), colors())
    # Even where the file does not say that it is Visium.
    assert adata.uns["spatial"]["mine"]["scalefactors"]["spot_diameter_um"] == 65
    assert list(read_visium(folder, library_id="other").uns["spatial"]) == ["other"]


def rewrite(file: str, old: str, new: str):
    def change(folder):
        path = folder / "spatial" / file
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def fractional(folder):
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "a") as file:
        data = file["matrix/data"][:] * np.float32(0.5)
        del file["matrix/data"]
        file["matrix/data"] = data


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: (f / "spatial" / "tissue_positions.csv").unlink(), FileNotFoundError, "No positions in"),
        (lambda f: (f / "filtered_feature_bc_matrix.h5").unlink(), FileNotFoundError, "No file .*matrix.h5"),
        (lambda f: (f / "filtered_feature_bc_matrix.h5").write_text("no"), ValueError, "no matrix of 10x"),
        (lambda f: (f / "spatial" / "scalefactors_json.json").unlink(), FileNotFoundError, "scalefactors_json.json"),
        (rewrite("scalefactors_json.json", "{", ""), ValueError, "no scale factors"),
        (rewrite("tissue_positions.csv", "barcode,in_tissue", "barcode,tissue"), ValueError, "Expected the columns"),
        (rewrite("tissue_positions.csv", "BARCODE03-1", "OTHER-1"), ValueError, "1 of 12 barcodes .*'BARCODE03-1'"),
        (rewrite("tissue_positions.csv", "BARCODE03-1", "OFF-1"), ValueError, "'OFF-1' more than once"),
        (rewrite("tissue_positions.csv", "140.5", "east"), ValueError, "expected numbers in the row of"),
        (lambda f: (f / "spatial" / "tissue_hires_image.png").write_bytes(b"x"), ValueError, "hires_image.png' is dam"),
        (fractional, ValueError, "Expected counts in"),
    ],
)
def test_visium_folders_that_do_not_fit(change, error, message, tmp_path):
    folder = write_section(tmp_path / "outs", barcodes())
    change(folder)
    with pytest.raises(error, match=message):
        read_visium(folder)


def test_no_folder_and_no_picture(tmp_path):
    with pytest.raises(FileNotFoundError, match="`outs`"):
        read_visium(tmp_path / "absent")
    folder = write_section(tmp_path / "outs", barcodes())
    with pytest.raises(FileNotFoundError, match="`source_image_path`"):
        read_visium(folder, source_image_path=tmp_path / "absent.tif")


def test_a_real_section(shared_data, tmp_path):
    """Mouse brain of 10x Genomics, written as Space Ranger would: row first, and read back as it was."""
    brain = ad.read_h5ad(shared_data / "visium_mousebrain" / "crop.h5ad")
    (entry,) = brain.uns["spatial"].values()
    folder = tmp_path / "brain"
    (folder / "spatial").mkdir(parents=True)
    x, y = brain.obsm["spatial"].T
    table = pd.DataFrame({"b": brain.obs_names, "t": 1, "r": 0, "c": np.arange(brain.n_obs), "y": y, "x": x})
    table.to_csv(folder / "spatial" / "tissue_positions_list.csv", index=False, header=False)
    write_10x(folder / "filtered_feature_bc_matrix.h5", list(brain.obs_names), library_ids=np.array([b"brain"]))
    Image.fromarray(entry["images"]["hires"]).save(folder / "spatial" / "tissue_hires_image.png")
    (folder / "spatial" / "scalefactors_json.json").write_text(
        json.dumps({k: float(v) for k, v in entry["scalefactors"].items()})
    )
    adata = read_visium(folder)
    np.testing.assert_array_equal(adata.obsm["spatial"], brain.obsm["spatial"])
    np.testing.assert_array_equal(middle(adata, mpp=0.7), middle(brain, mpp=0.7))


# -- Visium HD --------------------------------------------------------------------------------------------------------
def test_visium_hd(slide, tmp_path):
    names = [f"s_008um_{i:05d}_00000-1" for i in range(N)]
    folder = tmp_path / "outs" / "binned_outputs" / "square_008um"
    write_section(folder, names, kind="parquet", bin_size_um=8.0, microns_per_pixel=0.5)
    adata = read_visium_hd(tmp_path / "outs", source_image_path=slide)
    np.testing.assert_array_equal(adata.obsm["spatial"], places())
    # Bins are small, the picture is not coarse: no warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        np.testing.assert_array_equal(middle(adata), colors())
    # Squares of 24 px, 12 um: a patch of 12 um shows nothing else.
    spots = spots_of(adata, library_key=None, spatial_key="spatial", patch_px=24, patch_um=12)
    assert spots.geometry.scale_from == "metadata"
    patches = spots.patches.read(np.arange(N))[:, :, 2:-2, 2:-2]
    assert (patches == colors()[:, :, None, None]).all()
    with pytest.raises(FileNotFoundError, match=r"square_016um.*\['square_008um'\]"):
        read_visium_hd(tmp_path / "outs", bin_um=16)


# -- Xenium -----------------------------------------------------------------------------------------------------------
ALIGNMENTS = {
    "same": np.eye(3),
    "scaled and moved": np.array([[1.7, 0, 31.0], [0, 1.7, -12.0], [0, 0, 1]]),
    "turned": np.array([[0, -1.3, 500.0], [1.3, 0, 20.0], [0, 0, 1]]),
    "mirrored": np.array([[-1.0, 0, 600.0], [0, 1.0, 0.0], [0, 0, 1]]),
    "sheared": np.array([[1.2, 0.4, 3.0], [-0.1, 0.9, 7.0], [0, 0, 1]]),
}


def write_xenium(folder: Path, matrix: np.ndarray, *, parquet: bool = True, area: bool = True) -> Path:
    """Cells at the squares of the picture, which the matrix maps to the morphology image of 0.2 um a pixel."""
    folder.mkdir()
    names = [f"cell{i}-1" for i in range(N)]
    controls = ["Gene Expression", "Gene Expression", "Gene Expression", "Negative Control Probe"]
    write_10x(folder / "cell_feature_matrix.h5", names, controls)
    microns = (np.column_stack([places(), np.ones(N)]) @ matrix.T)[:, :2] * 0.2
    cells = pd.DataFrame(
        {"cell_id": names, "x_centroid": microns[:, 0], "y_centroid": microns[:, 1], "total_counts": 7}
    )
    if area:
        cells["cell_area"] = np.pi * 25.0
    cells = cells.iloc[::-1]
    if parquet:
        cells.to_parquet(folder / "cells.parquet", index=False)
    else:
        with gzip.open(folder / "cells.csv.gz", "wt") as file:
            cells.to_csv(file, index=False)
    experiment = {"pixel_size": 0.2, "region_name": "R1", "run_name": "run"}
    (folder / "experiment.xenium").write_text(json.dumps(experiment))
    return folder


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_xenium_cells_are_on_the_picture(kind, slide, tmp_path):
    matrix = ALIGNMENTS[kind]
    folder = write_xenium(tmp_path / "outs", matrix, parquet=kind != "same")
    np.savetxt(tmp_path / "alignment.csv", matrix, delimiter=",")
    adata = read_xenium(folder, source_image_path=slide, alignment=tmp_path / "alignment.csv")
    np.testing.assert_allclose(adata.obsm["spatial"], places(), atol=1e-9)
    assert list(adata.var_names) == ["A", "B", "B-1"]
    np.testing.assert_array_equal(adata.X.toarray(), counts_of(list(adata.obs_names))[:, :3])
    assert adata.obs["library_id"].unique().tolist() == ["R1_run"]
    assert adata.obs["total_counts"].tolist() == [7] * N
    np.testing.assert_array_equal(middle(adata, patch_um=2), colors())
    factors = adata.uns["spatial"]["R1_run"]["scalefactors"]
    area = abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    assert factors["mpp"] == pytest.approx(0.2 * area**0.5)
    assert factors["spot_diameter_fullres"] * factors["mpp"] == pytest.approx(10.0)


def test_xenium_without_picture(slide, tmp_path):
    folder = write_xenium(tmp_path / "outs", np.eye(3), area=False)
    adata = read_xenium(folder, library_id="mine")
    assert adata.uns["spatial"]["mine"]["scalefactors"] == {"mpp": 0.2}
    np.testing.assert_array_equal(middle(adata, image=slide, patch_um=2), colors())
    with pytest.raises(ValueError, match=r"together.*numpy.eye\(3\)"):
        read_xenium(folder, source_image_path=slide)
    for matrix, message in ((np.zeros((3, 3)), "last row"), (np.diag([1, 0, 1]), "cannot be inverted")):
        with pytest.raises(ValueError, match=message):
            read_xenium(folder, source_image_path=slide, alignment=matrix)
    (tmp_path / "words.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="words.csv' is no matrix"):
        read_xenium(folder, source_image_path=slide, alignment=tmp_path / "words.csv")
    (folder / "experiment.xenium").write_text("{}")
    with pytest.raises(ValueError, match="does not tell the size of a pixel"):
        read_xenium(folder)
    (folder / "cells.parquet").unlink()
    (folder / "experiment.xenium").write_text('{"pixel_size": 0.2}')
    with pytest.raises(FileNotFoundError, match="No table of cells"):
        read_xenium(folder)


# -- several samples --------------------------------------------------------------------------------------------------
def test_sections_keep_what_is_theirs(slide, tmp_path):
    import squidpy as sq

    folders = [write_section(tmp_path / name, barcodes()) for name in ("one", "two")]
    parts = [read_visium(f, library_id=f.name, source_image_path=slide) for f in folders]
    parts[1].obsm["spatial"] = parts[1].obsm["spatial"][::-1].copy()
    for part in parts:
        sq.gr.spatial_neighbors_knn(part, n_neighs=3)
    both = concat(parts)
    assert both.obs_names.is_unique
    assert both.obs_names[0] == f"{parts[0].obs_names[0]}-one"
    assert list(both.obs["library_id"].cat.categories) == ["one", "two"]
    assert list(both.uns["spatial"]) == ["one", "two"]
    for part in parts:
        (name,) = part.uns["spatial"]
        assert both.uns["spatial"][name]["images"]["hires"] is part.uns["spatial"][name]["images"]["hires"]
        assert not part.obs_names[0].endswith(name)
    graph = both.obsp["spatial_connectivities"].toarray()
    assert graph[:N, :N].sum() == parts[0].obsp["spatial_connectivities"].sum() > 0
    assert graph[:N, N:].sum() == graph[N:, :N].sum() == 0
    with pytest.warns(UserWarning, match="covers only"):
        seen = middle(both, library_key="library_id")
    np.testing.assert_array_equal(seen, np.concatenate([colors(), colors()[::-1]]))


def test_joining_simulated_sections_changes_no_patch():
    parts = simulate("small", n_sections=3, n_genes=20)
    both = concat(parts)
    assert list(both.obs_names) == [name for part in parts for name in part.obs_names]
    assert list(both.obs["cell_type"].cat.categories) == list(parts[0].obs["cell_type"].cat.categories)
    assert set(both.layers) == set(parts[0].layers)
    alone = np.concatenate([middle(part) for part in parts])
    np.testing.assert_array_equal(middle(both, library_key="library_id"), alone)


def test_sections_of_the_same_name(make_section):
    a, b = make_section("s", seed=1), make_section("s", seed=2, n_spots=30)
    with pytest.raises(ValueError, match=r"Section 's' occurs in more than one.*dictionary"):
        concat([a, b])
    both = concat({"p1": a, "p2": b})
    assert both.obs["library_id"].value_counts().to_dict() == {"p1": 40, "p2": 30}
    assert both.uns["spatial"]["p2"]["images"]["hires"] is b.uns["spatial"]["s"]["images"]["hires"]
    np.testing.assert_array_equal(both.X.toarray(), np.vstack([a.X.toarray(), b.X.toarray()]))
    with pytest.raises(ValueError, match="more than one library"):
        concat({"x": both})


def test_joining_what_does_not_fit(make_section):
    a, b = make_section("a"), make_section("b")
    with pytest.raises(ValueError, match="No section"):
        concat([])
    wrong = b.copy()
    wrong.obs["library_id"] = "c"
    with pytest.raises(ValueError, match=r"names \['c'\].*holds \['b'\]"):
        concat([a, wrong])
    nameless = b.copy()
    del nameless.obs["library_id"]
    assert concat([a, nameless]).obs["library_id"].tolist() == ["a"] * 40 + ["b"] * 40
    del nameless.uns["spatial"]
    with pytest.raises(KeyError, match="section 1"):
        concat([a, nameless])
    b.obs_names = ["x"] * b.n_obs
    with pytest.raises(ValueError, match="within section 1"):
        concat([a, b])
    few = make_section("c", n_genes=5)
    assert concat([a, few]).n_vars == 5
    outer = concat([a, few], join="outer")
    absent = [g for g in a.var_names if g not in few.var_names]
    assert outer[40:, absent].X.nnz == 0
    np.testing.assert_array_equal(outer[:40, a.var_names].X.toarray(), a.X.toarray())
    del a.X, few.X
    assert concat([a, few]).X is None
