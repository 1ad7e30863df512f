"""What tests of reading platforms share."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
from platform_files import draw_squares


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "image.tif", draw_squares(), photometric="rgb", tile=(64, 64))
    return tmp_path / "image.tif"
