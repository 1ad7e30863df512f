"""Several stains: H&E with another image or with single markers, from named images, lists, files or one array."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from builders import fast, spots_of

import hist2scrna as h2s
from hist2scrna.fitting.augment import PatchAugmentation
from hist2scrna.images.base import ArrayImage, cut_patches
from hist2scrna.images.stains import StainStack, stack_of_array
from hist2scrna.spots.library import open_given, open_image


@pytest.fixture
def stained():
    """A section with H&E, a second image at half the resolution, and two markers."""
    (section,) = h2s.datasets.simulate("small", n_spots=30, n_genes=10, seed=4)
    entry = section.uns["spatial"]["section_0"]
    he = entry["images"]["hires"][:, : entry["images"]["hires"].shape[1] // 2 * 2]
    rng = np.random.default_rng(0)
    entry["images"] = {"he": he, "ihc": np.ascontiguousarray(255 - he[::2, ::2])}
    factors = entry["scalefactors"]
    scale = factors.pop("tissue_hires_scalef")
    factors |= {"tissue_he_scalef": scale, "tissue_ihc_scalef": scale / 2}
    markers = rng.integers(0, 256, (*he.shape[:2], 2), dtype=np.uint8)
    return section, he, markers


def test_named_images_are_stacked_in_their_order(stained) -> None:
    section, _, _ = stained
    xy = np.asarray(section.obsm["spatial"], dtype=float)
    stack = open_image(section, "section_0", img_key=["ihc", "he"])
    alone = [open_image(section, "section_0", img_key=key) for key in ("ihc", "he")]
    assert stack.channels == 6
    np.testing.assert_array_equal(
        cut_patches(stack, xy, 40.0, 16), np.concatenate([cut_patches(one, xy, 40.0, 16) for one in alone], axis=1)
    )


@pytest.mark.parametrize(("channels", "colors"), [(2, 0), (5, 3), (7, 3)])
def test_array_with_more_channels_is_rgb_and_markers(stained, channels, colors) -> None:
    _, he, markers = stained
    more = np.concatenate([he, markers, 255 - markers], axis=2)
    array = {2: markers, 5: more[:, :, :5], 7: more}[channels]
    stack = stack_of_array(array, 1.0, "test")
    assert stack.channels == channels
    # Whole pixels: a patch as wide as its window is that window.
    patch = cut_patches(stack, np.array([[60.0, 40.0]]), 20.0, 20)[0]
    np.testing.assert_array_equal(patch, array[30:50, 50:70].transpose(2, 0, 1))
    assert len(stack.parts) == channels - colors + bool(colors)
    assert stack.size() == (he.shape[1], he.shape[0])


def test_fit_and_predict_on_two_stains(stained, tmp_path) -> None:
    section, _, _ = stained
    model = h2s.tl.fit(section, **fast(img_key=["he", "ihc"]))
    assert model.options["channels"] == 6
    assert model.module.vit.patch_embed.proj.weight.shape[1] == 6
    again = h2s.TrainedModel.load(model.save(tmp_path / "m"))
    before = again.predict(section, copy=True, progress=False)
    # The stains of the training are remembered, and the second one is read.
    section.uns["spatial"]["section_0"]["images"]["ihc"][:] = 0
    after = again.predict(section, copy=True, progress=False)
    assert np.abs(before.layers["hist2scrna_mean"] - after.layers["hist2scrna_mean"]).max() > 0
    with pytest.raises(ValueError, match=r"reads 6 channels, the \w+ here has 3"):
        again.predict(section, img_key="he", copy=True, progress=False)


def test_files_and_arrays_side_by_side(stained, tmp_path) -> None:
    section, he, markers = stained
    for name, pixels in {"he": he, "ihc": 255 - he}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
    given = {"library_key": "library_id", "spatial_key": "spatial", "patch_px": 16}
    paths = [tmp_path / "he.tif", tmp_path / "ihc.tif"]
    files = spots_of(section, image=paths, **given).patches.read(np.arange(30))
    arrays = spots_of(section, image={"section_0": [he, 255 - he]}, **given).patches.read(np.arange(30))
    np.testing.assert_array_equal(files, arrays)
    assert files.shape == (30, 6, 16, 16)
    five = spots_of(section, image=np.concatenate([he, markers], axis=2), **given).patches.read(np.arange(30))
    np.testing.assert_array_equal(five[:, :3], files[:, :3])
    model = h2s.tl.fit(section, **fast(image=np.concatenate([he, markers], axis=2)))
    assert model.options["channels"] == 5


def test_images_of_different_extent_are_refused(stained) -> None:
    section, he, _ = stained
    with pytest.raises(ValueError, match="must be registered"):
        open_given([he, he[:-20]])
    with pytest.raises(ValueError, match="empty"):
        StainStack([])
    with pytest.raises(KeyError, match="'if' not found"):
        open_image(section, "section_0", img_key=["he", "if"])


def test_models_of_rgb_refuse_more(stained) -> None:
    section, _, _ = stained
    with pytest.raises(ValueError, match=r"reads RGB images, these have 6"):
        h2s.tl.fit(section, **fast(model="stnet", img_key=["he", "ihc"], preset=None, patch_px=32))


def test_augmentation_moves_all_channels_alike_and_leaves_further_colors(stained) -> None:
    import torch

    from hist2scrna.models import SpotBatch

    torch.manual_seed(0)
    one = torch.randint(0, 256, (40, 1, 12, 12), dtype=torch.uint8)
    batch = SpotBatch(
        40,
        torch.zeros(40, 2),
        torch.zeros(2, 0, dtype=torch.long),
        torch.zeros(40, dtype=torch.long),
        patches=one.expand(-1, 5, -1, -1).contiguous(),
    )
    seen = PatchAugmentation()(batch).patches
    torch.testing.assert_close(seen[:, 3], seen[:, 4])
    views = [torch.rot90(one.float() / 255, k, (2, 3)) for k in range(4)]
    views += [view.flip(3) for view in views]
    nearest = torch.stack([(seen[:, 3:4] - view).abs().amax(dim=(1, 2, 3)) for view in views]).amin(dim=0)
    assert nearest.max() < 1e-5
    assert (seen[:, 0] - seen[:, 3]).abs().max() > 0.01


def test_rgb_is_read_as_before(stained) -> None:
    _, he, _ = stained
    assert isinstance(stack_of_array(he, 1.0, "test"), ArrayImage)
    assert stack_of_array(he[:, :, 0], 1.0, "test").channels == 3
