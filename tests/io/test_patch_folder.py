"""A folder of patches and tables: what goes in comes out, and what does not fit is refused with file and line."""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from builders import fast, spots_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse

from hist2scrna.datasets import simulate
from hist2scrna.io import concat, patch_layout, read_patch_folder, write_patch_folder
from hist2scrna.spots.patch_files import PatchFiles, png_side, read_png
from hist2scrna.tl import fit, predict

MEAN = "hist2scrna_mean"


def patches_of(adata: ad.AnnData, px: int = 8, **options) -> np.ndarray:
    options = {"library_key": None, "spatial_key": "spatial", "patch_px": px, **options}
    return spots_of(adata, **options).patches.read(np.arange(adata.n_obs))


# -- round trips ------------------------------------------------------------------------------------------------------
printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
spot_names = st.lists(st.text(printable, min_size=1, max_size=12), min_size=3, max_size=5, unique_by=str.lower)
gene_names = st.lists(st.text(printable, min_size=1, max_size=8), min_size=1, max_size=4, unique=True)


@st.composite
def sections(draw):
    """A section of 3 to 5 spots with anything that a table must not lose."""
    names, genes = draw(spot_names), [g for g in draw(gene_names) if g != "spot_id"] or ["g"]
    n, shape = len(names), (len(names), len(genes))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    largest = draw(st.sampled_from([1, 300, 2**31]))
    counts = rng.integers(0, largest, shape, endpoint=True) * (rng.random(shape) < 0.6)
    counts[0, 0] = largest
    make = draw(st.sampled_from([np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]))
    kind = np.float32 if largest < 2**24 and draw(st.booleans()) else np.int64 if draw(st.booleans()) else np.float64
    edges = sparse.csr_matrix((rng.random((n, n)) < draw(st.sampled_from([0.0, 0.4, 1.0]))).astype(float))
    labels = draw(st.lists(st.sampled_from(["T cell, CD4+", 'said "B"', "10", "9"]), min_size=n, max_size=n))
    labels = pd.Categorical(labels, categories=["unseen", "9", "T cell, CD4+", "10", 'said "B"'])
    adata = ad.AnnData(
        X=make(counts.astype(kind)),
        obs=pd.DataFrame({"kind": labels}, index=names),
        var=pd.DataFrame(index=genes),
        obsm={"spatial": rng.uniform([0, 0], [90, 60], (n, 2)) * draw(st.sampled_from([1.0, 1 / 3, 1e-9]))},
        obsp={"spatial_connectivities": edges},
    )
    adata.obs.loc[adata.obs_names[0], "kind"] = np.nan if draw(st.booleans()) else "9"
    adata.uns["spatial"] = {
        "lib/1": {
            "images": {"hires": rng.integers(0, 255, (60, 90, 3), dtype=np.uint8)},
            "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 40.0, "mpp": 1 / 3},
            "metadata": {"chemistry_description": "Spatial 3' v1"},
        }
    }
    adata.uns["folder_metadata"] = json.dumps({"who": ["a", None, {"b": 0.1}], "ü": 2**60})
    return adata


@settings(max_examples=40)
@given(adata=sections())
def test_nothing_is_lost(adata):
    with tempfile.TemporaryDirectory() as place:
        folder = write_patch_folder(adata, Path(place) / "f", labels_key="kind", patch_px=8)
        back = read_patch_folder(folder)
        assert list(back.obs_names) == list(adata.obs_names)
        assert list(back.var_names) == list(adata.var_names)
        dense = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
        np.testing.assert_array_equal(back.X.toarray().astype(np.float64), dense.astype(np.float64))
        np.testing.assert_array_equal(back.obsm["spatial"], adata.obsm["spatial"])
        assert (back.obsp["spatial_connectivities"] != adata.obsp["spatial_connectivities"]).nnz == 0
        pd.testing.assert_series_equal(back.obs["cell_type"], adata.obs["kind"], check_names=False)
        before, after = adata.uns["spatial"]["lib/1"], back.uns["spatial"]["lib/1"]
        assert after["scalefactors"] == before["scalefactors"]
        assert before["metadata"].items() <= after["metadata"].items()
        assert after["metadata"]["patch_side_um"] == 20.0
        assert json.loads(back.uns["folder_metadata"]) == json.loads(adata.uns["folder_metadata"])
        np.testing.assert_array_equal(patches_of(back), patches_of(adata))

        again = write_patch_folder(back, Path(place) / "g", labels_key="cell_type")
        first, second = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in (folder, again))
        assert first == second


def test_several_sections_in_one_folder(make_section, tmp_path):
    a, b = make_section("a", seed=1), make_section("b", kind="square", n_spots=30, seed=2)
    both = concat([a, b])
    folder = write_patch_folder(both, tmp_path / "f", library_key="library_id", labels_key="cell_type", patch_px=16)
    assert (folder / "spatial_coordinates.csv").read_text().splitlines()[0] == "spot_id,x,y,library_id"
    back = read_patch_folder(folder)
    assert list(back.obs["library_id"]) == list(both.obs["library_id"])
    options = {"library_key": "library_id"}
    np.testing.assert_array_equal(patches_of(back, 16, **options), patches_of(both, 16, **options))
    given, found = (
        spots_of(x, spatial_key="spatial", patch_px=16, library_key="library_id").graph for x in (back, both)
    )
    assert (given.adjacency != found.adjacency).nnz == 0
    one = back[back.obs["library_id"] == "b"].copy()
    np.testing.assert_array_equal(patches_of(one, 16, **options), patches_of(b, 16))


def test_layer_and_stored_h5ad(make_section, tmp_path):
    adata = make_section()
    adata.layers["raw"] = adata.X.copy()
    adata.X = adata.X / 3
    folder = write_patch_folder(adata, tmp_path / "f", layer="raw", patch_px=16)
    back = read_patch_folder(folder)
    assert (back.X != adata.layers["raw"]).nnz == 0
    assert back.X.dtype == np.float32
    assert "cell_type" not in back.obs
    back.write_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(patches_of(ad.read_h5ad(tmp_path / "x.h5ad"), 16), patches_of(adata, 16))


# -- the whole path ---------------------------------------------------------------------------------------------------
def test_prediction_from_files_equals_prediction_from_the_picture(tmp_path):
    train, test = simulate("small", n_sections=2, n_genes=30, seed=3)
    folders = [
        write_patch_folder(section, tmp_path / name, labels_key="cell_type", patch_px=48)
        for name, section in (("train", train), ("test", test))
    ]
    assert sorted(p.name for p in folders[0].iterdir()) == [
        "cell_types.csv",
        "gene_expression.csv",
        "metadata.json",
        "patches",
        "spatial_coordinates.csv",
        "spatial_edges.csv",
    ]
    files = [read_patch_folder(folder) for folder in folders]
    from_files = fit(files[0], **fast(labels_key="cell_type"))
    from_picture = fit(train, **fast(labels_key="cell_type"))
    assert from_files.geometry == from_picture.geometry
    results = [predict(test.copy(), from_picture, progress=False), predict(files[1], from_picture, progress=False)]
    results.append(predict(read_patch_folder(folders[1]), from_files, progress=False))
    for other in results[1:]:
        np.testing.assert_array_equal(other.layers[MEAN], results[0].layers[MEAN])
        np.testing.assert_array_equal(other.obs["hist2scrna_cell_type"], results[0].obs["hist2scrna_cell_type"])
    for name in ("gene_expression.csv", "cell_types.csv", "spatial_edges.csv"):
        (folders[1] / name).unlink()
    bare = read_patch_folder(folders[1])
    assert bare.X is None
    with pytest.raises(ValueError, match="No gene to model"):
        fit(bare, **fast())
    np.testing.assert_array_equal(predict(bare, from_picture, progress=False).layers[MEAN], results[0].layers[MEAN])


def write_by_hand(folder: Path, *, px: int = 48, n: int = 12) -> Path:
    """A folder as others write it: decimal points, numbers for cell types, metadata of their own."""
    (folder / "patches").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"spot_{i:04d}" for i in range(n)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((px, px, 3), 20 * i, dtype=np.uint8)).save(folder / "patches" / f"{name}.png")
    rows = [f"{name},{','.join(f'{v}.0' for v in rng.poisson(5, 3))}" for name in names]
    (folder / "gene_expression.csv").write_text("\n".join(["spot_id,Gene_0000,Gene_0001,Gene_0002", *rows]) + "\n")
    rows = [f"{name},{1.5 + i % 4},{2.3 + i // 4}" for i, name in enumerate(names)]
    (folder / "spatial_coordinates.csv").write_text("\n".join(["spot_id,x,y", *rows]) + "\n")
    (folder / "spatial_edges.csv").write_text("source,target\n0,1\n0,2\n1,3\n")
    rows = [f"{name},{(10, 9, 0)[i % 3]}" for i, name in enumerate(names)]
    (folder / "cell_types.csv").write_text("\n".join(["spot_id,cell_type", *rows]) + "\n")
    (folder / "metadata.json").write_text(json.dumps({"dataset": "dummy", "n_spots": n, "cell_types": ["a", "b"]}))
    return folder


def test_folder_of_others(tmp_path):
    adata = read_patch_folder(write_by_hand(tmp_path / "theirs"))
    assert adata.shape == (12, 3)
    assert list(adata.obs["cell_type"].cat.categories) == ["0", "9", "10"]
    assert list(adata.obs["cell_type"][:3]) == ["10", "9", "0"]
    assert adata.obs["library_id"].unique().tolist() == ["theirs"]
    np.testing.assert_array_equal(adata.obsm["spatial"][5], [2.5, 3.3])
    assert list(zip(*adata.obsp["spatial_connectivities"].nonzero(), strict=True)) == [(0, 1), (0, 2), (1, 3)]
    assert json.loads(adata.uns["folder_metadata"]) == {"dataset": "dummy", "cell_types": ["a", "b"]}
    assert patches_of(read_patch_folder(tmp_path / "theirs", patch_um=50.0)).mean(axis=(1, 2, 3)).tolist() == [
        20 * i for i in range(12)
    ]
    with pytest.warns(UserWarning, match="theirs.*not known: they are taken as 112 um"):
        model = fit(adata, **fast(labels_key="cell_type"))
    assert (model.geometry.um, model.geometry.scale_from) == (112.0, "argument")
    with pytest.warns(UserWarning, match="taken as 112 um"):
        predict(adata, model, progress=False)
    # What is only assumed is not written down as known.
    with pytest.warns(UserWarning, match="not known"):
        folder = write_patch_folder(adata, tmp_path / "ours")
    assert "patch_um" not in json.loads((folder / "metadata.json").read_text())


def test_rows_are_matched_by_name(tmp_path):
    folder = write_by_hand(tmp_path / "f")
    before = read_patch_folder(folder)
    for name in ("gene_expression.csv", "cell_types.csv"):
        header, *rows = (folder / name).read_text().splitlines()
        (folder / name).write_text("\r\n".join([header, *rows[::-1], "", ""]))
    after = read_patch_folder(folder)
    assert (before.X != after.X).nnz == 0
    pd.testing.assert_frame_equal(before.obs, after.obs)


def test_expression_that_is_no_count(tmp_path):
    folder = write_by_hand(tmp_path / "f")
    lines = (folder / "gene_expression.csv").read_text().splitlines()
    lines[3] = "spot_0002,5.2,0.0,12.3"
    (folder / "gene_expression.csv").write_text("\n".join(lines))
    with pytest.raises(
        ValueError, match=r"gene_expression.csv', line 4 \(spot 'spot_0002'\).*'Gene_0000', found '5.2'"
    ):
        read_patch_folder(folder)
    adata = read_patch_folder(folder, counts=False, patch_um=55)
    np.testing.assert_array_equal(adata.X[2].toarray()[0], [5.2, 0.0, 12.3])
    with pytest.raises(ValueError, match="not whole numbers"):
        fit(adata, **fast())


# -- size on the tissue -----------------------------------------------------------------------------------------------
def test_the_middle_of_wide_patches_is_taken(make_section, tmp_path):
    adata = make_section(kind="irregular")
    wide = read_patch_folder(write_patch_folder(adata, tmp_path / "f", patch_px=64, patch_um=128))
    # 128 um are 64 px of the picture, and 32 um its middle 16.
    np.testing.assert_array_equal(patches_of(wide, 16, patch_um=32), patches_of(adata, 16, patch_um=32))
    spots = spots_of(wide, library_key=None, spatial_key="spatial", patch_px=16)
    assert (spots.geometry.um, spots.geometry.scale_from) == (128, "metadata")
    with pytest.raises(ValueError, match=r"show 128 um of tissue, and 200 um are needed.*patch_um=200"):
        patches_of(wide, 16, patch_um=200)
    with pytest.raises(ValueError, match="positive number, found -1"):
        patches_of(wide, 16, patch_um=-1)
    with pytest.raises(ValueError, match=r"`patch_um` is 60.*128 um"):
        read_patch_folder(tmp_path / "f", patch_um=60)
    narrow = read_patch_folder(write_patch_folder(wide, tmp_path / "g", patch_um=32))
    np.testing.assert_array_equal(patches_of(narrow, 16), patches_of(adata, 16, patch_um=32))
    assert json.loads((tmp_path / "g" / "metadata.json").read_text())["patch_px"] == 16
    # A picture that is passed wins.
    picture = adata.uns["spatial"]["s0"]["images"]["hires"]
    np.testing.assert_array_equal(
        patches_of(wide, 16, image=picture, patch_um=100), patches_of(adata, 16, patch_um=100)
    )


def test_files_are_averaged_down_and_enlarged_smoothly(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")

    def read(px):
        source = PatchFiles([tmp_path / "p.png"], [1.0], np.zeros((1, 2)), np.zeros(1, dtype=np.int64), px)
        return source.read(np.array([0]))[0].transpose(1, 2, 0).astype(float)

    np.testing.assert_array_equal(read(12), pixels)
    blocks = pixels.reshape(4, 3, 4, 3, 3).mean(axis=(1, 3))
    assert np.abs(read(4) - blocks).max() <= 1
    # Twice as large, bilinear: pixel centers fall a quarter from those of the file.
    expected = 0.75 * pixels[3].astype(float) + 0.25 * pixels[4]
    expected = 0.75 * expected[3] + 0.25 * expected[4]
    assert np.abs(read(24)[7, 7] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P"])
def test_kinds_of_png(mode, tmp_path):
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    Image.fromarray(gray).convert(mode).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_png(tmp_path / "p.png"), np.repeat(gray[:, :, None], 3, axis=2))
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    clear.save(tmp_path / "clear.png")
    assert (read_png(tmp_path / "clear.png") == 255).all()


def test_size_is_checked_before_decoding(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"bomb.png"):
        png_side(tmp_path / "bomb.png")
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="found 8 x 8 px in mode I;16"):
        png_side(tmp_path / "deep.png")


# -- folders that do not fit ------------------------------------------------------------------------------------------
def edit(name, old, new):
    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def truncate(folder):
    file = folder / "patches" / "spot_0003.png"
    file.write_bytes(file.read_bytes()[:-20])


def replace_patch(width, height):
    return lambda folder: Image.new("RGB", (width, height)).save(folder / "patches" / "spot_0003.png")


XY, COUNTS, EDGES, TYPES = "spatial_coordinates.csv", "gene_expression.csv", "spatial_edges.csv", "cell_types.csv"
BAD = {
    "no coordinates": (lambda f: (f / XY).unlink(), FileNotFoundError, "spatial_coordinates.csv"),
    "missing patch": (
        lambda f: (f / "patches" / "spot_0003.png").unlink(),
        FileNotFoundError,
        "1 of 12 spots .*'spot_0003'",
    ),
    "truncated": (truncate, ValueError, "spot_0003.png' is truncated"),
    "no png": (
        lambda f: (f / "patches" / "spot_0003.png").write_text("hello"),
        ValueError,
        "spot_0003.png' is not a PNG",
    ),
    "not square": (replace_patch(48, 40), ValueError, "square.*found 48 x 40 px"),
    "other size": (replace_patch(40, 40), ValueError, "'spot_0003.png' 40 px"),
    "header of coordinates": (edit(XY, "spot_id,x,y", "spot_id,y,x"), ValueError, "header 'spot_id,x,y', found"),
    "spot twice": (edit(XY, "spot_0003,", "spot_0001,"), ValueError, "spot .spot_0001. is already in line 3"),
    "no number": (edit(XY, "spot_0003,4.5", "spot_0003,east"), ValueError, "line 5: .*column 'x', found 'east'"),
    "not finite": (edit(XY, "spot_0003,4.5", "spot_0003,nan"), ValueError, "line 5: .*finite"),
    "short row": (edit(XY, "spot_0003,4.5", "spot_0003"), ValueError, "line 5: expected 3 cells.*found 2"),
    "no text": (lambda f: (f / XY).write_bytes(b"spot_id,x,y\n\xff,1,2\n"), ValueError, f"{XY}'.*no CSV"),
    "empty": (lambda f: (f / XY).write_text(""), ValueError, f"{XY}' is empty"),
    "only a header": (lambda f: (f / XY).write_text("spot_id,x,y\n"), ValueError, "holds no spot"),
    "unknown spot": (edit(COUNTS, "spot_0003", "other"), ValueError, f"{COUNTS}', line 5: spot 'other' is not in"),
    "counts twice": (edit(COUNTS, "spot_0003", "spot_0001"), ValueError, "spot .spot_0001. is already in line 3"),
    "no counts": (lambda f: drop_line(f / COUNTS, 4), ValueError, "no row for 1 spots: the first is 'spot_0003'"),
    "negative": (edit(COUNTS, "spot_0003,", "spot_0003,-"), ValueError, "line 5 .*expected a count of 'Gene_0000'"),
    "not whole": (edit(COUNTS, ".0", ".5"), ValueError, "line 2 .*expected a count .*counts=False"),
    "no count": (edit(COUNTS, "spot_0003,", "spot_0003,many"), ValueError, "line 5: .*'Gene_0000', found 'many"),
    "gene twice": (edit(COUNTS, "Gene_0001", "Gene_0000"), ValueError, f"header of .*{COUNTS}.*'Gene_0000' more than"),
    "header of counts": (edit(COUNTS, "spot_id", "barcode"), ValueError, "expected the header 'spot_id', found"),
    "edge out of range": (edit(EDGES, "1,3", "1,12"), ValueError, f"{EDGES}', line 4: .*from 0 to 11.*found '1,12'"),
    "negative edge": (edit(EDGES, "1,3", "-1,3"), ValueError, "line 4: .*found '-1,3'"),
    "header of edges": (edit(EDGES, "source,target", "a,b"), ValueError, "header 'source,target', found 'a,b'"),
    "label of nobody": (edit(TYPES, "spot_0003", "other"), ValueError, f"{TYPES}', line 5: spot 'other' is not in"),
    "unreadable JSON": (lambda f: (f / "metadata.json").write_text("{"), ValueError, "metadata.json' is no JSON"),
    "JSON of a list": (lambda f: (f / "metadata.json").write_text("[]"), ValueError, "an object .*found list"),
    "size of nothing": (lambda f: (f / "metadata.json").write_text('{"patch_um": 0}'), ValueError, "'patch_um' .*0"),
    "newer": (
        lambda f: (f / "metadata.json").write_text('{"hist2scrna": {"format_version": 99}}'),
        ValueError,
        "format 99",
    ),
}


def drop_line(path, number):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:number] + lines[number + 1 :]))


@pytest.mark.parametrize("case", BAD)
def test_bad_folders(case, tmp_path):
    change, error, message = BAD[case]
    folder = write_by_hand(tmp_path / "f")
    read_patch_folder(folder)
    change(folder)
    with pytest.raises(error, match=message):
        read_patch_folder(folder)


def test_labels_of_some(tmp_path):
    folder = write_by_hand(tmp_path / "f")
    drop_line(folder / TYPES, 4)
    with pytest.warns(UserWarning, match="no row for 1 of 12 spots .the first is 'spot_0003'"):
        adata = read_patch_folder(folder)
    assert adata.obs["cell_type"].isna().to_numpy().nonzero()[0].tolist() == [3]


def test_files_that_go_away(tmp_path):
    adata = read_patch_folder(write_by_hand(tmp_path / "f"), patch_um=50)
    (tmp_path / "f" / "patches" / "spot_0003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"No patch at .*spot_0003.png"):
        patches_of(adata)
    (tmp_path / "f").rename(tmp_path / "g")
    with pytest.raises(FileNotFoundError, match=r"io.read_patch_folder where it is now"):
        patches_of(adata)
    replace_patch(48, 48)(tmp_path / "g")
    moved = read_patch_folder(tmp_path / "g", patch_um=50)
    del moved.obs["patch_file"]
    with pytest.raises(KeyError, match="patch_file"):
        patches_of(moved)


def test_files_and_pictures_do_not_mix(make_section, tmp_path):
    a, b = make_section("a"), make_section("b", seed=1)
    a = read_patch_folder(write_patch_folder(a, tmp_path / "f", patch_px=16))
    with pytest.warns(UserWarning, match="spatial_connectivities"):
        both = concat([a, b])
    with pytest.raises(ValueError, match=r"others have not: \['b'\]"):
        patches_of(both, library_key="library_id")


# -- writing ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: setattr(a, "obs_names", ["x"] * a.n_obs), ValueError, "obs_names holds 'x' more than once"),
        (lambda a: setattr(a, "obs_names", ["X", "x", *a.obs_names[2:]]), ValueError, "'X' and 'x' .*case alone"),
        (lambda a: setattr(a, "obs_names", ["a\nb", *a.obs_names[1:]]), ValueError, "cannot be printed"),
        (lambda a: setattr(a, "obs_names", ["", *a.obs_names[1:]]), ValueError, "empty"),
        (lambda a: setattr(a, "obs_names", ["/" * 90, *a.obs_names[1:]]), ValueError, "too long"),
        (lambda a: setattr(a, "var_names", ["spot_id", *a.var_names[1:]]), ValueError, "cannot be called 'spot_id'"),
        (lambda a: setattr(a, "X", a.X * 0.5), ValueError, "not whole numbers"),
        (lambda a: a.obsm.pop("spatial"), KeyError, "spatial"),
        (lambda a: a.uns.pop("spatial"), KeyError, "spatial"),
    ],
)
def test_what_cannot_be_written(change, error, message, make_section, tmp_path):
    adata = make_section()
    change(adata)
    with pytest.raises(error, match=message):
        write_patch_folder(adata, tmp_path / "f", labels_key="cell_type", patch_px=8)
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written(make_section, tmp_path, monkeypatch):
    adata = make_section()
    write_patch_folder(adata, tmp_path / "f", patch_px=8)
    before = {p.name: p.read_bytes() for p in (tmp_path / "f").glob("*.*")}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_patch_folder(adata, tmp_path / "f", patch_px=8)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("hist2scrna.io._write_patch_folder._write_counts", fail)
        with pytest.raises(OSError, match="disk full"):
            write_patch_folder(adata, tmp_path / "f", patch_px=8, overwrite=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "f").glob("*.*")} == before
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("work")
    with pytest.raises(FileExistsError, match="left as it is"):
        write_patch_folder(adata, tmp_path / "thesis", patch_px=8, overwrite=True)


def test_a_folder_can_be_written_over_itself(make_section, tmp_path):
    adata = make_section()
    folder = write_patch_folder(adata, tmp_path / "f", patch_px=16, labels_key="cell_type")
    few = read_patch_folder(folder)[:10].copy()
    write_patch_folder(few, folder, labels_key="cell_type", overwrite=True)
    back = read_patch_folder(folder)
    assert back.n_obs == 10
    assert len(list((folder / "patches").iterdir())) == 10
    np.testing.assert_array_equal(patches_of(back, 16), patches_of(adata, 16)[:10])
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_weights_of_edges_are_not_written(make_section, tmp_path):
    adata = make_section(n_spots=4)
    adata.obsp["spatial_connectivities"] = sparse.csr_matrix(np.diag([0.5, 0.5, 0.5], 1))
    with pytest.warns(UserWarning, match="weights"):
        folder = write_patch_folder(adata, tmp_path / "f", patch_px=8)
    assert (folder / "spatial_edges.csv").read_text() == "source,target\n0,1\n1,2\n2,3\n"


def test_names_of_patches():
    assert patch_layout.patch_name("AAACAAGTATCTCCCA-1") == "AAACAAGTATCTCCCA-1.png"
    assert patch_layout.patch_name("a/b\\c:é%") == "a%2Fb%5Cc%3A%C3%A9%25.png"
