"""What predict writes goes on through Scanpy, Squidpy and AnnData as it is."""

from __future__ import annotations

import re
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib import pyplot as plt
from PIL import Image

from hist2scrna import datasets, io, keys, tl

NAMES = keys.OutputKeys()
LOG = NAMES.layer("log_normalized")

with warnings.catch_warnings():
    # Of the docstrings in it.
    warnings.simplefilter("ignore", SyntaxWarning)
    import squidpy as sq


@pytest.fixture(scope="module")
def model():
    train = io.concat(datasets.simulate("small", n_sections=2, n_spots=40, n_genes=60))
    options = {"encoder": "morphology", "labels_key": "cell_type", "training": {"augment": False}}
    return tl.fit(train, model="kernel", progress=False, **options)


@pytest.fixture(scope="module")
def written(model) -> ad.AnnData:
    """Two sections as predict leaves them; some spots of each are unlike the training tissue."""
    sections = datasets.simulate("small", n_sections=4, n_spots=40, n_genes=60, seed=1)[2:]
    for section in sections:
        # Half the tissue in the dark.
        entry = section.uns["spatial"][section.obs["library_id"].iloc[0]]
        image = np.array(entry["images"]["hires"])
        image[: len(image) // 2] //= 3
        entry["images"]["hires"] = image
    with pytest.warns(UserWarning, match="unlike the training tissue") as said:
        predicted = tl.predict(io.concat(sections), model, layers=keys.LAYERS, progress=False)
    predicted.uns["warned"] = next(str(w.message) for w in said if "unlike the training" in str(w.message))
    return predicted


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def recommended(warned: str) -> tuple[str, str, dict[str, str]]:
    """Function, color and further arguments of what the warning says to call."""
    shown = r"squidpy\.pl\.(\w+)\(adata, color='(\w+)', (library_key=\.\.\., )?shape=None\)"
    command = re.search(shown, warned)
    assert command is not None
    return command[1], command[2], {"library_key": "library_id"} if command[3] else {}


def test_what_the_warning_recommends_draws_each_section(written) -> None:
    function, color, more = recommended(written.uns["warned"])
    getattr(sq.pl, function)(written, color=color, shape=None, **more)
    assert len([ax for ax in plt.gcf().axes if ax.get_title()]) == written.obs["library_id"].nunique() > 1


def test_what_the_warning_recommends_works_where_the_image_is_a_file_too(model, written, tmp_path) -> None:
    in_files = written.copy()
    for name, entry in in_files.uns["spatial"].items():
        Image.fromarray(entry["images"]["hires"]).save(tmp_path / f"{name}.png")
        scale = entry["scalefactors"]["tissue_hires_scalef"]
        assert scale == 1
        entry["images"], entry["metadata"] = {}, {"source_image_path": str(tmp_path / f"{name}.png")}
        del entry["scalefactors"]["tissue_hires_scalef"]
    with pytest.warns(UserWarning, match="unlike the training tissue") as said:
        tl.predict(in_files, model, progress=False)
    function, color, more = recommended(next(str(w.message) for w in said if "unlike the training" in str(w.message)))
    getattr(sq.pl, function)(in_files, color=color, shape=None, **more)
    assert len(plt.gcf().axes) > 0


def written_columns() -> list[str]:
    columns = (NAMES.cell_type, NAMES.cell_type_confidence, NAMES.library_size, NAMES.tissue_distance)
    return [*columns, NAMES.unlike_training]


def test_every_column_of_obs_is_one_of_these(written) -> None:
    assert {c for c in written.obs if c.startswith(NAMES.key)} == set(written_columns())
    assert set(written.obs[NAMES.unlike_training].unique()) == set(keys.TISSUE)


def test_only_categories_that_occur_are_written(model, written) -> None:
    last = written.obs[NAMES.cell_type].cat.categories[-1]
    without = ad.AnnData(
        obs=written.obs[["library_id"]], obsm={"spatial": written.obsm["spatial"]}, uns=written.uns
    )[written.obs[NAMES.cell_type] != last].copy()  # fmt: skip
    without.uns["spatial"] = written.uns["spatial"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        out = tl.predict(without, model, progress=False)
    assert last in model.classes
    assert last in out.obsm[NAMES.cell_type_probability]
    assert last not in out.obs[NAMES.cell_type].cat.categories


@pytest.mark.parametrize("slot", [LOG, NAMES.embedding])
def test_neighbors_and_clusters(written, slot) -> None:
    adata = ad.AnnData(written.layers[LOG], obs=written.obs) if slot == LOG else written.copy()
    sc.pp.neighbors(adata, use_rep="X" if slot == LOG else slot, n_neighbors=8)
    pytest.importorskip("leidenalg")
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    assert adata.obs["leiden"].nunique() > 1


@pytest.mark.parametrize("column", [NAMES.cell_type, NAMES.unlike_training])
def test_ranked_genes_of_each_group(written, column) -> None:
    adata = written.copy()
    sc.tl.rank_genes_groups(adata, column, layer=LOG, method="t-test", use_raw=False)
    for group in adata.obs[column].cat.categories:
        table = sc.get.rank_genes_groups_df(adata, group)
        assert len(table) == adata.n_vars and table["scores"].notna().all()


@pytest.mark.parametrize("column", written_columns())
def test_columns_are_drawn_on_the_tissue(written, column) -> None:
    section = written[written.obs["library_id"] == "section_2"].copy()
    axes = sq.pl.spatial_scatter(section, color=column, library_id=["section_2"], img_res_key="hires", return_ax=True)
    assert axes.get_title() == column
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        (ax,) = sc.pl.spatial(section, color=column, library_id="section_2", img_key="hires", show=False)
    assert ax.get_title() == column
    if column == NAMES.unlike_training:
        assert ax.get_legend() is not None
        assert list(section.uns[NAMES.unlike_training_colors]) == list(written.uns[NAMES.unlike_training_colors])


def test_sections_are_drawn_side_by_side(written) -> None:
    axes = sq.pl.spatial_scatter(
        written, color=NAMES.unlike_training, library_key="library_id", library_id=["section_2", "section_3"],
        return_ax=True,
    )  # fmt: skip
    assert len(axes) == 2


@pytest.mark.parametrize("column", [NAMES.cell_type, NAMES.unlike_training])
def test_neighborhood_enrichment(written, column) -> None:
    adata = written.copy()
    sq.gr.spatial_neighbors_knn(adata, n_neighs=6, library_key="library_id")
    sq.gr.centrality_scores(adata, cluster_key=column, show_progress_bar=False)
    sq.gr.nhood_enrichment(adata, cluster_key=column, seed=0, show_progress_bar=False, n_perms=20)
    scores = adata.uns[f"{column}_nhood_enrichment"]["zscore"]
    assert scores.shape == (adata.obs[column].nunique(),) * 2 and np.isfinite(scores).all()


@pytest.mark.parametrize("layer", [NAMES.layer(name) for name in keys.LAYERS])
def test_spatial_autocorrelation_of_every_layer(written, layer) -> None:
    adata = written.copy()
    sq.gr.spatial_neighbors_knn(adata, n_neighs=6, library_key="library_id")
    sq.gr.spatial_autocorr(adata, mode="moran", layer=layer, genes=list(adata.var_names[:5]), n_perms=None)
    assert len(adata.uns["moranI"]) == 5


def test_joined_again(written) -> None:
    parts = [written[written.obs["library_id"] == name].copy() for name in ("section_2", "section_3")]
    joined = ad.concat(parts, merge="same", uns_merge="same")
    assert list(joined.obs[NAMES.unlike_training].cat.categories) == list(keys.TISSUE)
    assert list(joined.uns[NAMES.unlike_training_colors]) == list(written.uns[NAMES.unlike_training_colors])
    np.testing.assert_array_equal(joined.obsm[NAMES.embedding], written.obsm[NAMES.embedding])


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_written_and_read(written, tmp_path, suffix) -> None:
    path = tmp_path / f"p.{suffix}"
    if suffix == "h5ad":
        written.write_h5ad(path)
        again = ad.read_h5ad(path)
    else:
        written.write_zarr(path)
        again = ad.read_zarr(path)
    pd.testing.assert_frame_equal(again.obs, written.obs)
    for name, layer in written.layers.items():
        np.testing.assert_array_equal(again.layers[name], layer)
    assert again.uns[NAMES.parameters]["model"] == "kernel"
