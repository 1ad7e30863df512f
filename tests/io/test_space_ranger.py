"""What Space Ranger writes, of any version: spots lie on the image, and what does not fit together is refused."""

from __future__ import annotations

import json
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from builders import spots_of
from PIL import Image
from platform_files import N, barcodes, colors, counts_of, middle, places, write_10x, write_section

from hist2scrna.io import read_visium, read_visium_hd


@pytest.mark.parametrize("kind", ["csv", "list", "parquet", "reversed"])
def test_visium_of_every_version(kind, image_file, tmp_path):
    names = barcodes()
    folder = write_section(tmp_path / "outs", names, kind=kind)
    adata = read_visium(folder, source_image_path=image_file)
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
        "source_image_path": str(image_file),
    }
    assert {k: v.shape for k, v in entry["images"].items()} == {"hires": (130, 210, 3), "lowres": (65, 105, 3)}
    # The image_file, pixel for pixel; and its preview at half the size.
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


def test_visium_without_images_and_name(image_file, tmp_path):
    folder = write_section(tmp_path / "mine", barcodes())
    for file in folder.glob("spatial/*.png"):
        file.unlink()
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "a") as file:
        for key in list(file.attrs):
            del file.attrs[key]
    adata = read_visium(folder)
    assert list(adata.uns["spatial"]) == ["mine"]
    with pytest.warns(UserWarning, match="covers only"):
        np.testing.assert_array_equal(middle(adata, image=image_file), colors())
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


def test_no_folder_and_no_image(tmp_path):
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


def test_visium_hd(image_file, tmp_path):
    names = [f"s_008um_{i:05d}_00000-1" for i in range(N)]
    folder = tmp_path / "outs" / "binned_outputs" / "square_008um"
    write_section(folder, names, kind="parquet", bin_size_um=8.0, microns_per_pixel=0.5)
    adata = read_visium_hd(tmp_path / "outs", source_image_path=image_file)
    np.testing.assert_array_equal(adata.obsm["spatial"], places())
    # Bins are small, the image is not coarse: no warning.
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
