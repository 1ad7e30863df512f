"""Where a function reads: `library_key=None` means the same in all of them."""

from __future__ import annotations

import pytest
from builders import fast

import hist2scrna as h2s
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source, image_of, resolve_library_key

FAST = fast()


def rename_library(adata) -> None:
    adata.uns["spatial"]["elsewhere"] = adata.uns["spatial"].pop("s0")


def drop_images(adata) -> None:
    del adata.uns["spatial"]


def add_flag(adata) -> None:
    adata.uns["spatial"]["is_single"] = True


def drop_column(adata) -> None:
    del adata.obs["library_id"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda adata: None, "library_id"),
        (drop_images, "library_id"),
        (add_flag, "library_id"),
        (drop_column, None),
        (rename_library, None),
    ],
    ids=["names libraries", "no images", "a flag among the libraries", "no column", "names no library"],
)
def test_the_column_is_taken_where_it_names_libraries(change, expected, make_section) -> None:
    adata = make_section()
    change(adata)
    assert resolve_library_key(adata, None) == expected
    assert open_sections(adata, Source()).source.library_key == expected
    assert resolve_library_key(adata, "cell_type") == "cell_type"
    with pytest.raises(KeyError, match=r"'nowhere' not found in adata\.obs"):
        resolve_library_key(adata, "nowhere")


def test_no_key_means_the_same_in_every_function(make_section, tmp_path) -> None:
    """Two sections, told apart by `library_id`: each function finds both, without being told the column."""
    adata = h2s.io.concat([make_section("s0"), make_section("s1", seed=1)])
    adata.uns["spatial"]["is_single"] = False
    model = h2s.tl.fit(adata, **FAST)
    assert model.training["sections"] == ["s0", "s1"]
    predicted = h2s.tl.predict(adata, model, progress=False, accelerator="cpu")
    assert len(predicted.uns["hist2scrna"]["graph"]) == 2
    evaluation = h2s.tl.evaluate(predicted, model, progress=False)
    assert list(evaluation.results["sections"]) == ["s0", "s1"]
    assert evaluation.results["data"]["library_key"] == "library_id"
    assert set(h2s.io.to_spatialdata(adata).shapes) == {"s0", "s1"}
    folder = h2s.io.write_patch_folder(adata, tmp_path / "folder", patch_px=16)
    assert (folder / "spatial_coordinates.csv").read_text().startswith("spot_id,x,y,library_id\n")
    with pytest.raises(ValueError, match="holds 2 sections; one is drawn"):
        h2s.pl.spatial_compare(predicted, "g1")


def test_images_by_section() -> None:
    assert image_of({"s0": "a.tif"}, "s0") == "a.tif"
    assert image_of("a.tif", "s0") == "a.tif"
    with pytest.raises(KeyError, match=r"No image for section 's1'.*\['s0'\]"):
        image_of({"s0": "a.tif"}, "s1")
