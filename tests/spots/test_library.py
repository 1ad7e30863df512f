"""The entry of a library in `.uns["spatial"]`: its images and their scale factors."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hist2scrna.spots.library import open_image


def test_finest_image_is_taken_and_file_wins(make_section, tmp_path):
    adata = make_section()
    entry = adata.uns["spatial"]["s0"]
    entry["images"]["lowres"] = entry["images"]["hires"][::4, ::4]
    entry["scalefactors"]["tissue_lowres_scalef"] = 0.25
    assert open_image(adata, None).scale == 1.0
    assert open_image(adata, "s0", img_key="lowres").scale == 0.25
    path = tmp_path / "full.png"
    Image.fromarray(np.repeat(np.repeat(entry["images"]["hires"], 2, 0), 2, 1)).save(path)
    entry["metadata"]["source_image_path"] = str(path)
    assert open_image(adata, None).origin == str(path)
    entry["metadata"]["source_image_path"] = str(tmp_path / "gone.tif")
    with pytest.warns(UserWarning, match=r"gone\.tif.*not there.*hires"):
        assert open_image(adata, None).scale == 1.0
