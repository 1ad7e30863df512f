"""How expression is arranged, in evaluations: Moran's I over neighbors that are built, and Leiden clusters."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from hist2scrna import keys, metrics
from hist2scrna.evaluation import structure
from hist2scrna.tl import evaluate

NAMES = keys.OutputKeys()
N_GENES = 20


def tissue(name: str = "s0", n_spots: int = 120, seed: int = 0) -> ad.AnnData:
    """Three bands of tissue on a square lattice, each with genes of its own; the prediction is their mean."""
    rng = np.random.default_rng(seed)
    xy = np.stack([np.arange(n_spots) % 12, np.arange(n_spots) // 12], axis=1).astype(float)
    band = np.minimum((xy[:, 0] // 4).astype(int), 2)
    rate = np.random.default_rng(7).gamma(1.0, 6.0, (3, N_GENES))
    mean = rate[band]
    return ad.AnnData(
        sparse.csr_matrix((rng.poisson(mean) + np.eye(1, N_GENES)).astype(np.float32)),
        obs=pd.DataFrame(
            {"library_id": pd.Categorical([name] * n_spots), "band": pd.Categorical(np.array(["x", "y", "z"])[band])},
            index=[f"{name}_{i}" for i in range(n_spots)],
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]),
        obsm={"spatial": xy * 100},
        layers={NAMES.layer("mean"): mean * rng.gamma(200, 1 / 200, mean.shape)},
        uns={NAMES.parameters: {"likelihood": "poisson"}},
    )


@pytest.fixture
def two() -> ad.AnnData:
    both = ad.concat([tissue("s0"), tissue("s1", 96, 1)], uns_merge="first")
    # Both sections lie at the same place; one spot has no counts.
    counts = both.X.toarray()
    counts[5] = 0
    both.X = sparse.csr_matrix(counts)
    return both[np.random.default_rng(0).permutation(both.n_obs)].copy()


def test_neighbors_are_built_section_by_section(two, expected_log) -> None:
    import squidpy as sq

    found = evaluate(two, progress=False)
    assert "Moran's I" not in found.results["not_scored"]
    assert found.results["spatial"]["neighbors"] == "square"
    assert keys.CONNECTIVITIES not in two.obsp
    expected = {"truth": [], "prediction": [], "depth": []}
    for name in ("s0", "s1"):
        part = two[(two.obs["library_id"] == name) & (np.asarray(two.X.sum(axis=1)).ravel() > 0)].copy()
        sq.gr.spatial_neighbors_grid(part, n_neighs=4)
        total = part.X.toarray().sum(axis=1)
        mean = part.layers[NAMES.layer("mean")]
        tables = {
            "truth": metrics.log_normalize(part.X.toarray()),
            "prediction": expected_log(1e4 / mean.sum(axis=1, keepdims=True), mean),
            "depth": np.log(total)[:, None],
        }
        for who, values in tables.items():
            table = ad.AnnData(values.astype(np.float64), obsp=dict(part.obsp), uns=dict(part.uns))
            sq.gr.spatial_autocorr(table, mode="moran", n_perms=None, show_progress_bar=False)
            expected[who].append(table.uns["moranI"].loc[table.var_names, "I"].to_numpy())
    np.testing.assert_allclose(found.genes["morans_i"], np.mean(expected["truth"], axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.genes["morans_i_prediction"], np.mean(expected["prediction"], axis=0), rtol=1e-6)
    spatial = found.results["spatial"]
    assert spatial["morans_i_truth"] == pytest.approx(np.mean(expected["truth"]))
    assert spatial["morans_i_depth_baseline"] == pytest.approx(np.mean(expected["depth"]))
    agreement = [np.corrcoef(t, p)[0, 1] for t, p in zip(expected["truth"], expected["prediction"], strict=True)]
    assert spatial["morans_i_pearson"] == pytest.approx(np.mean(agreement))
    assert "Moran's I, Pearson over genes" in str(found)


def test_without_coordinates_the_reason_is_said(two) -> None:
    broken = two.copy()
    broken.obsm["spatial"][3, 0] = np.nan
    assert "obsm['spatial']" in evaluate(broken, progress=False).results["not_scored"]["Moran's I"]
    del two.obsm["spatial"]
    found = evaluate(two, progress=False)
    assert "nor coordinates in adata.obsm['spatial']" in found.results["not_scored"]["Moran's I"]
    assert found.results["spatial"] == {}
    assert "morans_i" not in found.genes


def scanpy_clusters(values: np.ndarray) -> np.ndarray:
    spots = ad.AnnData(values.astype(np.float32))
    sc.pp.normalize_total(spots, target_sum=1e4)
    sc.pp.log1p(spots)
    sc.pp.pca(spots, n_comps=N_GENES - 1, svd_solver="full")
    sc.pp.neighbors(spots)
    sc.tl.leiden(spots, flavor="igraph", n_iterations=2, directed=False)
    return spots.obs["leiden"].to_numpy()


def test_clusters_are_those_of_scanpy() -> None:
    adata = tissue()
    found = evaluate(adata, labels_key="band", progress=False).results["clusters"]
    truth = scanpy_clusters(adata.X.toarray())
    prediction = scanpy_clusters(adata.layers[NAMES.layer("mean")])
    assert found["model"]["ari_truth"] == pytest.approx(adjusted_rand_score(truth, prediction))
    assert found["model"]["nmi_truth"] == pytest.approx(normalized_mutual_info_score(truth, prediction))
    assert found["truth"]["ari_labels"] == pytest.approx(adjusted_rand_score(adata.obs["band"], truth))
    assert found["model"]["ari_labels"] == pytest.approx(adjusted_rand_score(adata.obs["band"], prediction))
    assert found["model"]["n_clusters"] == len(set(prediction))
    assert found["resolution"] == 1
    # Nothing but depth, and nothing at all.
    assert found["depth_baseline"]["ari_labels"] < 0.3 < found["model"]["ari_labels"]
    assert found["mean_baseline"] == {"n_clusters": 1, "ari_truth": 0, "nmi_truth": 0, "ari_labels": 0, "nmi_labels": 0}


def test_clusters_are_compared_within_sections(two) -> None:
    whole = evaluate(two, progress=False).results["clusters"]
    parts = []
    for name in ("s0", "s1"):
        part = evaluate(two[two.obs["library_id"] == name].copy(), progress=False)
        parts.append(part.results["clusters"]["model"]["nmi_truth"])
    assert whole["n_sections"] == 2
    assert whole["n_spots"] == two.n_obs - 1
    assert whole["model"]["nmi_truth"] == pytest.approx(np.mean(parts), abs=0.2)
    assert "ari_labels" not in whole["model"]


def test_a_perfect_prediction_has_the_clusters_of_the_truth() -> None:
    adata = tissue()
    adata.layers[NAMES.layer("mean")] = adata.X.toarray()
    adata.layers[NAMES.layer("log_normalized")] = metrics.log_normalize(adata.X.toarray())
    adata.obs.loc[adata.obs_names[:7], "band"] = np.nan
    found = evaluate(adata, labels_key="band", progress=False)
    scores = found.results["clusters"]
    assert (scores["model"]["ari_truth"], scores["model"]["nmi_truth"]) == pytest.approx((1, 1), rel=1e-12)
    assert scores["model"]["ari_labels"] == scores["truth"]["ari_labels"]
    for said in (
        "ARI with clusters of the truth",
        "ARI with labels",
        "Clusters: Leiden, resolution 1, at most 19 principal",
    ):
        assert said in str(found)
    frame = found.to_frame().set_index(["section", "part", "scale", "predictor", "metric"])["value"]
    assert frame["all", "clusters", "log_normalized", "model", "nmi_truth"] == pytest.approx(1, rel=1e-12)


def test_clusters_of_large_tables_are_of_some_spots_and_genes(monkeypatch) -> None:
    monkeypatch.setattr(structure, "MOST_SPOTS", 60)
    monkeypatch.setattr(structure, "MOST_GENES", 8)
    found = evaluate(tissue(), progress=False).results
    assert (found["clusters"]["n_spots"], found["clusters"]["n_genes"]) == (60, 8)
    assert found["clusters"]["n_components"] == 7
    assert any("60 spots, 8 genes" in note for note in found["notes"])


def test_few_spots_make_no_clusters() -> None:
    found = evaluate(tissue(n_spots=24), progress=False).results
    assert found["clusters"] == {}
    assert "30 spots in a section" in found["not_scored"]["clusters"]
