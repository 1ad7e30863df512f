from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.filters import threshold_otsu

import hist2scrna.datasets._her2st_files as FILES
from hist2scrna.datasets import her2st, her2st_counts

SECTIONS = ("C2", "C3", "C4", "C5", "C6")


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    if not (shared_data / "her2st").is_dir():
        pytest.skip("no folder 'her2st' in ../shared/data")
    return shared_data / "her2st"


@pytest.fixture(scope="module")
def adata(folder: Path) -> ad.AnnData:
    return her2st(folder)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Two made-up sections in the layout of a local folder: an image of 120 x 80 pixels, four spots, three genes."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for section, genes in {"C2": ["A", "B", "C"], "C3": ["C", "A", "D"]}.items():
        Image.fromarray(rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(folder / f"{section}.jpg")
        spots = ["3x2", "4x2", "3x3", "9x9"]
        counts = pd.DataFrame(rng.integers(100, 200, (4, 3)), index=spots, columns=genes)
        counts.iloc[2] = [0, 5, 1]
        counts.to_csv(folder / f"{section}.tsv.gz", sep="\t")
        x, y = np.array([4, 3, 3, 5]), np.array([2, 2, 3, 3])
        selection = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.1, "new_y": y - 0.1})
        selection = selection.assign(pixel_x=20.0 * x, pixel_y=21.5 * y, selected=1)
        selection.to_csv(folder / f"{section}_selection.tsv", sep="\t", index=False)
        proportions = pd.DataFrame({"T-cells": [0.2, 0.7, 0.5], "CAFs": [0.8, 0.3, 0.5]}, index=spots[:3])
        proportions.to_csv(folder / f"{section}_proportions_major.tsv", sep="\t")
    return folder


def test_matches_tables_read_by_pandas(folder: Path, adata: ad.AnnData) -> None:
    tables = {s: pd.read_csv(folder / f"{s}.tsv.gz", sep="\t", index_col=0) for s in SECTIONS}
    genes = set.intersection(*(set(table.columns) for table in tables.values()))
    assert set(adata.var_names) == genes
    assert adata.var_names.is_unique
    assert list(adata.obs["library_id"].cat.categories) == list(SECTIONS)
    for section, table in tables.items():
        part = adata[adata.obs["library_id"] == section]
        spots = pd.read_csv(folder / f"{section}_selection.tsv", sep="\t")
        spots["name"] = [f"{x}x{y}" for x, y in zip(spots.x, spots.y, strict=True)]
        truth = spots.merge(table, left_on="name", right_index=True)
        truth = truth[truth[table.columns].sum(axis=1) >= 200].set_index("name")
        names = [name.removeprefix(f"{section}_") for name in part.obs_names]
        assert sorted(names) == sorted(truth.index)
        truth = truth.loc[names]
        np.testing.assert_array_equal(part.X.toarray(), truth[part.var_names])
        np.testing.assert_array_equal(part.obsm["spatial"], truth[["pixel_x", "pixel_y"]])
        np.testing.assert_array_equal(part.obs[["array_col", "array_row"]], truth[["new_x", "new_y"]].round())
        proportions = pd.read_csv(folder / f"{section}_proportions_major.tsv", sep="\t", index_col=0).loc[names]
        assert list(part.obs["cell_type"]) == list(proportions.idxmax(axis=1))
        np.testing.assert_array_equal(part.obsm["cell_type_proportions"], proportions)
        assert list(part.obsm["cell_type_proportions"].columns) == list(proportions.columns)
    assert adata.shape == (185 + 179 + 184 + 179 + 176, 14382)
    assert adata.X.dtype == np.float32
    assert adata.X.format == "csr"
    assert adata.obs_names.is_unique


def test_sections_come_in_the_given_order(folder: Path) -> None:
    adata = her2st(folder, sections=["C5", "C3"])
    assert list(adata.obs["library_id"].cat.categories) == ["C5", "C3"]
    assert list(adata.obs["library_id"].unique()) == ["C5", "C3"]
    assert list(adata.uns["spatial"]) == ["C5", "C3"]


def on_tissue(pixels: np.ndarray, xy: np.ndarray, radius: int) -> float:
    """Fraction of spots whose window is darker than the threshold between glass and tissue."""
    gray = pixels.astype(float).mean(axis=2)
    threshold = threshold_otsu(gray)
    windows = [
        gray[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        for x, y in xy.round().astype(int)
    ]
    return float(np.mean([window.size > 0 and window.mean() < threshold for window in windows]))


@pytest.mark.parametrize("section", SECTIONS)
def test_spots_lie_on_tissue(adata: ad.AnnData, section: str) -> None:
    entry = adata.uns["spatial"][section]
    pixels, scalefactors = entry["images"]["hires"], entry["scalefactors"]
    scale = scalefactors["tissue_hires_scalef"]
    xy = adata[adata.obs["library_id"] == section].obsm["spatial"] * scale
    radius = round(scalefactors["spot_diameter_fullres"] * scale / 2)
    height, width = pixels.shape[:2]
    fraction = on_tissue(pixels, xy, radius)
    assert fraction > 0.95
    for wrong in (xy[:, ::-1], (width, 0) + xy * (-1, 1), (0, height) + xy * (1, -1)):
        assert on_tissue(pixels, wrong, radius) < fraction - 0.15


def test_default_leaves_the_full_image_in_its_file(folder: Path, adata: ad.AnnData) -> None:
    for section in SECTIONS:
        entry = adata.uns["spatial"][section]
        assert Path(entry["metadata"]["source_image_path"]) == (folder / f"{section}.jpg").resolve()
        assert max(entry["images"]["hires"].shape) == 1000
        assert entry["scalefactors"]["spot_diameter_um"] == 100.0


def test_image_scale_shrinks_the_whole_image(folder: Path, tmp_path: Path) -> None:
    adata = her2st(folder, sections=["C3"], img_scale=0.1)
    entry = adata.uns["spatial"]["C3"]
    pixels = entry["images"]["hires"]
    assert entry["scalefactors"]["tissue_hires_scalef"] == 0.1
    assert "source_image_path" not in entry["metadata"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        full = np.asarray(Image.open(folder / "C3.jpg"))
    height, width = (length // 10 for length in full.shape[:2])
    assert pixels.shape == (round(full.shape[0] / 10), round(full.shape[1] / 10), 3)
    blocks = full[: height * 10, : width * 10].reshape(height, 10, width, 10, 3).mean(axis=(1, 3))
    close = np.corrcoef(blocks.ravel(), pixels[:height, :width].ravel())[0, 1]
    shifted = np.corrcoef(blocks[1:].ravel(), pixels[: height - 1, :width].ravel())[0, 1]
    assert close > 0.99 > shifted
    assert np.abs(blocks - pixels[:height, :width]).mean() < 2
    adata.write_h5ad(tmp_path / "c3.h5ad")
    again = ad.read_h5ad(tmp_path / "c3.h5ad")
    np.testing.assert_array_equal(again.uns["spatial"]["C3"]["images"]["hires"], pixels)
    pd.testing.assert_frame_equal(again.obsm["cell_type_proportions"], adata.obsm["cell_type_proportions"])
    assert list(again.obs["cell_type"].cat.categories) == list(adata.obs["cell_type"].cat.categories)


def test_real_images_pass_without_a_warning(folder: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        her2st(folder, sections=["C2"])
        assert limit == Image.MAX_IMAGE_PIXELS
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(folder / "C2.jpg")


def test_hashes_are_those_of_the_files(folder: Path) -> None:
    for name, known in FILES.SHA256.items():
        if name.endswith(".zip"):
            continue
        kind, file = name.split("/")[1], name.split("/")[-1]
        local = folder / (f"{name.split('/')[-2]}.jpg" if kind == "ST-imgs" else file)
        local = local if local.is_file() else folder.parent / "her2st_counts" / file
        assert hashlib.sha256(local.read_bytes()).hexdigest() == known, name


def test_nearly_empty_spots_are_dropped_and_counted(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="hist2scrna"):
        adata = her2st(tiny, sections=["C2"])
    assert list(adata.obs_names) == ["C2_4x2", "C2_3x2"]
    assert (
        "Section C2: 2 spots; left out: 1 selected spots without counts, 1 with fewer than 200 counts." in caplog.text
    )
    assert her2st(tiny, sections=["C2"], min_counts=0).n_obs == 3
    with pytest.raises(ValueError, match="none with at least min_counts=100000"):
        her2st(tiny, min_counts=100000, sections=["C2"])


def test_join_of_genes(tiny: Path) -> None:
    inner = her2st(tiny, sections=["C2", "C3"])
    outer = her2st(tiny, sections=["C2", "C3"], join="outer")
    assert sorted(inner.var_names) == ["A", "C"]
    assert sorted(outer.var_names) == ["A", "B", "C", "D"]
    values = outer[outer.obs["library_id"] == "C2"].to_df()
    assert (values["D"] == 0).all()
    assert (values[["A", "B", "C"]] >= 100).all(axis=None)
    np.testing.assert_array_equal(outer[:, inner.var_names].to_df(), inner.to_df())


def test_only_selected_spots_are_kept(tiny: Path) -> None:
    file = tiny / "C2_selection.tsv"
    table = pd.read_csv(file, sep="\t")
    table.loc[table.x == 4, "selected"] = 0
    table.to_csv(file, sep="\t", index=False)
    assert list(her2st(tiny, sections=["C2"]).obs_names) == ["C2_3x2"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sections": ["C2", "A1"]}, ValueError, "out of .*'C6'.*found .*'A1'"),
        ({"sections": ["C2", "C2"]}, ValueError, "distinct"),
        ({"sections": []}, ValueError, "distinct"),
        ({"sections": "C2"}, TypeError, r"Pass \['C2'\]"),
        ({"img_scale": 0}, ValueError, "img_scale"),
        ({"img_scale": 1.5}, ValueError, "img_scale"),
        ({"join": "left"}, ValueError, "inner.*outer.*found 'left'"),
        ({"path": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"sections": ["C2", "C4"]}, FileNotFoundError, r"'C4.jpg', 'C4.tsv.gz'.*S_selection.tsv"),
    ],
)
def test_bad_arguments(tiny: Path, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        her2st(**({"path": tiny} | arguments))


def test_bad_files_are_named(tiny: Path) -> None:
    load = partial(her2st, tiny, sections=["C2"])

    def expect(file: str, content: bytes, message: str) -> None:
        whole = (tiny / file).read_bytes()
        (tiny / file).write_bytes(content)
        with pytest.raises(ValueError, match=f"{file}.*{message}"):
            load()
        (tiny / file).write_bytes(whole)

    counts = gzip.decompress((tiny / "C2.tsv.gz").read_bytes())
    expect("C2.tsv.gz", gzip.compress(counts)[:-20], "tabs")
    expect("C2.tsv.gz", b"", "tabs")
    expect("C2_selection.tsv", b"x\ty\n1\t2\n", "found .*'x', 'y'")
    expect("C2_proportions_major.tsv", b"\tCAFs\n1x1\t1.0\n", "lacks 2 spots of C2")
    expect("C2.jpg", b"no image", "cannot identify")
    expect("C2.jpg", (tiny / "C2.jpg").read_bytes()[:900], "truncated")
    for wrong in (b"0.5", b"-1"):
        fields = counts.split(b"\n")
        fields[1] = b"\t".join([*fields[1].split(b"\t")[:3], wrong])
        with pytest.raises(ValueError, match="non-negative integers in .*C2.tsv.gz"):
            (tiny / "C2.tsv.gz").write_bytes(gzip.compress(b"\n".join(fields)))
            load()


@pytest.mark.parametrize("side", [12000, 14000])
def test_oversized_image_is_refused_from_its_header(tiny: Path, side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (side, side)).save(tiny / "C2.jpg", format="PNG")
    with pytest.raises(ValueError, match=r"C2.jpg.*pixels"):
        her2st(tiny, sections=["C2"])


class CountingHandler(http.server.SimpleHTTPRequestHandler):
    requested: list[str] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The two made-up sections behind a local web server, laid out as in the authors' repository."""
    home = tmp_path / "upstream"
    names = [name for name in FILES.SHA256 if "C2" in name or "C3" in name]
    for name in names:
        section = "C2" if "C2" in name.split("/")[-1] + name.split("/")[-2] else "C3"
        suffix = {"ST-imgs": ".jpg", "ST-cnts": ".tsv.gz", "ST-spotfiles": "_selection.tsv"}[name.split("/")[1]]
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes((tiny / f"{section}{suffix}").read_bytes())
    (home / "res/ST-deconv/props").mkdir(parents=True)
    archive = "res/ST-deconv/props/major.zip"
    with zipfile.ZipFile(home / archive, "w") as bundle:
        for section in ("C2", "C3"):
            bundle.write(tiny / f"{section}_proportions_major.tsv", f"major/{section}-proportion.tsv")
    registry = {name: hashlib.sha256((home / name).read_bytes()).hexdigest() for name in [*names, archive]}

    CountingHandler.requested.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(CountingHandler, directory=str(home)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(FILES, "HOME", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(FILES, "SHA256", registry)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield home
    server.shutdown()
    server.server_close()


def test_download_gives_what_the_folder_gives(upstream: Path, tiny: Path) -> None:
    sections = ["C3", "C2"]
    local, fetched = her2st(tiny, sections=sections), her2st(sections=sections)
    pd.testing.assert_frame_equal(fetched.to_df(), local.to_df())
    pd.testing.assert_frame_equal(fetched.obs, local.obs)
    for section in sections:
        entries = [adata.uns["spatial"][section] for adata in (fetched, local)]
        np.testing.assert_array_equal(*(entry["images"]["hires"] for entry in entries))
        kept, given = (Path(entry["metadata"]["source_image_path"]) for entry in entries)
        assert "cache" in kept.parts
        assert kept.read_bytes() == given.read_bytes()
    assert len(CountingHandler.requested) == 7  # three files a section, and the archive once
    her2st(sections=sections)
    assert len(CountingHandler.requested) == 7


def test_corrupted_download_is_refused(upstream: Path) -> None:
    (upstream / "data/ST-cnts/C2.tsv.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="SHA256 hash of downloaded file .*C2.tsv.gz.* does not match"):
        her2st(sections=["C2"])
    assert not list((upstream.parent / "cache").rglob("C2.tsv.gz"))


def test_failed_download_tells_the_way_out(upstream: Path) -> None:
    (upstream / "data/ST-spotfiles/C2_selection.tsv").unlink()
    with pytest.raises(ConnectionError, match="C2_selection.tsv.*404.*pass `path=`"):
        her2st(sections=["C2"])


def test_a_section_of_another_patient_and_its_donor(folder: Path) -> None:
    both = her2st(folder, sections=["B4", "C2"])
    assert both.obs.groupby("library_id", observed=True)["donor"].unique().map(list).to_dict() == {
        "B4": ["B"],
        "C2": ["C"],
    }
    # Of 283 spots on tissue, those with 200 counts or more, as the README of the data says.
    assert (both.obs["donor"] == "B").sum() == 276


def test_counts_alone_are_the_tables(shared_data: Path) -> None:
    folder = shared_data / "her2st_counts"
    if not folder.is_dir():
        pytest.skip("no folder 'her2st_counts' in ../shared/data")
    adata = her2st_counts(folder, sections=["D1", "H2"])
    assert list(adata.obs["donor"].cat.categories) == ["D", "H"]
    assert "spatial" not in adata.uns
    for section in ("D1", "H2"):
        table = pd.read_csv(folder / f"{section}.tsv.gz", sep="\t", index_col=0)
        table = table[table.sum(axis=1) >= 200]
        part = adata[adata.obs["library_id"] == section]
        assert [name.removeprefix(f"{section}_") for name in part.obs_names] == list(table.index)
        np.testing.assert_array_equal(part.X.toarray(), table[part.var_names])


def test_counts_alone_refuse_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"D1\.tsv\.gz.*Leave `path` out"):
        her2st_counts(tmp_path, sections=["D1"])
    with pytest.raises(ValueError, match="out of .*'D1'.*found .*'C2'"):
        her2st_counts(tmp_path, sections=["C2"])
