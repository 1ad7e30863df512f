"""What `model="auto"` stands for."""

from __future__ import annotations

import numpy as np
import pytest

from hist2scrna.models.choose import MOST_SPOTS, choose_model
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source
from hist2scrna.trained.fit import choose


@pytest.mark.parametrize(
    ("n_spots", "data", "name"),
    [
        (1, {}, "kernel"),
        (MOST_SPOTS, {}, "kernel"),
        (MOST_SPOTS + 1, {}, "hist2scrna-lightweight"),
        (100, {"channels": 5}, "hist2scrna"),
        (100, {"patch_files": True}, "hist2scrna"),
        (100, {"features_key": True}, "kernel"),
        (MOST_SPOTS + 1, {"features_key": True}, "hist2scrna-lightweight"),
    ],
)
def test_the_data_alone_choose(n_spots, data, name) -> None:
    choice = choose_model(n_spots, **data)
    assert choice.name == name
    assert choice.reason


@pytest.mark.parametrize(("channels", "name"), [(3, "kernel"), (5, "hist2scrna")])
def test_images_of_further_stains_choose_a_network(make_section, channels, name) -> None:
    image = np.random.default_rng(0).integers(0, 255, (400, 540, channels)).astype(np.uint8)
    assert choose(open_sections(make_section(), Source(image=image)), "auto").name == name
    assert choose(open_sections(make_section(), Source(image=image)), "stnet").name == "stnet"
