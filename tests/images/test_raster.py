"""JPEG and PNG: decoded whole, but small for a thumbnail."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import MARKER, pyramid_tiff
from PIL import Image

from hist2scrna.evaluation.thumbnail import thumbnail_jpeg
from hist2scrna.images import tiles
from hist2scrna.images.base import ArrayImage, thumbnail
from hist2scrna.images.open import open_file
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source


def test_jpeg_is_not_decoded_whole_for_a_thumbnail(tmp_path):
    pixels = np.full((1600, 2400, 3), 230, np.uint8)
    pixels[200:400, 1800:2200] = (150, 40, 120)
    Image.fromarray(pixels).save(tmp_path / "p.jpg", quality=95)
    tiles.CACHE.clear()
    small, scale = thumbnail(open_file(tmp_path / "p.jpg"))
    assert tiles.CACHE.nbytes == 0
    expected, same = thumbnail(ArrayImage(pixels, 1.0, "test"))
    assert (small.shape, scale) == (expected.shape, same)
    assert np.abs(small.astype(int) - expected).mean() < 3


def test_thumbnail_and_preview_read_the_level_they_need(marked_pixels, make_section, tmp_path):
    large = np.repeat(np.repeat(marked_pixels, 6, 0), 6, 1)
    image = open_file(pyramid_tiff(tmp_path / "p.tif", large, (2, 4)))
    small, scale = thumbnail(image)
    assert 256 <= max(small.shape) < 512
    y, x = (MARKER[0, ::-1] * 6 * scale).astype(int)
    assert small[y, x].tolist() == [210, 20, 30]
    section = make_section()
    section.uns["spatial"]["s0"]["images"] = {}
    section.uns["spatial"]["s0"]["metadata"] = {"source_image_path": str(tmp_path / "p.tif")}
    opened = open_sections(section, Source()).members[0]
    shown = thumbnail_jpeg(opened, np.array([2300.0, 440.0]), np.array([2560.0, 560.0]))
    assert shown["extent"] == pytest.approx([2300, 2560, 560, 440], abs=8)
