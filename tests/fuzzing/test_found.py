"""What damaged files and odd AnnData once ended in: each is said in our own words now, or simply works."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import zarr
from platform_files import barcodes, write_section
from sections import section

from hist2scrna import io, pp, tl
from hist2scrna.cli.config import parse_settings
from hist2scrna.cli.reading import read_one
from hist2scrna.cli.request import read_table
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.images.nucleus_polygons import read_polygons
from hist2scrna.images.open import open_file
from hist2scrna.images.pixels import ImageError, reading
from hist2scrna.io import write_patch_folder
from hist2scrna.trained.card_fields import VALUES, wrong_value


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    adata = section()
    adata.obsm["X_f"] = np.random.default_rng(0).normal(size=(adata.n_obs, 4)).astype("float32")
    model = tl.fit(adata, model="ridge", features_key="X_f", progress=False)
    with pytest.warns(UserWarning, match="NOT HELD OUT"):
        found = tl.evaluate(tl.predict(adata, model, progress=False), model, progress=False)
    path = tmp_path_factory.mktemp("scores") / "scores.json"
    found.to_json(path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode().replace(b'"gene"', b'"\xff"', 1),
        lambda text: text.replace('"scores": {', '"scores": true, "x": {', 1).encode(),
        lambda text: json.dumps(json.loads(text) | {"schema_version": None}).encode(),
        lambda text: json.dumps(json.loads(text) | {"genes": {"gene": ["a"], "pearson": [1, 2]}}).encode(),
        lambda text: json.dumps(json.loads(text) | {"genes": {"gene": ["a"], "pearson": ["much"]}}).encode(),
        lambda text: json.dumps(json.loads(text) | {"genes": {"gene": ["a", "b"], "pearson": [10**400, 0.5]}}).encode(),
        lambda text: b"[" * 100_000,
    ],
)
def test_evaluations_that_cannot_be_shown_are_refused(scores, tmp_path, change) -> None:
    (tmp_path / "e.json").write_bytes(change(scores.read_text()))
    with pytest.raises(ValueError, match="no evaluation that hist2scrna wrote|The evaluation is damaged"):
        Evaluation.from_json(tmp_path / "e.json")
    assert str(Evaluation.from_json(scores))


@pytest.mark.parametrize("name", ["s.h5ad", "s.zarr"])
def test_the_damaged_file_is_named(tmp_path, name) -> None:
    path = tmp_path / name
    if name == "s.h5ad":
        section(n_spots=4).write_h5ad(path)
        path.write_bytes(path.read_bytes()[:2000])
    else:
        section(n_spots=4).write_zarr(path)
        (path / "X" / "data" / "0").write_bytes(b"junk")
    with pytest.raises(ValueError, match=rf"'{path}' is damaged, or holds no AnnData: .*Copy or write it again"):
        read_one(path)


@pytest.mark.parametrize(("entry", "value"), [("indptr", 10**9), ("indices", -1), ("shape", -3)])
def test_indices_that_claim_gigabytes_are_refused(tmp_path, entry, value) -> None:
    folder = write_section(tmp_path / "outs", barcodes())
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix"][entry][-1] = value
    with pytest.raises(ValueError, match="holds no matrix of 10x Genomics.*indices do not fit its shape"):
        io.read_visium(folder)


def test_a_card_holds_values_of_their_kind() -> None:
    card = {
        "geometry": {"um": 1.0, "px": 8, "scale_from": "metadata"},
        "encoder": None,
        "parameters": {"spatial_key": "spatial", "seed": 0, "preset": None},
        "training": {"sections": ["a"], "pixel_um": [2.0, 2.0], "unit": {"kind": "spot", "um": None}},
    }
    assert wrong_value(card) is None
    for field, name, value in [
        ("geometry", "um", float("nan")),
        ("geometry", "px", True),
        ("parameters", "seed", -1),
        ("training", "pixel_um", [2.0]),
        ("training", "unit", {"kind": "donkey"}),
        ("training", "sections", "a"),
    ]:
        assert name in VALUES[field]
        assert f"{name!r} in {field!r}" in wrong_value(card | {field: card[field] | {name: value}})


def test_counts_of_half_precision_are_counts() -> None:
    adata = section()
    adata.obsm["X_f"] = np.random.default_rng(0).normal(size=(adata.n_obs, 4)).astype("float32")
    models = []
    for dtype in ("float32", "float16"):
        adata.X = adata.X.toarray().astype(dtype) if dtype == "float32" else adata.X.astype(dtype)
        models.append(tl.fit(adata, model="ridge", features_key="X_f", progress=False))
    np.testing.assert_array_equal(*(model.fingerprints for model in models))


@pytest.mark.parametrize(
    ("shape", "message"), [((300, 540, 2), "channels"), ((0, 9, 3), "The image in .* has no pixel: its shape is")]
)
def test_images_that_no_encoder_reads_are_refused(shape, message) -> None:
    adata = section()
    adata.uns["spatial"]["s0"]["images"]["hires"] = np.full(shape, 200, dtype=np.uint8)
    with pytest.raises(ValueError, match=message):
        pp.extract_features(adata, "morphology", progress=False)


DEEP = "[" * 100_000


def test_json_that_is_nested_without_end_is_refused(tmp_path) -> None:
    write_patch_folder(section(n_spots=4), tmp_path / "f", patch_px=16)
    (tmp_path / "f" / "metadata.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"metadata\.json' is no JSON that can be read"):
        io.read_patch_folder(tmp_path / "f")
    for name in ("n.geojson", "options.json"):
        (tmp_path / name).write_text(DEEP)
    with pytest.raises(ValueError, match=r"n\.geojson' is no GeoJSON with features"):
        read_polygons(tmp_path / "n.geojson", np.eye(3))
    with pytest.raises(ValueError, match=r"options\.json' is no JSON"):
        read_table(tmp_path / "options.json", "models")
    assert parse_settings([f"width={DEEP}"]) == {"width": DEEP}


def test_a_side_of_no_pixels_is_refused(tmp_path) -> None:
    root = zarr.open_group(tmp_path / "i.zarr", mode="w", zarr_format=2)
    for level, shape in enumerate([(3, 0, 40), (3, 0, 20)]):
        root.create_array(str(level), shape=shape, chunks=(3, 8, 8), dtype="uint8")
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
    levels = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [1, 2**n, 2**n]}]} for n in (0, 1)
    ]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    with pytest.raises(ImageError, match=r"sides of image .* its header says 40 x 0"):
        open_file(tmp_path / "i.zarr")


def test_patches_that_would_fill_the_memory_are_refused() -> None:
    with pytest.raises(ValueError, match=r"would be 9,000 pixels wide, more than 8,192\. Pass a smaller patch_um="):
        pp.extract_features(section(), "morphology", patch_px=9000, progress=False)


def test_what_a_decoder_says_is_said_in_our_words() -> None:
    with pytest.raises(ImageError, match="it is damaged: Negative size"), reading("it is damaged"):
        raise SystemError("Negative size passed to PyBytes_FromStringAndSize")
