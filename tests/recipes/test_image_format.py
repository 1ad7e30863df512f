"""The recipe for an image format in CONTRIBUTING: a class and a row, after which every function reads such files."""

from __future__ import annotations

import numpy as np
import pytest

from hist2scrna import pp
from hist2scrna.images import open as formats
from hist2scrna.images.base import SectionImage


class NumpyImage(SectionImage):
    """An array that was written by NumPy."""

    def __init__(self, path, scale):
        self.pixels = np.load(path, allow_pickle=False)
        self.scales, self.origin = (scale,), str(path)

    def size(self, level=0):
        height, width, _ = self.pixels.shape
        return width, height

    def read(self, level, x, y, width, height):
        return self.pixels[y : y + height, x : x + width]


def test_a_toy_format_is_a_class_and_a_row(tmp_path, make_section, monkeypatch):
    section = make_section()
    pixels = section.uns["spatial"]["s0"]["images"].pop("hires")
    path = tmp_path / "section.npy"
    np.save(path, pixels)
    with pytest.raises(ValueError, match="section.npy"):
        formats.open_file(path)

    monkeypatch.setattr(formats, "FORMATS", [formats.Format(NumpyImage, (".npy",)), *formats.FORMATS])
    image = formats.open_file(path)
    np.testing.assert_array_equal(image.read(0, 5, 7, 20, 10), pixels[7:17, 5:25])

    section.uns["spatial"]["s0"]["metadata"] = {"source_image_path": str(path)}
    pp.extract_features(section, lambda x: x.mean(dim=(2, 3)), key_added="X_color", patch_px=8, progress=False)
    arrays = make_section()
    pp.extract_features(arrays, lambda x: x.mean(dim=(2, 3)), key_added="X_color", patch_px=8, progress=False)
    np.testing.assert_array_equal(section.obsm["X_color"], arrays.obsm["X_color"])
