"""Images finer or coarser than those of the training, gray ones, and warnings that come once a call."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
import tifffile
import torch
from builders import fast
from PIL import Image

from hist2scrna.pp import extract_features
from hist2scrna.tl import fit, predict

QUIET = {"progress": False, "accelerator": "cpu"}
SLIGHTLY = pytest.mark.filterwarnings("ignore:A spot of section:UserWarning")


def two_images(adata, factor=6):
    """Add an image that is `factor` times as coarse, an average of the other."""
    entry = adata.uns["spatial"][str(adata.obs["library_id"].iloc[0])]
    fine = entry["images"]["hires"]
    height, width = (edge // factor * factor for edge in fine.shape[:2])
    blocks = fine[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    entry["images"]["lowres"] = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    entry["scalefactors"]["tissue_lowres_scalef"] = 1 / factor
    return adata


@SLIGHTLY
def test_coarser_images_than_those_of_the_training_are_warned_of_with_both_numbers(make_section):
    model = fit(two_images(make_section()), **fast(img_key="hires", validation=0))
    assert model.training["pixel_um"] == [2.0, 2.0]
    with pytest.warns(UserWarning, match=r"is 12 um wide here, and was 2 um at most in training \(the model sees 2\.2"):
        predict(two_images(make_section("s1", seed=1)), model, img_key="lowres", **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # Which it is: with mpp=2.6 its cells are larger than those of the training.
        warnings.filterwarnings("ignore", ".*unlike the training tissue")
        predict(two_images(make_section("s1", seed=1)), model, img_key="hires", **QUIET)
        # Coarser by less than the model sees, or than one and a half times.
        predict(two_images(make_section("s1", seed=1)), model, img_key="hires", mpp=2.6, **QUIET)


@SLIGHTLY
def test_finer_images_are_brought_to_those_of_the_training(make_section, caplog):
    """A model that was fitted on lowres sees in hires what it would see in lowres."""
    model = fit(two_images(make_section()), **fast(img_key="lowres", validation=0))
    adata = two_images(make_section("s1", seed=1))
    everyone = np.arange(adata.n_obs)
    with caplog.at_level("INFO", "hist2scrna"):
        brought = model.read(adata, img_key="hires").patches.read(everyone).astype(float)
    assert "the image has pixels of 2 um, those of the training had 12" in caplog.text
    coarse = model.read(adata, img_key="lowres").patches.read(everyone).astype(float)
    model.training["pixel_um"] = None
    sharp = model.read(adata, img_key="hires").patches.read(everyone).astype(float)
    assert brought.shape == coarse.shape
    assert np.abs(brought - coarse).mean() < 0.5 * np.abs(sharp - coarse).mean()


def test_a_gray_image_is_warned_of_once(make_section):
    sections = [make_section(f"s{i}", seed=i) for i in range(3)]
    for adata in sections[:2]:
        entry = adata.uns["spatial"][adata.obs["library_id"].iloc[0]]
        entry["images"]["hires"] = np.asarray(Image.fromarray(entry["images"]["hires"]).convert("L"))
    with pytest.warns(UserWarning) as said:
        fit(ad.concat(sections, uns_merge="unique"), **fast())
    (text,) = [str(w.message) for w in said if "gray" in str(w.message)]
    assert "'s0' (as of 1 more: s1) is gray" in text and "image=" in text


def test_the_same_is_said_once_for_all_sections(make_section):
    sections = [make_section(f"s{i}", seed=i) for i in range(3)]
    for adata in sections:
        entry = adata.uns["spatial"][adata.obs["library_id"].iloc[0]]
        entry["scalefactors"]["spot_diameter_fullres"] = 20.0
        # Blue-free ground everywhere: no spot lies on tissue.
        entry["images"]["hires"] = np.full_like(entry["images"]["hires"], 250)
        entry["images"]["hires"][:9, :9] = (120, 40, 160)
    with pytest.warns(UserWarning) as said:
        fit(ad.concat(sections, uns_merge="unique"), **fast())
    texts = [str(w.message) for w in said]
    for part in ("covers only 20 px", "lie on tissue"):
        (text,) = [text for text in texts if part in text]
        assert "'s0' (as of 2 more: s1, s2)" in text


@pytest.mark.parametrize("what", ["lost", "scale"])
def test_files_of_several_sections_are_warned_of_once(make_section, tmp_path, what):
    """Of files that are not there, and of those whose pixels are not what the spots make of them."""
    sections = [make_section(f"s{i}", seed=i) for i in range(3)]
    for adata in sections:
        entry, file = next(iter(adata.uns["spatial"].values())), tmp_path / f"{adata.obs_names[0]}.tif"
        entry["metadata"]["source_image_path"] = str(file)
        if what == "scale":
            del entry["scalefactors"]["mpp"]
            tifffile.imwrite(file, entry["images"]["hires"], resolution=(1e4, 1e4), resolutionunit="CENTIMETER")
    with pytest.warns(UserWarning) as said:
        extract_features(
            ad.concat(sections, uns_merge="unique"), mean_colors, patch_px=8, patch_um=50.0, progress=False
        )
    part = {"lost": "which is not there", "scale": "says 1 um a pixel"}[what]
    (text,) = [str(w.message) for w in said if part in str(w.message)]
    assert "'s0'" in text
    assert text.endswith("The same holds of 2 more: s1, s2.")
    assert next(w for w in said if part in str(w.message)).filename == __file__


def mean_colors(patches: torch.Tensor) -> torch.Tensor:
    return patches.mean(dim=(2, 3))


def test_a_file_as_cellxgene_writes_it_goes_from_file_to_prediction(make_section, tmp_path):
    """A flag beside the library, a full-resolution image without a scale factor, every position, Ensembl names."""
    model = fit(make_section(n_spots=64), **fast(genes=["g1", "g3"], validation=0))
    adata = make_section("s1", seed=1, n_spots=64)
    del adata.obs["library_id"]
    entry = adata.uns["spatial"].pop("s1")
    fine = np.asarray(Image.fromarray(entry["images"]["hires"]).resize((540, entry["images"]["hires"].shape[0])))
    scales = {"spot_diameter_fullres": 36.0, "mpp": 2.0, "tissue_hires_scalef": 0.5}
    adata.uns["spatial"] = {
        "is_single": np.True_,
        "library": {"images": {"fullres": fine, "hires": fine[::2, ::2]}, "scalefactors": scales},
    }
    adata.obs["in_tissue"] = (np.arange(64) % 4 > 0).astype(int)
    adata.var["feature_name"] = list(adata.var_names)
    adata.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "cellxgene.h5ad")
    out = predict(ad.read_h5ad(tmp_path / "cellxgene.h5ad"), model, **QUIET)
    mean = out.layers["hist2scrna_mean"][:, out.var["hist2scrna_modeled"]]
    assert list(out.var["feature_name"][out.var["hist2scrna_modeled"]]) == ["g1", "g3"]
    np.testing.assert_array_equal(np.isfinite(mean).all(axis=1), adata.obs["in_tissue"] == 1)
