"""The recipe for an encoder in CONTRIBUTING: a function; rows of the table of published ones are tested there."""

from __future__ import annotations

import numpy as np

from hist2scrna.pp import extract_features


def mean_color(patches):
    return patches.mean(dim=(2, 3))


def test_a_toy_encoder_is_a_function(make_section):
    section = make_section()
    extract_features(section, mean_color, patch_px=8, progress=False)
    features = section.obsm["X_mean_color"]
    assert features.shape == (section.n_obs, 3) and features.dtype == np.float32
    # Tumor is drawn dark blue, stroma light red: red tells them apart.
    tumor = (section.obs["cell_type"] == "tumor").to_numpy()
    assert features[tumor, 0].max() < features[~tumor, 0].min()
