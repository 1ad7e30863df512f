"""The sections of an AnnData are opened once, however many parts of a function look at them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from builders import fast
from PIL import Image

import hist2scrna as h2s
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

FAST = fast()


@pytest.fixture
def two_sections(make_section, tmp_path):
    """One section with its image in a file, the other with it in AnnData."""
    first, second = make_section("s0"), make_section("s1", seed=1)
    entry = first.uns["spatial"]["s0"]
    Image.fromarray(entry["images"].pop("hires")).save(tmp_path / "s0.png")
    entry["metadata"]["source_image_path"] = str(tmp_path / "s0.png")
    return h2s.io.concat([first, second])


@pytest.fixture
def openings(monkeypatch):
    """How often each image was opened, by where it was read from."""
    from hist2scrna.spots import library

    count: Counter[str] = Counter()

    def counted(opener):
        def open_and_count(*arguments):
            image = opener(*arguments)
            count[image.origin] += 1
            return image

        return open_and_count

    monkeypatch.setattr(library, "open_file", counted(library.open_file))
    monkeypatch.setattr(library, "stack_of_array", counted(library.stack_of_array))
    return count


def test_each_image_is_opened_once_in_fit_and_predict_and_evaluate(two_sections, openings, tmp_path) -> None:
    origins = {str(tmp_path / "s0.png"): 1, "adata.uns['spatial']['s1']['images']['hires']": 1}
    model = h2s.tl.fit(two_sections, **FAST)
    assert openings == origins
    openings.clear()
    h2s.tl.predict(two_sections.copy(), model, progress=False, accelerator="cpu")
    assert openings == origins
    openings.clear()
    evaluation = h2s.tl.evaluate(two_sections, model, progress=False)
    assert evaluation.results["model"]["predicted_by_evaluate"]
    assert openings == origins


def test_a_radius_in_microns_opens_no_image_again(two_sections, openings) -> None:
    opened = open_sections(two_sections, Source())
    assert openings == {}, "nothing is opened before it is needed"
    for section in opened.members:
        assert section.scale.mpp == 2.0
        assert section.image.size() == section.image.size()
        assert section.coarse_image(0.01) is section.image
    assert set(openings.values()) == {1}


def test_the_smallest_image_that_is_fine_enough_is_drawn(make_section) -> None:
    adata = make_section()
    entry = adata.uns["spatial"]["s0"]
    entry["images"]["lowres"] = entry["images"]["hires"][::4, ::4]
    entry["scalefactors"]["tissue_lowres_scalef"] = 0.25
    (section,) = open_sections(adata, Source()).members
    assert section.image.scale == 1.0
    assert section.coarse_image(0.2).scale == 0.25
    assert section.coarse_image(0.3).scale == 1.0
    assert section.coarse_image(2.0).scale == 1.0


def test_an_image_called_fullres_is_at_full_resolution(make_section) -> None:
    adata = make_section()
    entry = adata.uns["spatial"]["s0"]
    entry["images"]["fullres"] = np.repeat(np.repeat(entry["images"]["hires"], 2, 0), 2, 1)
    entry["scalefactors"]["tissue_hires_scalef"] = 0.5
    (section,) = open_sections(adata, Source()).members
    assert section.image.origin.endswith("['fullres']")
    assert section.image.scale == 1.0
