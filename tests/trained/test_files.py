"""Saved models: read without moving random state; what is damaged or foreign is refused before memory is allocated."""

from __future__ import annotations

import json
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from builders import fast

from hist2scrna import TrainedModel
from hist2scrna.models.create import create_model
from hist2scrna.models.registry import OUR_MODELS, model_entry
from hist2scrna.tl import fit, predict
from hist2scrna.trained.files import CARD, FILES, card_sha256

KINDS = {"network": {}, "kernel": {"model": "kernel", "encoder": "morphology"}}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, make_section, tmp_path_factory):
    arguments = fast(labels_key="cell_type") if request.param == "network" else {"progress": False, **KINDS["kernel"]}
    return fit(make_section(), **arguments).save(tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture
def broken(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def rewrite(folder, **changes):
    """Change the card, and sign it anew, as somebody who builds a folder by hand would."""
    card = json.loads((folder / CARD).read_text()) | changes
    card["sha256"][CARD] = card_sha256(card)
    (folder / CARD).write_text(json.dumps(card))


def test_random_state_is_left_as_it_was(folder, make_section):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    model = TrainedModel.load(folder)
    for given in (folder, model):
        predict(make_section(), given, progress=False, accelerator="cpu")
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("name", [CARD, *FILES])
def test_no_flipped_bit_is_taken(broken, name):
    path = broken / name
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place, bit in zip(rng.integers(0, len(good), 40), rng.integers(0, 8, 40), strict=True):
        bad = bytearray(good)
        bad[place] ^= 1 << int(bit)
        path.write_bytes(bytes(bad))
        try:
            TrainedModel.load(broken)
        except ValueError as error:
            # Of the format, the name and the files the card speaks before its checksum is compared.
            assert str(broken) in str(error) and not isinstance(error, UnicodeDecodeError)
        else:
            # White space between the values of the card means nothing.
            assert name == CARD and json.loads(bytes(bad)) == json.loads(good)


@pytest.mark.parametrize("name", [CARD, *FILES])
@pytest.mark.parametrize("content", [None, b"", b"\xff\x00"])
def test_files_that_are_missing_empty_or_junk_are_named(broken, name, content):
    if content is None:
        (broken / name).unlink()
    else:
        (broken / name).write_bytes(content)
    with pytest.raises(FileNotFoundError if content is None else ValueError, match=rf"{name}|damaged"):
        TrainedModel.load(broken)


@pytest.mark.parametrize("value", [None, 3, "ab", [1], {"a": 1}, [["a"]]])
def test_values_of_another_type_are_refused(broken, value):
    card = json.loads((broken / CARD).read_text())
    for field in card:
        same = isinstance(value, type(card[field])) and not isinstance(value, dict)
        optional = value is None and field in ("encoder", "geometry")
        if field in ("module", "sha256") or same or optional:
            continue
        (broken / CARD).write_text(json.dumps(card))
        rewrite(broken, **{field: value})
        with pytest.raises(ValueError, match=rf"(?s){broken}.*damaged"):
            TrainedModel.load(broken)


@pytest.mark.parametrize("content", ["null", "[]", "3", '"card"', "{}", "[" * 100_000])
def test_a_card_of_another_kind_is_refused(broken, content):
    (broken / CARD).write_text(content)
    with pytest.raises(ValueError, match="damaged"):
        TrainedModel.load(broken)


@pytest.mark.parametrize("field", ["genes", "classes"])
def test_names_that_occur_twice_are_refused(broken, field):
    rewrite(broken, **{field: ["a", "a"]})
    with pytest.raises(ValueError, match=rf"damaged: '{field}' in model\.json"):
        TrainedModel.load(broken)


def test_a_card_that_claims_more_than_its_tensors_hold_allocates_nothing(broken):
    card = json.loads((broken / CARD).read_text())
    claims = [{"genes": [f"g{i}" for i in range(200_000)]}]
    for option in card["options"]:
        if isinstance(card["options"][option], int) and not isinstance(card["options"][option], bool):
            claims += [{"options": card["options"] | {option: size}} for size in (96 * 300, 10**9, 10**30, -1)]
    refused = 0
    for claim in claims:
        (broken / CARD).write_text(json.dumps(card))
        rewrite(broken, **claim)
        before = torch.random.get_rng_state()
        tracemalloc.start()
        try:
            TrainedModel.load(broken)
        except ValueError as error:
            refused += 1
            assert "damaged" in str(error)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 200 * 2**20
        assert torch.equal(torch.random.get_rng_state(), before)
    assert refused >= len(claims) / 2


@pytest.mark.parametrize("name", OUR_MODELS)
def test_every_model_is_measured_without_memory(name):
    options = {"n_features": 8} if model_entry(name).model.needs == "features" else {}
    with torch.device("meta"):
        draft = create_model(name, n_genes=5, n_classes=0, **options)
    real = create_model(name, n_genes=5, n_classes=0, **options)
    assert {k: v.shape for k, v in draft.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}
