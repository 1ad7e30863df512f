"""The main job on real tissue: fit on C3 and C4, predict C2 without its expression, go on with Squidpy and Scanpy."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
import squidpy as sq
from scipy.stats import pearsonr

from hist2scrna import datasets, tl


@pytest.fixture(scope="module")
def sections(shared_data, shared_fixtures):
    adata = datasets.her2st(shared_data / "her2st", sections=["C2", "C3", "C4"])
    panel = (shared_fixtures / "her_hvg_785.txt").read_text().split()
    return adata[:, panel].copy()


@pytest.fixture(scope="module")
def test_section(sections):
    return sections[sections.obs["library_id"] == "C2"].copy()


@pytest.fixture(scope="module")
def model(sections):
    return tl.fit(
        sections[sections.obs["library_id"] != "C2"].copy(),
        model="hist2scrna",
        preset="tiny",
        depth=1,
        patch_px=32,
        labels_key="cell_type",
        library_key="library_id",
        training={"max_epochs": 14, "lr": 1e-3},
        progress=False,
    )


@pytest.fixture(scope="module")
def predicted(model, test_section):
    picture_only = ad.AnnData(
        obs=test_section.obs[["library_id"]],
        obsm={"spatial": test_section.obsm["spatial"]},
        uns={"spatial": {"C2": test_section.uns["spatial"]["C2"]}},
    )
    assert picture_only.n_vars == 0
    return tl.predict(picture_only, model, progress=False)


def test_model_is_what_was_asked_for(model):
    assert len(model.genes) == 785
    assert model.training["sections"] == ["C3", "C4"]
    assert "Epithelial" in model.classes
    assert model.geometry.um == 150


def test_depth_is_read_off_the_tissue(predicted, test_section):
    """The image tells how many counts a spot has: so far beyond chance that swapped spots could not."""
    total = np.asarray(test_section.X.sum(axis=1)).ravel()
    found = pearsonr(np.log(total), np.log(predicted.obs["hist2scrna_library_size"])).statistic
    assert found > 0.5


def test_expression_is_predicted_above_the_mean_baseline(model, test_section):
    evaluation = tl.evaluate(test_section, model, labels_key="cell_type", progress=False)
    scores = evaluation.results["scores"]["counts"]
    assert scores["model"]["by_gene"]["pearson_mean"] > 0.1 > (scores["mean_baseline"]["by_gene"]["pearson_mean"] or 0)
    counts = evaluation.results["counts"]
    assert counts["model"]["log_likelihood"] > counts["mean_baseline"]["log_likelihood"]


def test_chains_into_squidpy_and_scanpy(predicted, tmp_path):
    gene = predicted.var_names[predicted.layers["hist2scrna_mean"].mean(axis=0).argmax()]
    sq.pl.spatial_scatter(predicted, layer="hist2scrna_mean", color=[gene, "hist2scrna_cell_type"])
    plt.savefig(tmp_path / "scatter.png")
    plt.close("all")
    assert (tmp_path / "scatter.png").stat().st_size > 20_000
    sc.pp.neighbors(predicted, use_rep="X_hist2scrna")
    sc.tl.leiden(predicted, flavor="igraph", n_iterations=2, resolution=1.0)
    assert 2 <= predicted.obs["leiden"].nunique() <= 30
    predicted.write_h5ad(tmp_path / "predicted.h5ad")
    again = ad.read_h5ad(tmp_path / "predicted.h5ad")
    assert again.uns["hist2scrna"]["model"] == "hist2scrna"
    assert set(again.obs["hist2scrna_cell_type"].cat.categories) == set(
        predicted.obs["hist2scrna_cell_type"].cat.categories
    )
