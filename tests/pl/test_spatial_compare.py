"""Measured and predicted genes on the tissue: what is drawn is what the data hold, and wrong requests are refused."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import EllipseCollection
from scipy import stats

from hist2scrna import keys, metrics, pl

NAMES = keys.OutputKeys()


def drawn(ax) -> EllipseCollection:
    (found,) = [c for c in ax.collections if isinstance(c, EllipseCollection)]
    return found


def log_normalized(table, gene: int) -> np.ndarray:
    return metrics.log_normalize(np.asarray(table, dtype=float))[:, gene]


def test_spots_show_measured_and_predicted_on_one_transform(predicted) -> None:
    axes = pl.spatial_compare(predicted, ["g1", "g7"])
    assert axes.shape == (2, 2)
    for row, gene in zip(axes, (1, 7), strict=True):
        truth = log_normalized(predicted.X.toarray(), gene)
        mean = log_normalized(predicted.layers[NAMES.layer("mean")], gene)
        np.testing.assert_allclose(drawn(row[0]).get_array(), truth, rtol=1e-6)
        np.testing.assert_allclose(drawn(row[1]).get_array(), mean, rtol=1e-6)
        assert f"g{gene}" in row[0].get_title()
        assert f"r = {stats.pearsonr(truth, mean).statistic:.2f}" in row[1].get_title()
        assert drawn(row[0]).get_clim() == drawn(row[1]).get_clim()


def test_spots_lie_on_the_tissue_at_their_size(predicted) -> None:
    entry = predicted.uns["spatial"]["s0"]
    # Half the resolution: coordinates stay those of full resolution.
    entry["images"]["hires"] = entry["images"]["hires"][::2, ::2]
    entry["scalefactors"]["tissue_hires_scalef"] = 0.5
    ax = pl.spatial_compare(predicted, "g1")[0, 0]
    dots = drawn(ax)
    np.testing.assert_allclose(dots.get_offsets(), predicted.obsm["spatial"])
    np.testing.assert_allclose(dots.get_widths(), 36.0)
    (picture,) = ax.get_images()
    left, right, bottom, top = picture.get_extent()
    shown = picture.get_array()
    assert shown.shape[1] * 2 == pytest.approx(right - left)
    assert shown.shape[0] * 2 == pytest.approx(bottom - top)
    # y points down, and the window is where the spots are, not the whole picture.
    low, high = predicted.obsm["spatial"].min(axis=0), predicted.obsm["spatial"].max(axis=0)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert left < low[0] < high[0] < right < 520
    assert top < low[1] < high[1] < bottom < 480
    # The color under a spot is that of its type.
    x, y = predicted.obsm["spatial"][0]
    under = shown[int((y - top) / 2), int((x - left) / 2)]
    assert tuple(under) in {(90, 40, 140), (230, 150, 190)}


def test_own_scales(predicted) -> None:
    row = pl.spatial_compare(predicted, "g1", same_scale=False)[0]
    assert drawn(row[0]).get_clim() != drawn(row[1]).get_clim()
    for ax, table in zip(row, (predicted.X.toarray(), predicted.layers[NAMES.layer("mean")]), strict=True):
        np.testing.assert_allclose(drawn(ax).get_clim(), np.quantile(log_normalized(table, 1), [0.01, 0.99]))


def test_log_scale_predictions_are_drawn_as_they_are(predicted) -> None:
    predicted.uns[NAMES.parameters] = {"scale": "log_normalized"}
    row = pl.spatial_compare(predicted, "g1")[0]
    np.testing.assert_allclose(drawn(row[1]).get_array(), predicted.layers[NAMES.layer("mean")][:, 1])


def test_empty_spots_have_no_color(predicted) -> None:
    counts = predicted.X.toarray()
    counts[5] = 0
    predicted.X = counts
    row = pl.spatial_compare(predicted, "g1")[0]
    assert np.ma.getmaskarray(drawn(row[0]).get_array()).nonzero()[0].tolist() == [5]
    assert not np.ma.getmaskarray(drawn(row[1]).get_array()).any()


def test_constant_gene_has_no_correlation(predicted) -> None:
    counts = predicted.X.toarray()
    counts[:, 3] = 0
    predicted.X = counts
    assert "measured is constant" in pl.spatial_compare(predicted, "g3")[0, 1].get_title()


def test_without_picture(predicted) -> None:
    del predicted.uns["spatial"], predicted.obs["library_id"]
    ax = pl.spatial_compare(predicted, "g1")[0, 0]
    assert not ax.get_images()
    # As wide as the distance to the nearest spot.
    np.testing.assert_allclose(drawn(ax).get_widths(), 50.0)


def test_one_of_several_sections(make_section) -> None:
    import anndata

    parts = [make_section(name, seed=i) for i, name in enumerate(["a", "b"])]
    both = anndata.concat(parts, uns_merge="unique")
    both.layers[NAMES.layer("mean")] = both.X.toarray() + 1
    row = pl.spatial_compare(both, "g1", library="b")[0]
    np.testing.assert_allclose(drawn(row[0]).get_array(), log_normalized(parts[1].X.toarray(), 1), rtol=1e-6)
    with pytest.raises(ValueError, match=r"holds 2 sections.*Pass library=, one of \['a', 'b'\]"):
        pl.spatial_compare(both, "g1")
    with pytest.raises(KeyError, match="Section 'c' not found"):
        pl.spatial_compare(both, "g1", library="c")


def test_compare_in_given_axes_and_to_a_file(predicted, tmp_path) -> None:
    figure, grid = plt.subplots(1, 4)
    axes = pl.spatial_compare(predicted, ["g1", "g2"], ax=grid, save=tmp_path / "compare.png")
    assert [ax.get_figure() for ax in axes.ravel()] == [figure] * 4
    assert axes[1, 1] is grid[3]
    assert plt.imread(tmp_path / "compare.png").shape[0] > 100
    with pytest.raises(ValueError, match="two axes for each of 1 genes in `ax`, found 4"):
        pl.spatial_compare(predicted, "g1", ax=grid)


def test_genes_side_by_side(predicted) -> None:
    axes = pl.spatial_compare(predicted, ["g1", "g2", "g3"], ncols=2)
    assert axes.shape == (3, 2)
    grid = axes[0, 0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (2, 4)


def test_wrong_requests(predicted) -> None:
    with pytest.raises(KeyError, match=r"Genes \['ERBB2'\] are not among the 12 modeled"):
        pl.spatial_compare(predicted, ["g1", "ERBB2"])
    with pytest.raises(KeyError, match=r"Key 'other_mean' not found .* Call tl.predict"):
        pl.spatial_compare(predicted, "g1", key="other")
    with pytest.raises(KeyError, match="Key 'lowres' not found"):
        pl.spatial_compare(predicted, "g1", img_key="lowres")
    with pytest.raises(ValueError, match="`ncols` to be at least 1, found 0"):
        pl.spatial_compare(predicted, "g1", ncols=0)
