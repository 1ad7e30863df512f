"""What an evaluation keeps for its plots, and that they draw it."""

from __future__ import annotations

import base64
import io
import json
import warnings
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.collections import EllipseCollection, LineCollection, PathCollection
from PIL import Image

from hist2scrna import keys, metrics, pl
from hist2scrna.evaluation import read_tissue
from hist2scrna.evaluation.plot_data import extreme_genes, scatter_points
from hist2scrna.evaluation.predictors import Expression, Sections
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.tl import evaluate

NAMES = keys.OutputKeys()
N_GENES, GENES_DRAWN = 12, 8
PLOTS = [
    "scatter",
    "gene_correlation",
    "expression_levels",
    "zero_inflation",
    "confusion_matrix",
    "reliability",
    "calibration",
    "ranked_genes",
]
N_AXES = {"calibration": 2, "ranked_genes": 2 * GENES_DRAWN}


@pytest.fixture(autouse=True)
def close_figures():
    mpl.use("Agg")
    yield
    plt.close("all")


def predict(adata: AnnData, seed: int = 0) -> AnnData:
    """Write a prediction that is right to some degree, by gene more or less."""
    rng = np.random.default_rng(seed)
    noise = np.linspace(0.05, 2, adata.n_vars)
    mu = (adata.X.toarray() + 0.5) ** 0.5 * np.exp(noise * rng.normal(size=adata.shape))
    adata.layers[NAMES.layer("mean")] = (0.9 * mu).astype(np.float32)
    adata.layers[NAMES.layer("dispersion")] = np.full(adata.shape, 2.0, dtype=np.float32)
    adata.layers[NAMES.layer("dropout")] = np.full(adata.shape, 0.1, dtype=np.float32)
    other = adata.obs["cell_type"].astype(str).map({"stroma": "tumor", "tumor": "stroma"})
    wrong = rng.random(adata.n_obs) < 0.3
    adata.obs[NAMES.cell_type] = pd.Categorical(np.where(wrong, other, adata.obs["cell_type"].astype(str)))
    adata.obs[NAMES.cell_type_confidence] = rng.uniform(0.5, 1, adata.n_obs)
    adata.uns[NAMES.parameters] = {"model": "made up", "likelihood": "zinb", "scale": "counts"}
    return adata


def run(adata: AnnData, **kwargs: Any) -> Evaluation:
    return evaluate(adata, progress=False, **kwargs)


@pytest.fixture(scope="module")
def slide(make_section) -> AnnData:
    return predict(make_section(n_spots=60, seed=3))


@pytest.fixture(scope="module")
def found(slide) -> Evaluation:
    return run(slide, labels_key="cell_type")


@pytest.fixture(scope="module")
def logs(slide, expected_log) -> dict[str, np.ndarray]:
    """Measured and predicted expression on the scale of the headline, `(spots, genes)`."""
    mean = slide.layers[NAMES.layer("mean")].astype(float)
    return {
        "truth": np.asarray(metrics.log_normalize(slide.X.toarray())),
        "prediction": expected_log(1e4 / mean.sum(axis=1, keepdims=True), mean / 0.9, 2.0, 0.1),
    }


def decode(picture: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["jpeg"]))))


# -- what is kept -----------------------------------------------------------------------------------------------------
def test_points_are_all_pairs_of_a_small_table(found, logs) -> None:
    points = found.plot_data["scatter"]
    for name, table in logs.items():
        np.testing.assert_allclose(points[name], table.ravel(), atol=5.1e-5)


def test_points_of_a_larger_table_are_drawn_at_random() -> None:
    rng = np.random.default_rng(0)
    sections = Sections(("s",), np.zeros(300, dtype=np.int64))
    # Each value is met once, so that a point tells its pair.
    tables = [rng.permutation(300 * 40).reshape(300, 40) + 1.0 for _ in range(2)]
    truth, model = (Expression(table, sections) for table in tables)
    first, again, other = (scatter_points(truth, model, seed, 5000) for seed in (0, 0, 1))
    assert {name: len(values) for name, values in first.items()} == {"truth": 5000, "prediction": 5000}
    np.testing.assert_array_equal(first["truth"], again["truth"])
    assert not np.array_equal(first["truth"], other["truth"])
    logs = [np.round(metrics.log_normalize(table), 4) for table in tables]
    pairs = set(zip(*(table.ravel().tolist() for table in logs), strict=True))
    drawn = set(zip(first["truth"].tolist(), first["prediction"].tolist(), strict=True))
    assert drawn <= pairs
    assert len(drawn) > 4900
    np.testing.assert_allclose(first["truth"].mean(), logs[0].mean(), atol=4 * logs[0].std() / np.sqrt(5000))


def test_best_and_worst_genes() -> None:
    pearson = pd.Series([0.1, np.nan, 0.9, -0.2, 0.5, 0.3], index=list("abcdef"))
    assert extreme_genes(pearson, 2) == (["c", "e"], ["d", "a"])
    assert extreme_genes(pearson, 4) == (["c", "e", "f"], ["d", "a"])
    assert extreme_genes(pearson[["b"]], 4) == ([], [])
    assert extreme_genes(pearson[["a"]], 4) == (["a"], [])


def test_maps_hold_the_expression_of_spots_where_they_are(found, slide, logs) -> None:
    maps = found.plot_data["maps"]
    pearson = found.genes["pearson"]
    assert maps["best"] == pearson.nlargest(4).index.tolist()
    assert maps["worst"] == pearson.nsmallest(4).index.tolist()
    kept = maps["sections"]["s0"]
    np.testing.assert_allclose(kept["xy"], slide.obsm["spatial"], atol=0.051)
    assert (kept["n_spots"], kept["spot_diameter"]) == (60, 36.0)
    for name, table in logs.items():
        assert list(kept[name]) == maps["best"] + maps["worst"]
        for gene, values in kept[name].items():
            np.testing.assert_allclose(values, table[:, slide.var_names.get_loc(gene)], atol=5.1e-5)


def test_picture_shows_the_tissue_under_the_spots(found, slide) -> None:
    kept = found.plot_data["maps"]["sections"]["s0"]
    pixels, (left, right, bottom, top) = decode(kept["image"]).astype(int), kept["image"]["extent"]
    assert max(pixels.shape) <= 600
    assert pixels.shape[1] == pytest.approx((right - left) * kept["image"]["scale"], abs=1)
    assert pixels.shape[0] == pytest.approx((bottom - top) * kept["image"]["scale"], abs=1)
    low, high = np.min(kept["xy"], axis=0) - 36, np.max(kept["xy"], axis=0) + 36
    assert left <= low[0] + 1
    assert right >= high[0] - 1
    assert top <= low[1] + 1
    assert bottom >= high[1] - 1
    colors = {"tumor": (90, 40, 140), "stroma": (230, 150, 190)}
    for (x, y), label in zip(kept["xy"], slide.obs["cell_type"], strict=True):
        column = int((x - left) / (right - left) * pixels.shape[1])
        row = int((y - top) / (bottom - top) * pixels.shape[0])
        np.testing.assert_allclose(pixels[row, column], colors[label], atol=30)


def test_maps_of_mixed_sections_leave_out_empty_spots(make_section) -> None:
    both = predict(ad.concat([make_section(name, seed=i) for i, name in enumerate("ba")], uns_merge="unique"))
    counts = both.X.toarray()
    counts[3] = 0
    both.X = counts
    both = both[np.random.default_rng(0).permutation(both.n_obs)].copy()
    maps = run(both).plot_data["maps"]
    gene = maps["best"][0]
    truth = np.asarray(metrics.log_normalize(both.X))[:, both.var_names.get_loc(gene)]
    total, section = both.X.sum(axis=1), both.obs["library_id"].to_numpy()
    for name, n_spots in (("a", 40), ("b", 39)):
        kept = maps["sections"][name]
        here = (section == name) & (total > 0)
        assert len(kept["xy"]) == here.sum() == n_spots
        np.testing.assert_allclose(kept["xy"], both.obsm["spatial"][here], atol=0.051)
        np.testing.assert_allclose(kept["truth"][gene], truth[here], atol=5.1e-5)


def test_picture_is_small_and_of_the_smallest_image_that_will_do(slide) -> None:
    large = slide.copy()
    large.obsm["spatial"] = large.obsm["spatial"] * 10
    entry = large.uns["spatial"]["s0"]
    height, width = entry["images"]["hires"].shape[:2]
    red, blue = np.array([200, 0, 0], dtype=np.uint8), np.array([0, 0, 200], dtype=np.uint8)
    entry["images"] = {
        "hires": np.broadcast_to(red, (height * 5, width * 5, 3)),
        "lowres": np.broadcast_to(blue, (height * 2, width * 2, 3)),
    }
    entry["scalefactors"] |= {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.2}
    picture = run(large).plot_data["maps"]["sections"]["s0"]["image"]
    assert 500 < max(decode(picture).shape) <= 600
    assert decode(picture)[:, :, 2].min() > 150
    # A file that is not there is no reason to warn: the numbers need no picture.
    entry["metadata"]["source_image_path"] = "gone.jpg"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(large).plot_data["maps"]["sections"]["s0"]["image"] is not None
        entry["images"] = {}
        assert run(large).plot_data["maps"]["sections"]["s0"]["image"] is None


def test_without_slide_or_coordinates(slide) -> None:
    bare = slide.copy()
    del bare.uns["spatial"]
    kept = run(bare).plot_data["maps"]["sections"]["s0"]
    assert kept["image"] is None
    # As wide as the distance to the nearest spot.
    assert kept["spot_diameter"] == pytest.approx(50, abs=0.1)
    assert not pl.ranked_genes(run(bare))[0, 0].get_images()
    del bare.obsm["spatial"]
    with pytest.raises(ValueError, match=r"no maps: the spots had no coordinates.*adata.obsm\['spatial'\]"):
        pl.ranked_genes(run(bare))


def test_two_sections_and_a_few_thousand_spots_are_kept(make_section, monkeypatch) -> None:
    monkeypatch.setattr(read_tissue, "MOST_SPOTS", 25)
    parts = [make_section(name, seed=i) for i, name in enumerate("abc")]
    several = predict(ad.concat(parts, uns_merge="unique"))
    found = run(several)
    sections = found.plot_data["maps"]["sections"]
    assert list(sections) == ["a", "b"]
    drawn = sections["b"]
    assert (drawn["n_spots"], len(drawn["xy"])) == (40, 25)
    place = {tuple(np.round(xy, 1)): i for i, xy in enumerate(parts[1].obsm["spatial"])}
    rows = [place[tuple(xy)] for xy in drawn["xy"]]
    assert len(set(rows)) == 25
    gene = found.plot_data["maps"]["best"][0]
    truth = np.asarray(metrics.log_normalize(parts[1].X.toarray()))[rows, int(gene[1:])]
    np.testing.assert_allclose(drawn["truth"][gene], truth, atol=5.1e-5)
    axes = pl.ranked_genes(found, section="b")
    assert axes[0, 0].get_figure().get_suptitle() == "b"
    assert f"mean r = {found.genes.loc[gene, 'pearson']:.2f}" in axes[0, 1].get_title()
    dots = ellipses(axes[0, 0])
    np.testing.assert_allclose(dots.get_array(), drawn["truth"][gene])
    with pytest.raises(KeyError, match=r"Section 'c' is not among those whose maps are kept: \['a', 'b'\]"):
        pl.ranked_genes(found, section="c")


def test_reliability_bins_give_the_calibration_error(found, slide) -> None:
    bins = pd.DataFrame({k: found.plot_data["reliability"][k] for k in ("n", "confidence", "accuracy")}, dtype=float)
    assert bins["n"].sum() == slide.n_obs
    held = bins[bins["n"] > 0]
    error = (held["n"] * (held["confidence"] - held["accuracy"]).abs()).sum() / slide.n_obs
    assert error == pytest.approx(found.results["cell_types"]["expected_calibration_error"])
    assert bins["accuracy"].isna().tolist() == (bins["n"] == 0).tolist()
    assert "reliability" not in run(slide).plot_data


def test_json_keeps_plot_data_exactly(found, tmp_path) -> None:
    text = found.to_json(tmp_path / "evaluation.json")
    assert json.loads(text)["plot_data"] == found.plot_data
    back = Evaluation.from_json(tmp_path / "evaluation.json")
    assert back.plot_data == found.plot_data
    assert back.to_json() == text


def test_plot_data_depend_on_the_seed_alone(found, slide) -> None:
    assert run(slide, labels_key="cell_type").plot_data == found.plot_data


# -- what is drawn ----------------------------------------------------------------------------------------------------
def ellipses(ax) -> EllipseCollection:
    (dots,) = [c for c in ax.collections if isinstance(c, EllipseCollection)]
    return dots


def lines(ax) -> dict[str, np.ndarray]:
    return {str(line.get_label()): line.get_xydata() for line in ax.get_lines()}


def steps(ax) -> list[np.ndarray]:
    """Heights of the outlines of histograms."""
    return [patch.get_path().vertices[1:-1:2, 1] for patch in ax.patches if isinstance(patch, mpl.patches.Polygon)]


def test_scatter(found) -> None:
    ax = pl.scatter(found)
    (dots,) = [c for c in ax.collections if isinstance(c, PathCollection)]
    points = np.column_stack([found.plot_data["scatter"][name] for name in ("truth", "prediction")])
    drawn = np.asarray(dots.get_offsets())
    np.testing.assert_array_equal(drawn[np.lexsort(drawn.T)], points[np.lexsort(points.T)])
    # The densest are drawn last, over the others.
    assert (np.diff(dots.get_array()) >= 0).all()
    (diagonal,) = ax.get_lines()
    np.testing.assert_array_equal(*diagonal.get_data())
    whole = found.results["scores"]["log_normalized"]["model"]["overall"]
    assert f"model: R2 = {whole['r2']:.3f}, Pearson = {whole['pearson']:.3f}" in ax.get_title()


def test_gene_correlation(found) -> None:
    ax = pl.gene_correlation(found)
    head = found.headline
    positions = {label.rsplit(" ", 1)[0]: xy[0, 0] for label, xy in lines(ax).items()}
    assert positions == {
        "mean baseline, mean": head["mean_baseline"],
        "depth baseline, mean": head["depth_baseline"],
        "model, mean": head["pearson"],
        "noise ceiling, mean": head["noise_ceiling"],
    }
    bars = [patch for patch in ax.patches if isinstance(patch, mpl.patches.Rectangle)]
    edges = np.array([bar.get_x() for bar in bars] + [bars[-1].get_x() + bars[-1].get_width()])
    expected, _ = np.histogram(found.genes["pearson"], edges)
    np.testing.assert_array_equal([bar.get_height() for bar in bars], expected)
    assert expected.sum() == N_GENES
    for outline, column in zip(steps(ax), ("depth_baseline_pearson", "noise_ceiling"), strict=True):
        assert outline.max() == np.histogram(found.genes[column], edges)[0].max()


@pytest.mark.parametrize("metric", ["pearson", "spearman", "depth_partial", "mse", "mae"])
def test_expression_levels(found, metric) -> None:
    ax = pl.expression_levels(found, metric=metric)
    levels = found.results["levels"]
    for container, predictor in zip(ax.containers, ("model", "mean_baseline", "depth_baseline"), strict=True):
        expected = [levels[level][predictor][f"{metric}_mean"] for level in ("low", "medium", "high")]
        np.testing.assert_allclose([bar.get_height() for bar in container], expected)
    ceilings = [c for c in ax.collections if isinstance(c, LineCollection)]
    if metric == "pearson":
        heights = [segment[0, 1] for segment in ceilings[0].get_segments()]
        np.testing.assert_allclose(heights, [levels[level]["noise_ceiling"] for level in ("low", "medium", "high")])
    else:
        assert ceilings == []
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [f"{n}\n4 genes" for n in ("low", "medium", "high")]
    # Without a model, tertiles are those of the scored spots.
    assert "scored spots" in ax.get_xlabel()


def test_true_means_are_drawn_once(slide) -> None:
    simulated = slide.copy()
    simulated.layers[keys.TRUE_MEAN] = simulated.layers[NAMES.layer("mean")] + 0.5
    found = run(simulated)
    labels = [c.get_label() for c in pl.expression_levels(found).containers]
    assert labels == ["model", "mean baseline", "depth baseline"]
    assert pl.expression_levels(found, metric="mse").containers[-1].get_label() == "true means"


def test_zero_inflation(found, slide) -> None:
    ax = pl.zero_inflation(found)
    drawn = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])
    mu, theta = slide.layers[NAMES.layer("mean")].astype(float) / 0.9, 2.0
    p_zero = (0.1 + 0.9 * (theta / (theta + mu)) ** theta).mean(axis=0)
    expected = np.column_stack([(slide.X.toarray() == 0).mean(axis=0), p_zero])
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)], rtol=1e-4, atol=1e-6)
    assert f"{(slide.X.toarray() == 0).mean():.1%} observed, {p_zero.mean():.1%} predicted" in ax.get_title()


def test_calibration(found) -> None:
    axes = pl.calibration(found)
    assert axes.shape == (2,)
    drawn = lines(axes[0])
    for name, label in (("model", "model"), ("mean_baseline", "mean baseline"), ("depth_baseline", "depth baseline")):
        coverage = found.results["counts"][name]["coverage"]
        np.testing.assert_allclose(drawn[label], [[float(k), 100 * v] for k, v in coverage.items()])
    np.testing.assert_array_equal(drawn["calibrated"][:, 0], drawn["calibrated"][:, 1])
    (bars,) = axes[1].containers
    pit = found.results["counts"]["model"]["pit"]
    np.testing.assert_allclose([bar.get_height() / 20 for bar in bars], pit)
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
    outlines = [p.get_data().values / 20 for p in axes[1].patches if isinstance(p, mpl.patches.StepPatch)]
    for outline, name in zip(outlines, ("mean_baseline", "depth_baseline"), strict=True):
        np.testing.assert_allclose(outline, found.results["counts"][name]["pit"])
    # All of it can be seen.
    low, high = axes[0].get_ylim()
    assert all(low < y < high for name, xy in drawn.items() if name != "calibrated" for y in xy[:, 1])


def test_confusion_matrix(found, slide) -> None:
    ax = pl.confusion_matrix(found)
    table = pd.crosstab(slide.obs["cell_type"].astype(str), slide.obs[NAMES.cell_type].astype(str)).to_numpy()
    (image,) = ax.get_images()
    np.testing.assert_allclose(image.get_array(), table / table.sum(axis=1, keepdims=True))
    assert [int(text.get_text()) for text in ax.texts] == table.ravel().tolist()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["stroma", "tumor"]
    assert f"accuracy {np.trace(table) / table.sum():.1%}" in ax.get_title()


def test_reliability(found) -> None:
    ax = pl.reliability(found)
    bins = found.plot_data["reliability"]
    held = [i for i, n in enumerate(bins["n"]) if n]
    (bars,) = ax.containers
    assert [bar.get_height() for bar in bars] == [bins["accuracy"][i] for i in held]
    np.testing.assert_allclose([bar.get_x() for bar in bars], [bins["edges"][i] for i in held])
    np.testing.assert_allclose(lines(ax)["mean confidence"][:, 1], [bins["confidence"][i] for i in held])
    assert [int(text.get_text()) for text in ax.texts] == [bins["n"][i] for i in held]


def test_ranked_genes(found) -> None:
    axes = pl.ranked_genes(found)
    maps = found.plot_data["maps"]
    kept = maps["sections"]["s0"]
    assert axes.shape == (GENES_DRAWN, 2)
    for pair, gene in zip(axes, maps["best"] + maps["worst"], strict=True):
        for ax, name in zip(pair, ("truth", "prediction"), strict=True):
            np.testing.assert_array_equal(ellipses(ax).get_array(), kept[name][gene])
            np.testing.assert_array_equal(ellipses(ax).get_offsets(), kept["xy"])
            np.testing.assert_allclose(ellipses(ax).get_widths(), 36.0)
            np.testing.assert_array_equal(ax.get_images()[0].get_array(), decode(kept["image"]))
            assert ax.get_images()[0].get_extent() == kept["image"]["extent"]
        assert gene in pair[0].get_title()
        assert f"r = {found.genes.loc[gene, 'pearson']:.2f}" in pair[1].get_title()
    assert "best" in axes[0, 0].get_title()
    assert "worst" in axes[4, 0].get_title()


def test_residual_is_prediction_minus_truth(slide, logs) -> None:
    axes = pl.spatial_compare(slide, ["g1", "g7"], residual=True)
    assert axes.shape == (2, 3)
    for row, gene in zip(axes, (1, 7), strict=True):
        dots = ellipses(row[2])
        np.testing.assert_allclose(dots.get_array(), (logs["prediction"] - logs["truth"])[:, gene], atol=1e-5)
        low, high = dots.get_clim()
        assert low == -high < 0
        assert dots.get_cmap().name == "RdBu_r"
    _, grid = plt.subplots(1, 2)
    with pytest.raises(ValueError, match="three axes for each of 1 genes in `ax`, found 2"):
        pl.spatial_compare(slide, "g1", residual=True, ax=grid)


# -- alike in all -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PLOTS)
def test_from_json_into_given_axes_and_to_a_file(found, tmp_path, name) -> None:
    found.to_json(tmp_path / "evaluation.json")
    figure, grid = plt.subplots(1, N_AXES.get(name, 1), squeeze=False)
    given = grid.ravel() if name in N_AXES else grid[0, 0]
    n_figures = len(plt.get_fignums())
    axes = getattr(pl, name)(tmp_path / "evaluation.json", ax=given, save=tmp_path / "plot.png")
    assert len(plt.get_fignums()) == n_figures
    assert [ax is one for ax, one in zip(np.ravel(axes), np.ravel(given), strict=True)] == [True] * grid.size
    assert all(ax.get_figure() is figure for ax in np.ravel(axes))
    assert plt.imread(tmp_path / "plot.png").shape[0] > 50


@pytest.mark.parametrize("name", PLOTS)
def test_other_things_are_refused(name) -> None:
    with pytest.raises(TypeError, match="an Evaluation, as tl.evaluate returns, or the path of its JSON; found list"):
        getattr(pl, name)([1])


@pytest.mark.parametrize("name", list(N_AXES))
def test_wrong_number_of_axes(found, name) -> None:
    with pytest.raises(ValueError, match="Expected two axes .*found 3"):
        getattr(pl, name)(found, ax=plt.subplots(1, 3)[1])


def test_without_cell_types(slide) -> None:
    for name in ("confusion_matrix", "reliability"):
        with pytest.raises(ValueError, match="No cell types were scored: no labels_key= was given. Call tl.evaluate"):
            getattr(pl, name)(run(slide))
    unsure = slide.copy()
    del unsure.obs[NAMES.cell_type_confidence]
    with pytest.raises(ValueError, match="no confidence in its cell types. Call tl.predict"):
        pl.reliability(run(unsure, labels_key="cell_type"))


def test_without_counts(slide) -> None:
    logs = slide.copy()
    logs.uns[NAMES.parameters] = {"likelihood": "mse", "scale": "log_normalized"}
    found = run(logs)
    for name in ("zero_inflation", "calibration"):
        with pytest.raises(ValueError, match="No distribution of counts was scored: the model .mse. predicts log-"):
            getattr(pl, name)(found)
    pl.scatter(found)


def test_without_plot_data_or_variation(found, slide) -> None:
    content = json.loads(found.to_json())
    del content["plot_data"]
    old = Evaluation.from_json(json.dumps(content))
    for name in ("scatter", "ranked_genes", "reliability"):
        with pytest.raises(ValueError, match=r"no data for plots: an older version wrote it. Call tl.evaluate again"):
            getattr(pl, name)(old)
    flat = slide.copy()
    flat.X = np.ones(flat.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="No gene varies"):
        pl.gene_correlation(run(flat))
    with pytest.raises(ValueError, match="no maps: no gene varies"):
        pl.ranked_genes(run(flat))
    with pytest.raises(ValueError, match=r"Unknown metric 'auc'. Available: \['pearson'"):
        pl.expression_levels(found, metric="auc")
