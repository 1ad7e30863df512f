from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation
from scipy.sparse import issparse
from scipy.stats import kstest, nbinom
from skimage.color import rgb2hed
from skimage.measure import regionprops
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hist2scrna.datasets import simulate

TRUTH = ("true_mu", "true_dispersion", "true_dropout", "true_mean")


@pytest.fixture(scope="module")
def sections() -> list[ad.AnnData]:
    return simulate(n_sections=3, n_spots=200, n_genes=200, seed=3)


def image_of(section: ad.AnnData) -> np.ndarray:
    (entry,) = section.uns["spatial"].values()
    return entry["images"]["hires"]


def assert_same(left: ad.AnnData, right: ad.AnnData) -> None:
    assert list(left.obs_names) == list(right.obs_names)
    assert left.obs.equals(right.obs)
    np.testing.assert_array_equal(left.to_df(), right.to_df())
    np.testing.assert_array_equal(left.obsm["spatial"], right.obsm["spatial"])
    np.testing.assert_array_equal(image_of(left), image_of(right))
    for layer in TRUTH:
        np.testing.assert_array_equal(left.layers[layer], right.layers[layer])


def log_normalize(counts: np.ndarray) -> np.ndarray:
    return np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9))


def mean_pearson(prediction: np.ndarray, truth: np.ndarray) -> float:
    a, b = prediction - prediction.mean(axis=0), truth - truth.mean(axis=0)
    norm = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(np.divide((a * b).sum(axis=0), norm, out=np.zeros_like(norm), where=norm > 1e-9).mean())


def own_types(section: ad.AnnData) -> np.ndarray:
    codes = section.obs["cell_type"].cat.codes.to_numpy()
    return np.eye(len(section.obs["cell_type"].cat.categories))[codes]


def lattice_composition(section: ad.AnnData) -> np.ndarray:
    """Types among the six lattice neighbors, found from the array positions alone."""
    place = {(r, c): i for i, (r, c) in enumerate(section.obs[["array_row", "array_col"]].to_numpy())}
    types, result = own_types(section), []
    for row, col in place:
        around = [(row, col - 2), (row, col + 2), *((row + dr, col + dc) for dr in (-1, 1) for dc in (-1, 1))]
        result.append(types[[place[spot] for spot in around if spot in place]].mean(axis=0))
    return np.array(result)


def spot_colors(section: ad.AnnData, xy: np.ndarray | None = None) -> np.ndarray:
    """Mean and spread of hematoxylin, eosin and residual in the disc of each spot."""
    (entry,) = section.uns["spatial"].values()
    radius = entry["scalefactors"]["spot_diameter_fullres"] / 2
    stains = rgb2hed(image_of(section))
    rows, columns = np.ogrid[: stains.shape[0], : stains.shape[1]]
    features = []
    for x, y in section.obsm["spatial"] if xy is None else xy:
        window = (
            slice(max(0, int(y - radius)), int(y + radius) + 1),
            slice(max(0, int(x - radius)), int(x + radius) + 1),
        )
        inside = (rows[window[0]] - y) ** 2 + (columns[:, window[1]] - x) ** 2 <= radius**2
        pixels = stains[window][inside]
        features.append(np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)]))
    return np.array(features)


@pytest.mark.parametrize(
    ("preset", "level", "shape"),
    [("small", "spot", (50, 500)), ("medium", "spot", (200, 2000)), ("small", "cell", (50, 500))],
)
def test_slots(preset: str, level: str, shape: tuple[int, int]) -> None:
    (section,) = simulate(preset, level=level, seed=1)
    assert section.shape == shape
    assert section.X.format == "csr"
    assert section.X.dtype == np.float32
    assert (section.X.data == np.round(section.X.data)).all()
    assert section.X.data.min() >= 1
    assert section.var_names[0] == "gene_0000"
    assert section.obs_names[7] == f"section_0_{level}_007"
    assert list(section.obs["library_id"].cat.categories) == ["section_0"]
    image = image_of(section)
    height, width, _ = image.shape
    assert image.dtype == np.uint8
    assert width > 1.1 * height
    assert (section.obsm["spatial"] > 0).all()
    assert (section.obsm["spatial"] < (width, height)).all()
    assert section.obs["cell_type"].nunique() == 4
    for layer in TRUTH:
        assert not issparse(section.layers[layer])
        assert section.layers[layer].dtype == np.float32
    scalefactors = section.uns["spatial"]["section_0"]["scalefactors"]
    diameter = {"spot": 55.0, "cell": 10.0}[level]
    assert scalefactors == {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": diameter, "mpp": 1.0}
    assert 0.5 < np.mean(section.to_df() == 0, axis=None) < 0.8
    assert section.uns["simulation"]["level"] == level


def test_lattice_is_that_of_visium(sections: list[ad.AnnData]) -> None:
    array = sections[0].obs[["array_row", "array_col"]].to_numpy()
    assert (array.sum(axis=1) % 2 == 0).all()
    assert len(np.unique(array, axis=0)) == 200
    scale = np.array([50.0, 50.0 * np.sqrt(3)])
    offset = sections[0].obsm["spatial"] - array[:, ::-1] * scale
    np.testing.assert_allclose(offset, offset[:1].repeat(200, axis=0))


def test_same_seed_same_sections() -> None:
    arguments = {"n_spots": 30, "n_genes": 20}
    first, *others = simulate(n_sections=3, seed=5, **arguments)
    assert_same(first, simulate(seed=5, **arguments)[0])
    for other in [*others, *simulate(seed=6, **arguments)]:
        assert not np.array_equal(first.to_df(), other.to_df())
        assert list(first.obs["cell_type"]) != list(other.obs["cell_type"])
    assert [s.obs["library_id"].iloc[0] for s in (first, *others)] == ["section_0", "section_1", "section_2"]


def test_genes_are_shared_and_stains_are_not(sections: list[ad.AnnData]) -> None:
    first, second, _ = sections
    for layer in ("true_dispersion", "true_dropout"):
        np.testing.assert_array_equal(first.layers[layer], second.layers[layer])
        assert (first.layers[layer] == first.layers[layer][0]).all()
    # Relative to one gene, the log rate is linear in the own type and the neighbors, with the same coefficients.
    features = [np.hstack([own_types(section), lattice_composition(section)]) for section in (first, second)]
    rates = [np.log(section.layers["true_mu"].astype(float)) for section in (first, second)]
    rates = [rate - rate[:, :1] for rate in rates]
    predicted = LinearRegression().fit(features[0], rates[0]).predict(features[1])
    np.testing.assert_allclose(predicted, rates[1], atol=1e-4)
    stains = [s.uns["simulation"]["stain"][f"section_{i}"]["vectors"] for i, s in enumerate(sections)]
    assert np.abs(stains[0] - stains[1]).max() > 0.005
    np.testing.assert_allclose(np.linalg.norm(stains, axis=2), 1)
    glass = [np.median(image_of(section)[-4:].reshape(-1, 3), axis=0) for section in sections]
    assert len({tuple(color) for color in glass}) == 3


def test_counts_follow_the_zinb_of_the_layers(sections: list[ad.AnnData]) -> None:
    counts = np.concatenate([section.X.toarray() for section in sections])
    mu, theta, pi, mean = (np.concatenate([s.layers[name] for s in sections]).astype(float) for name in TRUTH)
    np.testing.assert_allclose(mean, (1 - pi) * mu, rtol=1e-5)
    variance = mean * (1 + mu * (pi + 1 / theta))
    z = (counts - mean).sum(axis=0) / np.sqrt(variance.sum(axis=0))
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.75 < z.var() < 1.3
    assert 0.9 < np.median(((counts - mean) ** 2).sum(axis=0) / variance.sum(axis=0)) < 1.1

    component = nbinom(theta, theta / (theta + mu))
    zero = pi + (1 - pi) * component.pmf(0)
    z = ((counts == 0) - zero).sum(axis=0) / np.sqrt((zero * (1 - zero)).sum(axis=0))
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.75 < z.var() < 1.3
    # Without zero inflation, there would be fewer zeros than there are.
    assert (counts == 0).sum() > component.pmf(0).sum() + 1000

    below = np.where(counts > 0, pi + (1 - pi) * component.cdf(counts - 1), 0)
    upto = pi + (1 - pi) * component.cdf(counts)
    uniform = below + np.random.default_rng(0).random(counts.shape) * (upto - below)
    assert kstest(uniform.ravel(), "uniform").pvalue > 0.001


def test_dispersion_and_dropout_lie_in_their_ranges(sections: list[ad.AnnData]) -> None:
    section = sections[0]
    theta, pi = section.layers["true_dispersion"][0], section.layers["true_dropout"][0]
    assert (theta >= 1).all()
    assert (theta <= 20).all()
    assert (pi >= 0).all()
    assert (pi <= 0.4).all()
    level = np.log(section.layers["true_mu"]).mean(axis=0)
    assert np.corrcoef(level, pi)[0, 1] < -0.4


def test_image_tells_the_type_on_an_unseen_section(sections: list[ad.AnnData]) -> None:
    *train, test = sections
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(
        np.concatenate([spot_colors(section) for section in train]),
        np.concatenate([section.obs["cell_type"].to_numpy() for section in train]),
    )
    truth = test.obs["cell_type"].to_numpy()
    chance = test.obs["cell_type"].value_counts(normalize=True).max()
    accuracy = np.mean(classifier.predict(spot_colors(test)) == truth)
    assert accuracy > chance + 0.35
    height, width, _ = image_of(test).shape
    xy = test.obsm["spatial"]
    for wrong in ((width, 0) + xy * (-1, 1), (0, height) + xy * (1, -1), xy[:, ::-1].clip(0, height - 60)):
        assert np.mean(classifier.predict(spot_colors(test, wrong)) == truth) < chance + 0.15


def test_depth_follows_visible_nuclei(sections: list[ad.AnnData]) -> None:
    for section in sections:
        xy = section.obsm["spatial"]
        size = np.log(section.layers["true_mu"].sum(axis=1))
        here = np.corrcoef(spot_colors(section)[:, 0], size)[0, 1]
        elsewhere = np.corrcoef(spot_colors(section, np.roll(xy, 50, axis=0))[:, 0], size)[0, 1]
        assert here > 0.3
        assert elsewhere < here - 0.2


@pytest.mark.parametrize("effect", [1.0, 0.0])
def test_neighbors_matter_just_if_asked(effect: float) -> None:
    *train, test = simulate(n_sections=4, n_spots=200, n_genes=200, seed=2, mpp=8.0, neighbor_effect=effect)

    def predict(features: list[np.ndarray]) -> np.ndarray:
        targets = np.concatenate([log_normalize(section.X.toarray()) for section in train])
        return LinearRegression().fit(np.concatenate(features[:-1]), targets).predict(features[-1])

    everything = [*train, test]
    own = [own_types(section) for section in everything]
    both = [np.hstack([own_types(section), lattice_composition(section)]) for section in everything]
    truth = log_normalize(test.X.toarray())
    responds = test.var_names.isin(test.uns["simulation"]["neighbor_genes"])
    assert responds.sum() == 100
    scores = {
        name: [mean_pearson(predict(features)[:, genes], truth[:, genes]) for genes in (responds, ~responds)]
        for name, features in (("own", own), ("both", both))
    }
    gain_responding, gain_others = np.subtract(scores["both"], scores["own"])
    assert abs(gain_others) < 0.03
    if effect:
        assert gain_responding > 0.15
        reach = mean_pearson(log_normalize(test.layers["true_mean"].astype(float)), truth)
        assert reach > 0.4
        assert mean_pearson(predict(own), truth) < 0.85 * reach
    else:
        assert abs(gain_responding) < 0.03


def test_neighbor_effect_leaves_the_image() -> None:
    with_effect, without = (simulate(n_spots=20, n_genes=10, neighbor_effect=effect)[0] for effect in (1, 0))
    np.testing.assert_array_equal(image_of(with_effect), image_of(without))
    responds = with_effect.var_names.isin(with_effect.uns["simulation"]["neighbor_genes"])
    mu, mu_without = with_effect.layers["true_mu"], without.layers["true_mu"]
    np.testing.assert_allclose(mu[:, ~responds], mu_without[:, ~responds], rtol=1e-6)
    assert np.abs(np.log(mu / mu_without)[:, responds]).mean() > 0.5


def test_resolution_scales_the_image_alone() -> None:
    coarse, fine = (simulate(n_spots=20, n_genes=10, mpp=mpp)[0] for mpp in (1.0, 0.5))
    np.testing.assert_array_equal(coarse.to_df(), fine.to_df())
    np.testing.assert_allclose(fine.obsm["spatial"], 2 * coarse.obsm["spatial"])
    np.testing.assert_allclose(image_of(fine).shape[:2], 2 * np.array(image_of(coarse).shape[:2]), atol=1)
    assert fine.uns["spatial"]["section_0"]["scalefactors"]["spot_diameter_fullres"] == 110.0
    assert fine.uns["spatial"]["section_0"]["scalefactors"]["mpp"] == 0.5
    agreement = np.corrcoef(spot_colors(coarse)[:, 0], spot_colors(fine)[:, 0])[0, 1]
    assert agreement > 0.9


def test_cells_are_nuclei_of_the_image() -> None:
    (cells,) = simulate(n_spots=300, n_genes=100, level="cell", mpp=0.5)
    (spots,) = simulate(n_spots=50, n_genes=100)
    assert "array_row" not in cells.obs
    assert np.median(cells.to_df().sum(axis=1)) < np.median(spots.to_df().sum(axis=1))
    hematoxylin = rgb2hed(image_of(cells))[..., 0]
    x, y = cells.obsm["spatial"].astype(int).T
    tissue = hematoxylin[y.min() : y.max(), x.min() : x.max()]
    assert np.mean(hematoxylin[y, x] > np.quantile(tissue, 0.6)) > 0.95
    flipped = hematoxylin[hematoxylin.shape[0] - 1 - y, x]
    assert np.mean(flipped > np.quantile(tissue, 0.6)) < 0.7
    gaps = np.linalg.norm(cells.obsm["spatial"][:, None] - cells.obsm["spatial"], axis=2) * 0.5
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() >= 7
    assert gaps.min(axis=1).std() > 1


def test_the_label_image_shows_the_nuclei_that_were_drawn() -> None:
    (cells,) = simulate(n_spots=300, n_genes=5, level="cell", mpp=0.5)
    labels = cells.uns["simulation"]["nuclei"]["section_0"]
    assert labels.shape == image_of(cells).shape[:2] and labels.dtype == np.int32
    rows = cells.obs["nucleus"].to_numpy()
    assert len(np.unique(rows)) == 300
    places = {region.label: region for region in regionprops(labels)}
    # Cells around those that were measured are labeled too.
    assert set(rows) < set(places)
    centroid = np.array([places[label].centroid[::-1] for label in rows]) + 0.5
    assert np.median(np.linalg.norm(centroid - cells.obsm["spatial"], axis=1)) < 0.5
    hematoxylin = rgb2hed(image_of(cells))[..., 0]
    tissue = binary_dilation(labels > 0, iterations=12)
    assert roc_auc_score(labels[tissue] > 0, hematoxylin[tissue]) > 0.9
    (spots,) = simulate(n_spots=20, n_genes=5)
    assert "nucleus" not in spots.obs and "nuclei" not in spots.uns["simulation"]


def test_cell_neighbors_are_the_six_nearest() -> None:
    (cells,) = simulate(n_spots=150, n_genes=60, level="cell", seed=4)
    gaps = np.linalg.norm(cells.obsm["spatial"][:, None] - cells.obsm["spatial"], axis=2)
    composition = {k: own_types(cells)[gaps.argsort(axis=1)[:, 1 : k + 1]].mean(axis=1) for k in (4, 6, 8)}
    mu = np.log(cells.layers["true_mu"].astype(float))
    # A gene without neighbor effect takes the library size out.
    responds = cells.var_names.isin(cells.uns["simulation"]["neighbor_genes"])
    own = own_types(cells)
    rest = mu[:, ~responds] - LinearRegression().fit(own, mu[:, ~responds]).predict(own)
    target = mu[:, responds] - rest[:, :1]
    fit = {k: LinearRegression().fit(f := np.hstack([own, c]), target).score(f, target) for k, c in composition.items()}
    assert fit[6] > 1 - 1e-6
    assert max(fit[4], fit[8]) < 0.99


@settings(max_examples=25)
@given(
    n_spots=st.integers(1, 60),
    n_types=st.integers(2, 8),
    level=st.sampled_from(["spot", "cell"]),
    seed=st.integers(0, 2**40),
)
def test_any_size(n_spots: int, n_types: int, level: str, seed: int) -> None:
    (section,) = simulate(n_spots=n_spots, n_genes=3, n_types=n_types, level=level, seed=seed)
    assert section.shape == (n_spots, 3)
    assert len(section.obs["cell_type"].cat.categories) == n_types
    assert section.obs["cell_type"].nunique() == min(n_types, n_spots)
    assert np.isfinite(section.layers["true_mu"]).all()
    assert section.obs_names.is_unique


@pytest.mark.parametrize("level", ["spot", "cell"])
def test_written_and_read_again(tmp_path: Path, level: str) -> None:
    (section,) = simulate(n_spots=12, n_genes=6, level=level)
    section.write_h5ad(tmp_path / "section.h5ad")
    again = ad.read_h5ad(tmp_path / "section.h5ad")
    assert_same(section, again)
    before, after = section.uns["simulation"], again.uns["simulation"]
    assert after["neighbor_effect"] == 1.0
    assert list(after["neighbor_genes"]) == list(before["neighbor_genes"])
    np.testing.assert_array_equal(after["stain"]["section_0"]["vectors"], before["stain"]["section_0"]["vectors"])


def test_concatenated_sections_keep_their_images(tmp_path: Path) -> None:
    parts = simulate(n_sections=3, n_spots=12, n_genes=6)
    whole = ad.concat(parts, uns_merge="unique")
    assert whole.obs_names.is_unique
    assert whole.obs["library_id"].dtype == "category"
    assert whole.obs["cell_type"].dtype == parts[0].obs["cell_type"].dtype
    whole.write_h5ad(tmp_path / "whole.h5ad")
    again = ad.read_h5ad(tmp_path / "whole.h5ad")
    for part in parts:
        library = part.obs["library_id"].iloc[0]
        np.testing.assert_array_equal(again.uns["spatial"][library]["images"]["hires"], image_of(part))
        assert again.uns["spatial"][library]["scalefactors"] == part.uns["spatial"][library]["scalefactors"]
        assert library in again.uns["simulation"]["stain"]
    assert again.uns["simulation"]["seed"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "huge"}, r"`preset` to be one of \['small', 'medium'\], found 'huge'"),
        ({"level": "gene"}, r"`level` to be one of \['spot', 'cell'\], found 'gene'"),
        ({"n_sections": 0}, "`n_sections` to be an integer of at least 1, found 0"),
        ({"n_spots": 0}, "`n_spots`"),
        ({"n_genes": 2.5}, "`n_genes` to be an integer of at least 1, found 2.5"),
        ({"seed": -1}, "`seed` to be an integer of at least 0, found -1"),
        ({"n_types": 1}, "`n_types` to be an integer of at least 2, found 1"),
        ({"n_types": 9}, "`n_types` to be at most 8, found 9"),
        ({"mpp": 0}, "`mpp`"),
        ({"mpp": float("nan")}, "`mpp`"),
        ({"neighbor_effect": float("inf")}, "`neighbor_effect`"),
        ({"mpp": 0.05}, "too large to simulate.*Raise `mpp`"),
        ({"mpp": 0.01, "level": "cell"}, "too large to simulate"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(**arguments)
