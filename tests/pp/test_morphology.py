"""Features by hand: each spot has those of its own tissue, and what is written where."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from PIL import Image

from hist2scrna import keys
from hist2scrna.encoders.patch_statistics import feature_names, patch_statistics
from hist2scrna.pp import _morphology, extract_features, morphology_features


def described(patch: np.ndarray) -> dict[str, float]:
    return {name: float(value[0]) for name, value in patch_statistics(patch).items()}


def features_of(adata, **options) -> np.ndarray:
    written = morphology_features(adata, progress=False, copy=True, **options)
    return written.obsm[keys.MORPHOLOGY]


def test_features_and_their_names_are_written_in_place(make_section, tmp_path) -> None:
    adata = make_section()
    before = set(adata.obsm), set(adata.uns), adata.X.copy()
    assert morphology_features(adata, progress=False) is None
    features, about = adata.obsm["X_morphology"], adata.uns["X_morphology"]
    assert features.shape == (adata.n_obs, 104)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert len(set(about["names"])) == 104
    assert {name.split("_")[0] for name in about["names"][:52]} == {"spot"}
    assert {name.split("_")[0] for name in about["names"][52:]} == {"wide"}
    # Spots of 36 px at 2 um: 72 um, one and a half of which is 108.
    np.testing.assert_allclose(about["patch_um"], [108, 324])
    np.testing.assert_allclose(about["um_per_pixel"], [1, 3])
    assert set(adata.obsm) - before[0] == {"X_morphology"}
    assert set(adata.uns) - before[1] == {"X_morphology"}
    assert (adata.X != before[2]).nnz == 0
    adata.write_h5ad(tmp_path / "section.h5ad")
    again = ad.read_h5ad(tmp_path / "section.h5ad")
    np.testing.assert_array_equal(again.obsm["X_morphology"], features)
    assert list(again.uns["X_morphology"]["names"]) == list(about["names"])
    assert not again.uns["X_morphology"]["standardized"]


def test_a_copy_leaves_adata_as_it_is(make_section) -> None:
    adata = make_section()
    written = morphology_features(adata, key_added="other", progress=False, copy=True)
    assert "other" not in adata.obsm
    assert "other" not in adata.uns
    assert written.obsm["other"].shape == (adata.n_obs, 104)


def test_features_are_those_of_the_patch_around_the_spot(make_section) -> None:
    adata = make_section()
    pixels = adata.uns["spatial"]["s0"]["images"]["hires"]
    # At 1 um a pixel, around whole coordinates, the patch is a window of 54 pixels of the image as it is.
    adata.obsm["spatial"] = np.round(adata.obsm["spatial"])
    written = morphology_features(adata, mpp=1.0, patch_um=54, progress=False, copy=True)
    names, features = list(written.uns["X_morphology"]["names"]), written.obsm["X_morphology"]
    for spot in (0, 17, 39):
        x, y = adata.obsm["spatial"][spot].astype(int)
        window = pixels[y - 27 : y + 27, x - 27 : x + 27].transpose(2, 0, 1)[None]
        for name, value in described(np.ascontiguousarray(window)).items():
            assert features[spot, names.index(f"spot_{name}")] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_kinds_of_tissue_are_told_apart(make_section) -> None:
    adata = make_section()
    names = list(morphology_features(adata, progress=False, copy=True).uns["X_morphology"]["names"])
    hematoxylin = features_of(adata)[:, names.index("spot_hematoxylin_mean")]
    tumor = (adata.obs["cell_type"] == "tumor").to_numpy()
    assert hematoxylin[tumor].min() > hematoxylin[~tumor].max()


def test_the_wide_view_sees_what_the_spot_does_not(make_section) -> None:
    adata = make_section()
    before = features_of(adata)
    x, y = adata.obsm["spatial"][18].astype(int)
    # 27 px are half of the patch, 81 px half of the wide view.
    adata.uns["spatial"]["s0"]["images"]["hires"][y - 5 : y + 5, x + 35 : x + 45] = 0
    after = features_of(adata)
    np.testing.assert_array_equal(before[18, :52], after[18, :52])
    assert (before[18, 52:] != after[18, 52:]).mean() > 0.5


def test_neither_order_nor_chunks_matter(make_section, monkeypatch) -> None:
    adata = make_section()
    order = np.random.default_rng(7).permutation(adata.n_obs)
    whole = features_of(adata)
    np.testing.assert_allclose(features_of(adata[order].copy()), whole[order], rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(_morphology, "CHUNK_PIXELS", 3 * 108**2)
    np.testing.assert_allclose(features_of(adata), whole, rtol=1e-4, atol=1e-4)


def joined(make_section) -> ad.AnnData:
    first, second = make_section("s0"), make_section("s1", seed=1, n_spots=30)
    second.uns["spatial"]["s1"]["images"]["hires"] = second.uns["spatial"]["s1"]["images"]["hires"] // 2
    return ad.concat([first, second], uns_merge="unique")


def test_each_section_has_its_own_image(make_section) -> None:
    adata = joined(make_section)
    together = features_of(adata, library_key="library_id")
    for name in ("s0", "s1"):
        own = (adata.obs["library_id"] == name).to_numpy()
        alone = adata[own].copy()
        alone.uns["spatial"] = {name: adata.uns["spatial"][name]}
        np.testing.assert_allclose(features_of(alone), together[own], rtol=1e-4, atol=1e-4)


def test_standardized_by_section(make_section) -> None:
    adata = joined(make_section)
    plain = features_of(adata, library_key="library_id").astype(float)
    scaled = features_of(adata, library_key="library_id", standardize=True)
    for name in ("s0", "s1"):
        own = (adata.obs["library_id"] == name).to_numpy()
        spread = plain[own].std(axis=0)
        varies = spread > 1e-5 * np.abs(plain[own]).max(axis=0)
        assert varies.mean() > 0.8
        expected = (plain[own] - plain[own].mean(axis=0))[:, varies] / spread[varies]
        np.testing.assert_allclose(scaled[own][:, varies], expected, atol=1e-2)
        np.testing.assert_allclose(scaled[own].mean(axis=0), 0, atol=1e-4)
    assert np.isfinite(scaled).all()
    # Of one spot, nothing varies.
    assert not features_of(adata[:1].copy(), library_key="library_id", standardize=True).any()


def test_a_finer_scan_of_the_same_tissue_gives_the_same_numbers(make_section, tmp_path) -> None:
    adata = make_section()
    scanned = Image.fromarray(adata.uns["spatial"]["s0"]["images"]["hires"])
    scanned = scanned.resize((scanned.width * 2, scanned.height * 2), Image.Resampling.BICUBIC)
    scanned.save(tmp_path / "coarse.png")
    scanned.resize((scanned.width * 2, scanned.height * 2), Image.Resampling.NEAREST).save(tmp_path / "fine.png")
    found = []
    for name, finer in (("coarse", 2), ("fine", 4)):
        scan = adata.copy()
        scan.obsm["spatial"] = adata.obsm["spatial"] * finer
        scan.uns["spatial"]["s0"]["scalefactors"] |= {"spot_diameter_fullres": 36.0 * finer, "mpp": 2.0 / finer}
        found.append(features_of(scan, image=tmp_path / f"{name}.png"))
    spread = found[0].std(axis=0)
    difference = np.abs(found[0] - found[1]).mean(axis=0)
    assert np.median(difference / np.maximum(spread, 1e-3)) < 0.05


def test_the_given_size_of_the_patch_is_used(make_section) -> None:
    adata = make_section()
    about = morphology_features(adata, patch_um=20, mpp=1.0, progress=False, copy=True).uns["X_morphology"]
    np.testing.assert_allclose(about["patch_um"], [20, 60])
    np.testing.assert_allclose(about["um_per_pixel"], [20 / 32, 60 / 32])


def _no_images(adata):
    adata.uns["spatial"]["s0"]["images"].clear()


def _nan(adata):
    adata.obsm["spatial"][5, 1] = np.nan


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (_no_images, {}, KeyError, r"No images.*Pass image="),
        (lambda a: a.uns.pop("spatial"), {}, KeyError, r"No library in adata\.uns\['spatial'\]"),
        (lambda a: None, {"image": "nowhere.png"}, FileNotFoundError, r"nowhere\.png"),
        (_nan, {}, ValueError, r"NaN.*adata\.obsm\['spatial'\].*'s0_5'"),
        (lambda a: None, {"spatial_key": "xy"}, KeyError, r"'xy' not found in adata\.obsm.*\['spatial'\]"),
        (lambda a: None, {"library_key": "slide"}, KeyError, r"'slide' not found in adata\.obs"),
        (lambda a: None, {"patch_um": -1}, ValueError, r"`patch_um`.*-1"),
        (lambda a: None, {"img_key": "lowres"}, KeyError, r"'lowres' not found.*\['hires'\]"),
    ],
)
def test_bad_input_says_what_is_wrong_and_writes_nothing(make_section, spoil, options, error, message) -> None:
    adata = make_section()
    spoil(adata)
    before = set(adata.obsm), set(adata.uns)
    with pytest.raises(error, match=message):
        morphology_features(adata, progress=False, **options)
    assert (set(adata.obsm), set(adata.uns)) == before


def test_a_failure_on_the_way_writes_nothing(make_section, monkeypatch) -> None:
    adata = joined(make_section)
    done = []

    def fail_late(patches):
        done.append(len(patches))
        if len(done) > 2:
            raise OSError("the disk is gone")
        return patch_statistics(patches)

    monkeypatch.setattr(_morphology, "patch_statistics", fail_late)
    with pytest.raises(OSError, match="the disk is gone"):
        morphology_features(adata, library_key="library_id", progress=False)
    assert keys.MORPHOLOGY not in adata.obsm
    assert keys.MORPHOLOGY not in adata.uns


def test_ridge_on_them_predicts_a_real_section_better_than_the_mean(shared_data, shared_fixtures) -> None:
    from hist2scrna.datasets import her2st
    from hist2scrna.fitting.closed_form.ridge import solve_ridge
    from hist2scrna.metrics import depth_partial_pearson, pearson_by_gene
    from hist2scrna.models.ridge import Ridge

    adata = her2st(shared_data / "her2st", sections=["C3", "C4"])[::2].copy()
    morphology_features(adata, library_key="library_id", progress=False)
    genes = (shared_fixtures / "her_hvg_785.txt").read_text().split()
    counts = adata[:, genes].X.toarray().astype(float)
    library = counts.sum(axis=1)
    target = np.log1p(1e4 * counts / library[:, None])
    held_out = (adata.obs["library_id"] == "C4").to_numpy()
    features = adata.obsm[keys.MORPHOLOGY]
    model = Ridge(len(genes), n_features=features.shape[1])
    blocks = (adata.obsm["spatial"][:, 0] // 2000).astype(int)
    solve_ridge(model, features[~held_out], target[~held_out], blocks[~held_out])
    scaled = (features[held_out] - model.feature_mean.numpy()) / model.feature_scale.numpy()
    predicted = scaled @ model.components.numpy().T @ model.coefficients.numpy().T + model.intercept.numpy()
    mean_baseline = np.square(target[held_out] - target[~held_out].mean(axis=0)).mean()
    assert np.square(target[held_out] - predicted).mean() < 0.97 * mean_baseline
    assert np.nanmean(pearson_by_gene(target[held_out], predicted)) > 0.15
    assert np.nanmean(depth_partial_pearson(target[held_out], predicted, library[held_out])) > 0.04


def test_the_encoder_of_the_same_name_differs_in_the_smoothing_of_the_wide_view_alone(make_section) -> None:
    adata = make_section()
    adata.obsm["spatial"] = np.round(adata.obsm["spatial"])
    by_hand = features_of(adata)
    extract_features(adata, "morphology", key_added="encoded", progress=False)
    encoded = adata.obsm["encoded"]
    assert (adata.uns["encoded"]["patch_um"], adata.uns["encoded"]["patch_px"]) == (324.0, 324)
    np.testing.assert_allclose(encoded[:, :52], by_hand[:, :52], rtol=1e-3, atol=1e-3)
    means = [i for i, name in enumerate(feature_names()) if name.startswith("wide") and name.endswith("_mean")]
    np.testing.assert_allclose(encoded[:, means], by_hand[:, means], rtol=0.05, atol=5e-3)
