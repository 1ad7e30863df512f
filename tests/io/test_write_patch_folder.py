"""A folder of patches and tables: what goes in comes out, and nothing is half written."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from builders import patches_of, spots_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from hist2scrna.io import concat, read_patch_folder, write_patch_folder

printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")


spot_names = st.lists(st.text(printable, min_size=1, max_size=12), min_size=3, max_size=5, unique_by=str.lower)


gene_names = st.lists(st.text(printable, min_size=1, max_size=8), min_size=1, max_size=4, unique=True)


@st.composite
def sections(draw):
    """A section of 3 to 5 spots with anything that a table must not lose."""
    names, genes = draw(spot_names), [g for g in draw(gene_names) if g != "spot_id"] or ["g"]
    n, shape = len(names), (len(names), len(genes))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    largest = draw(st.sampled_from([1, 300, 2**24]))
    counts = rng.integers(0, largest, shape, endpoint=True) * (rng.random(shape) < 0.6)
    counts[0, 0] = largest
    make = draw(st.sampled_from([np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]))
    kind = np.float32 if largest < 2**24 and draw(st.booleans()) else np.int64 if draw(st.booleans()) else np.float64
    edges = (rng.random((n, n)) < draw(st.sampled_from([0.0, 0.4, 1.0]))).astype(float)
    edges[0, 1] = 1.0
    edges = sparse.csr_matrix(edges)
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
