"""The same patches and predictions, whichever kind of file the image is read from."""

from __future__ import annotations

import numpy as np
import pytest
from builders import fast
from image_files import HEIGHT, MARKER, WAYS, WIDTH, WRITERS, ome_zarr, pyramid_tiff

from hist2scrna.images.base import ArrayImage, cut_patches
from hist2scrna.images.open import open_file
from hist2scrna.tl import fit, predict


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_patches_of_the_array(way, marked_pixels, tmp_path):
    """At full resolution pixel for pixel, over the border too; coarser, the marker is where it was."""
    image, array = open_file(WRITERS[way](tmp_path, marked_pixels)), ArrayImage(marked_pixels, 1.0, "test")
    assert image.size() == (WIDTH, HEIGHT)
    xy = np.array([*MARKER, [0.0, 0.0], [WIDTH, HEIGHT], [64.0, 64.0], [130.4, 300.7], [-300.0, 20.0]])
    np.testing.assert_array_equal(cut_patches(image, xy, 40, 40), cut_patches(array, xy, 40, 40))
    coarse, same = (cut_patches(i, MARKER, 120, 30)[0].astype(float) for i in (image, array))
    for channel, other in ((0, 2), (2, 0), (1, 0)):
        found, expected = (np.clip(p[channel] - p[other] - 80, 0, None) for p in (coarse, same))
        for axis in (0, 1):
            centers = [(m.sum(axis=axis) * np.arange(30)).sum() / m.sum() for m in (found, expected)]
            assert centers[0] == pytest.approx(centers[1], abs=0.25), (channel, axis)
    assert np.abs(coarse - same).mean() < 4


@pytest.fixture(scope="module")
def predicted(make_section):
    """A model that was hardly trained, a section without an image, the image, and what is predicted on it."""
    model = fit(make_section(n_spots=16), **fast(validation=0, patch_um=63, lr=1e-12))
    section = make_section(n_spots=16, seed=2)
    pixels = section.uns["spatial"]["s0"]["images"].pop("hires")
    means = predict(section.copy(), model, image=pixels, progress=False).layers["hist2scrna_mean"]
    turned = predict(section.copy(), model, image=pixels[::-1], progress=False).layers["hist2scrna_mean"]
    assert np.abs(means - turned).max() > 1e-4, "the predictions tell one tissue from another"
    return model, section, pixels, means


@pytest.mark.parametrize(
    "way", [w for w in WAYS if w.values[0] not in ("planar strips", "lzw", "bigtiff", "no suffix")]
)
def test_every_way_in_gives_the_same_prediction(way, predicted, tmp_path):
    model, section, pixels, means = predicted
    named = section.copy()
    named.uns["spatial"]["s0"]["metadata"] = {"source_image_path": str(WRITERS[way](tmp_path, pixels))}
    np.testing.assert_array_equal(predict(named, model, progress=False).layers["hist2scrna_mean"], means)


@pytest.mark.parametrize("form", ["path", "text", "by section"])
def test_a_path_is_taken_as_argument(form, predicted, tmp_path):
    model, section, pixels, means = predicted
    path = ome_zarr(tmp_path / "p.zarr", pixels)
    image = {"path": path, "text": str(path), "by section": {"s0": path}}[form]
    out = predict(section.copy(), model, image=image, progress=False)
    np.testing.assert_array_equal(out.layers["hist2scrna_mean"], means)


def test_predictions_from_coarser_levels_are_close(predicted, tmp_path):
    """A patch over four times the side comes from a level at half the scale: resampling aside, the same."""
    from dataclasses import replace

    model, section, pixels, _ = predicted
    model = replace(model, geometry=replace(model.geometry, um=4 * 63))
    path = pyramid_tiff(tmp_path / "p.tif", pixels, factors=(2,))
    image = open_file(path)
    assert image.scales[image.level_for(model.geometry.px / (4 * 31.5))] == 0.5
    means, coarse, turned = (
        predict(section.copy(), model, image=source, progress=False).layers["hist2scrna_mean"]
        for source in (pixels, path, pixels[::-1])
    )
    assert np.abs(coarse - means).max() < 0.25 * np.abs(turned - means).max()


def test_a_slide_alone_is_enough_for_prediction(predicted, tmp_path):
    """No `.uns`, no `mpp=`: the file tells."""
    model, section, pixels, means = predicted
    bare = section.copy()
    del bare.uns["spatial"]
    out = predict(bare, model, image=ome_zarr(tmp_path / "p.zarr", pixels, um=2.0), progress=False)
    np.testing.assert_array_equal(out.layers["hist2scrna_mean"], means)
