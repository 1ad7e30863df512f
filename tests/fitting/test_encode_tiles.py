"""Dense spots: an image that is encoded once gives each spot the maps at its place, whichever tile that is in."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from builders import spots_of
from torch import nn
from torch.nn import functional as F

import hist2scrna as h2s
from hist2scrna.encoders.encoder import Encoder, TileMaps
from hist2scrna.encoders.windows import integrals_of, statistics_in
from hist2scrna.fitting import encode_tiles
from hist2scrna.fitting.augment import ImageVariation, StainVariation
from hist2scrna.fitting.encode import encode_patches
from hist2scrna.fitting.feature_store import FeatureStore
from hist2scrna.fitting.look import Look

CPU = torch.device("cpu")
TOKEN, PX, SIDE = 8, 32, 128


class Colors(nn.Module):
    """Maps are the colors of each token."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, tiles):
        self.seen += len(tiles)
        return F.avg_pool2d(tiles, TOKEN)


def read(integrals, places, side):
    return torch.cat(statistics_in(integrals, places, side), dim=1)


def colors(fields=(1,), **changes):
    network = Colors()
    maps = TileMaps(network, 0.0, read)
    how = {"px": PX * fields[-1], "fields_of_view": fields, "token_px": TOKEN, "width": 6 * len(fields), "maps": maps}
    return Encoder("colors", network, **{**how, **changes})


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(encode_tiles, "SIDE", SIDE)


def dense(n=80, width=300, height=170, seed=0):
    """Places on whole pixels of a picture, patches of which are cut pixel for pixel."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    adata = ad.AnnData(np.ones((n, 2), dtype=np.float32), obsm={"spatial": rng.integers(0, (width, height), (n, 2))})
    scale = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 20.0, "mpp": 1.0}
    adata.uns["spatial"] = {"s": {"images": {"hires": picture}, "scalefactors": scale, "metadata": {}}}
    return adata


def spots_with(adata, encoder):
    return spots_of(adata, patch_px=encoder.px, patch_um=float(encoder.px))


def encode(encoder, spots, members=None, **how):
    members = np.arange(len(spots)) if members is None else members
    return encode_patches(encoder, spots, members, batch_size=4, device=CPU, progress=False, **how)


def test_features_are_those_of_windows_of_the_tokens():
    adata, encoder = dense(), colors()
    (features,) = encode(encoder, spots_with(adata, encoder))
    picture = adata.uns["spatial"]["s"]["images"]["hires"]
    # Tokens begin at the corner of the tile that a spot lies in: half a window and two tokens before its core.
    around = PX // 2 + 2 * TOKEN
    core = SIDE - 2 * around
    padded = np.pad(picture, ((around, SIDE), (around, SIDE), (0, 0)), constant_values=255) / 255
    for (x, y), found in zip(adata.obsm["spatial"].astype(int), features, strict=True):
        left, top = x // core * core, y // core * core
        tile = padded[top : top + SIDE, left : left + SIDE]
        tokens = tile.reshape(SIDE // TOKEN, TOKEN, SIDE // TOKEN, TOKEN, 3).mean(axis=(1, 3))
        pixels = tokens.repeat(TOKEN, axis=0).repeat(TOKEN, axis=1)
        column, row = x - left + around - PX // 2, y - top + around - PX // 2
        window = pixels[row : row + PX, column : column + PX]
        np.testing.assert_allclose(found, [*window.mean(axis=(0, 1)), *window.std(axis=(0, 1))], atol=1e-5)


def test_what_a_spot_reads_does_not_depend_on_the_others(tmp_path):
    adata, encoder = dense(), colors((1, 2))
    spots = spots_with(adata, encoder)
    (whole,) = encode(encoder, spots)
    some = np.array([3, 4, 50, 71])
    (part,) = encode(encoder, spots, some)
    np.testing.assert_array_equal(part[some], whole[some])
    assert np.isnan(np.delete(part, some, axis=0)).all()
    kept = FeatureStore(len(spots), tmp_path / "kept", {})
    kept.write(some, whole[some])
    (stored,) = encode(encoder, spots, kept=kept)
    np.testing.assert_array_equal(stored, whole)


def test_each_tile_passes_once_however_many_spots_it_shows():
    encoders = [colors(), colors()]
    for encoder, n in zip(encoders, (400, 4000), strict=True):
        encode(encoder, spots_with(dense(n), encoder))
    few, many = (encoder.network.seen for encoder in encoders)
    core = SIDE - PX - 4 * TOKEN
    assert few == many == -(-300 // core) * -(-170 // core)


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [0, 1])
def test_places_move_with_the_pixels(quarters, mirrored):
    variation = ImageVariation()
    drawn = list(variation.draw(1, torch.Generator().manual_seed(0)))
    drawn[2:] = [torch.tensor([quarters]), torch.tensor([mirrored]), torch.zeros(1)]
    picture = torch.zeros((1, 3, 9, 9))
    picture[0, :, 2, 5] = 1
    seen = variation.vary(picture, drawn)[0].mean(dim=0)
    row, column = divmod(int(seen.argmax()), 9)
    moved = variation.moved(torch.tensor([[5.5, 2.5]]), 9, drawn)
    assert moved.tolist() == [[column + 0.5, row + 0.5]]
    assert StainVariation().moved(moved, 9, drawn[:2]) is moved


def test_tiles_that_are_turned_tell_the_same_of_each_place():
    adata, encoder = dense(), colors((1, 2))
    spots = spots_with(adata, encoder)
    turned = Look.of(ImageVariation(amount=0.0), spots, seed=1)
    turned.drawn[-1][:] = 0
    assert turned.drawn[2].unique().numel() > 1
    (plain,), (other,) = encode(encoder, spots), encode(encoder, spots, looks=[turned])
    np.testing.assert_allclose(other, plain, atol=1e-4)


def test_who_watches_sees_the_narrowest_field_of_view_of_each_spot():
    adata, encoder = dense(), colors((1, 2))
    adata.obsm["spatial"] = np.clip(adata.obsm["spatial"], 20, (270, 140))
    spots = spots_with(adata, encoder)
    seen = {}
    encode(encoder, spots, watch=lambda members, patches: seen.update(zip(members.tolist(), patches, strict=True)))
    assert sorted(seen) == list(range(len(spots)))
    cut = spots.patches.cut(np.arange(len(spots)))
    middle = slice(PX // 2, PX // 2 + PX)
    for number, patch in seen.items():
        np.testing.assert_array_equal(patch[:, middle, middle], cut[number][:, middle, middle])


def test_windows_of_whole_maps_are_what_the_networks_give_for_a_patch():
    encoder = h2s.encoders.prepare_encoder("imagenet-tiles")
    patch = torch.rand((1, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (maps,), expected = encoder.maps.network(patch), encoder.network(patch)
    found = encoder.maps.read(integrals_of(maps), torch.tensor([[4.0, 4.0]]), 8.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_encoded_by_tiles_is_refused(make_section, tmp_path):
    with pytest.raises(ValueError, match=r"cuts no patches.*pass 'imagenet\+morphology'"):
        h2s.encoders.prepare_encoder("imagenet-tiles+morphology")
    adata = make_section(n_spots=12)
    h2s.io.write_patch_folder(adata, tmp_path / "patches", patch_px=64)
    folder = h2s.io.read_patch_folder(tmp_path / "patches")
    with pytest.raises(
        ValueError, match=r"reads tiles of the image, and section .* has patches in files\. Pass image="
    ):
        h2s.pp.extract_features(folder, "imagenet-tiles", progress=False)


@pytest.mark.slow
def test_a_model_reads_tiles_again_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(encode_tiles, "SIDE", 1344)
    train, test = h2s.datasets.simulate(n_sections=2, n_spots=60, n_genes=12, level="cell", mpp=0.5)
    model = h2s.tl.fit(train, model="kernel", encoder="imagenet-tiles", progress=False)
    model.save(tmp_path / "m")
    here = h2s.tl.predict(test.copy(), model, progress=False)
    again = h2s.tl.predict(test.copy(), tmp_path / "m", progress=False)
    assert again.uns["hist2scrna"]["encoder"]["name"] == "imagenet-tiles"
    np.testing.assert_allclose(here.layers["hist2scrna_mean"], again.layers["hist2scrna_mean"], rtol=1e-3)
    by_hand = h2s.pp.extract_features(test, "imagenet-tiles", key_added="X_own", progress=False, copy=True)
    slot = h2s.tl.predict(by_hand, model, features_key="X_own", progress=False)
    np.testing.assert_allclose(here.layers["hist2scrna_mean"], slot.layers["hist2scrna_mean"], rtol=1e-3)
