"""Encoding: one pass for all looks, the same features from the cache, and never those of something else."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hist2scrna import settings
from hist2scrna.encoders.encoder import Encoder
from hist2scrna.fitting.augment import ImageVariation, StainVariation
from hist2scrna.fitting.encode import encode_patches
from hist2scrna.fitting.look import PLAIN, Look
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

CPU = torch.device("cpu")
PX = 32


class Counted:
    """An encoder that counts what it is given: mean and deviation of each color."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        self.n += len(patches)
        return torch.cat([patches.mean(dim=(2, 3)), patches.std(dim=(2, 3))], dim=1)


def spots_of(adata):
    return read_spots(open_sections(adata, Source("library_id")), patch=PatchSize(PX))


def encode(spots, network, *, members=None, looks=PLAIN, **changes):
    encoder = Encoder("counted", network, **{"by_name": True, "sha256": "1", **changes})
    members = np.arange(len(spots)) if members is None else members
    return encode_patches(encoder, spots, members, batch_size=7, device=CPU, progress=False, looks=looks)


@pytest.fixture(scope="module")
def two_sections(make_section):
    import anndata

    parts = [make_section(name, n_spots=n, seed=n) for name, n in (("s0", 20), ("s1", 15))]
    return anndata.concat(parts, uns_merge="unique")


@pytest.fixture(scope="module")
def spots(two_sections):
    return spots_of(two_sections)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "cache_dir", tmp_path)
    return tmp_path


def test_features_are_those_of_each_patch_whatever_the_order_of_the_spots(spots):
    members = np.random.default_rng(0).permutation(len(spots))[:30]
    (features,) = encode(spots, Counted(), members=members)
    pixels = spots.patches.read(members) / 255
    expected = np.concatenate([pixels.mean(axis=(2, 3)), pixels.std(axis=(2, 3), ddof=1)], axis=1)
    np.testing.assert_allclose(features[members], expected, atol=1e-5)
    left_out = np.setdiff1d(np.arange(len(spots)), members)
    assert np.isnan(features[left_out]).all()


def test_all_looks_take_one_reading_and_a_spot_is_varied_alike_whatever_is_read_with_it(
    spots, two_sections, monkeypatch
):
    read = []
    cut = type(spots.patches).cut
    monkeypatch.setattr(type(spots.patches), "cut", lambda self, index: read.extend(index) or cut(self, index))
    looks = [Look.of(variation, spots, 3) for variation in (StainVariation(), ImageVariation())]
    first, second = encode(spots, Counted(), looks=looks)
    assert sorted(read) == list(range(len(spots)))
    assert np.abs(first - second).max() > 1e-3
    one = two_sections[two_sections.obs["library_id"] == "s1"].copy()
    one.uns["spatial"] = {"s1": two_sections.uns["spatial"]["s1"]}
    alone = spots_of(one)
    looks = [Look.of(variation, alone, 3) for variation in (StainVariation(), ImageVariation())]
    for whole, part in zip((first, second), encode(alone, Counted(), looks=looks), strict=True):
        np.testing.assert_allclose(part, whole[20:], atol=1e-6)
    other = Look.of(StainVariation(), spots, 4)
    assert np.abs(encode(spots, Counted(), looks=[other])[0] - first).max() > 1e-3


def test_nothing_is_encoded_twice_and_the_header_says_what_it_is(spots, cache):
    network = Counted()
    looks = [Look.of(StainVariation(), spots, 0), Look()]
    first = encode(spots, network, looks=looks)
    assert network.n == 2 * len(spots)
    again = encode(spots, network, looks=looks)
    assert network.n == 2 * len(spots)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    files = sorted((cache / "features").iterdir())
    assert len(files) == 2
    with safe_open(files[0], "np") as file:
        assert file.metadata()["section"] in ("s0", "s1") and '"counted"' in file.metadata()["encoder"]
    # A section that was encoded before is taken from there, and what is new is added.
    encode(spots, network, looks=looks, members=np.arange(20))
    assert network.n == 2 * len(spots)
    encode(spots, network, looks=looks, members=np.arange(19))
    assert network.n == 2 * len(spots) + 2 * 19


def test_whatever_changes_features_changes_their_name(two_sections, make_section, cache):
    network = Counted()
    spots = spots_of(make_section())

    def is_new(changed=spots, **arguments) -> bool:
        before = network.n
        encode(changed, network, **arguments)
        return network.n > before

    assert is_new() and not is_new()
    assert is_new(sha256="2") and is_new(version="2") and is_new(colors=((0.5,) * 3, (0.2,) * 3))
    assert is_new(looks=[Look.of(StainVariation(), spots, 0)]) and is_new(looks=[Look.of(StainVariation(), spots, 1)])
    moved, painted = make_section(), make_section()
    moved.obsm["spatial"] = moved.obsm["spatial"] + 1.0
    # Far from any spot: the pixels of the image are another's all the same.
    painted.uns["spatial"]["s0"]["images"]["hires"][0, 0] = 0
    assert is_new(spots_of(moved)) and is_new(spots_of(painted))
    wider = read_spots(open_sections(make_section(), Source("library_id")), patch=PatchSize(PX, um=200.0))
    assert is_new(wider)
    assert not is_new(spots_of(make_section()))
    assert is_new(by_name=False) and is_new(by_name=False)


def test_an_image_in_a_file_is_told_by_path_size_and_time(make_section, tmp_path, cache):
    from PIL import Image

    adata, network = make_section(), Counted()
    file = tmp_path / "image.png"
    Image.fromarray(adata.uns["spatial"]["s0"]["images"]["hires"]).save(file)

    def n_encoded() -> int:
        before = network.n
        opened = open_sections(adata, Source("library_id", image=file))
        encode(read_spots(opened, patch=PatchSize(PX)), network)
        return network.n - before

    assert [n_encoded(), n_encoded()] == [40, 0]
    os.utime(file, (1, 1))
    assert n_encoded() == 40


@pytest.mark.parametrize("damage", ["cut off", "other file", "other rows"])
def test_a_damaged_file_is_computed_again_with_a_warning(make_section, cache, damage):
    from safetensors.torch import save_file

    network, spots = Counted(), spots_of(make_section())
    (expected,) = encode(spots, network)
    (file,) = (cache / "features").iterdir()
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "other file":
        save_file({"weights": torch.ones(3)}, file)
    else:
        save_file({"look_0": torch.ones(3, 6)}, file)
    with pytest.warns(UserWarning, match=r"cached features .* computed again"):
        (found,) = encode(spots, network)
    np.testing.assert_array_equal(found, expected)
    assert network.n == 2 * len(spots)
    encode(spots, network)
    assert network.n == 2 * len(spots)


def test_a_folder_that_cannot_be_is_refused_before_the_work(make_section, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        settings.cache_dir = tmp_path / "file"
    with pytest.raises(TypeError, match="path of a folder or None, found int"):
        settings.cache_dir = 3
    monkeypatch.setattr(settings, "cache_dir", tmp_path / "file" / "cache")
    network = Counted()
    with pytest.raises(OSError, match="Nothing can be written"):
        encode(spots_of(make_section()), network)
    assert network.n == 0
    settings.cache_dir = None
    monkeypatch.setenv("HIST2SCRNA_CACHE_DIR", str(tmp_path))
    assert settings.cache_dir == tmp_path
