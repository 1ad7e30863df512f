"""The small image that the files of these tests hold."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import HEIGHT, WIDTH


@pytest.fixture(scope="module")
def marked_pixels():
    """Noise, wider than high, with a red marker of 30 x 14 px centered on (401, 83), blue above it and green left."""
    pixels = np.random.default_rng(0).integers(170, 250, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    pixels[76:90, 386:416] = (210, 20, 30)
    pixels[66:76, 386:416] = (20, 30, 200)
    pixels[76:90, 376:386] = (30, 190, 40)
    return pixels
