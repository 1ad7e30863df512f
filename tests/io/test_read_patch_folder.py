"""A folder of patches and tables, of ours and of others: what does not fit is refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import fast, patches_of
from PIL import Image

from hist2scrna.datasets import simulate
from hist2scrna.io import read_patch_folder, write_patch_folder
from hist2scrna.tl import fit, predict

MEAN = "hist2scrna_mean"


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
