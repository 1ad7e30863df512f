"""A file from a stranger runs nothing, allocates no more than it holds, and names no place outside its folder."""

from __future__ import annotations

import io
import json
import pickle
import resource
import shutil
import zipfile
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import torch
from builders import fast

from hist2scrna.tl import fit, predict
from hist2scrna.trained.files import card_sha256
from hist2scrna.trained.model import TrainedModel

QUIET = {"progress": False, "accelerator": "cpu"}
# Of 1e9 parameters that a card claims, in bytes; what a process needs besides is far below.
CLAIMED = 4e9
MOST_RESIDENT = 5e8


class Bomb:
    """An object whose pickle writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def model(make_section):
    return fit(make_section(), **fast())


@pytest.fixture
def exploded(tmp_path):
    return tmp_path / "exploded"


def bombs(path: Path) -> dict[str, bytes]:
    """A malicious object in every form in which pickles travel."""
    torch_file = io.BytesIO()
    torch.save({"state_dict": Bomb(path)}, torch_file)
    numpy_file = io.BytesIO()
    np.save(numpy_file, np.array([Bomb(path)], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Bomb(path)))
        file.writestr("archive/version", "3\n")
    return {
        "pickle": pickle.dumps(Bomb(path)),
        "torch": torch_file.getvalue(),
        "legacy torch": b"\x80\x02" + pickle.dumps(Bomb(path))[2:],
        "numpy": numpy_file.getvalue(),
        "archive": archive.getvalue(),
    }


def test_the_bombs_go_off_where_they_are_unpickled(exploded):
    pickle.loads(bombs(exploded)["pickle"])
    assert exploded.exists()


@pytest.mark.parametrize("file", ["model.safetensors", "training.safetensors", "model.json", "history.csv"])
@pytest.mark.parametrize("form", ["pickle", "torch", "numpy"])
def test_a_pickle_in_a_model_folder_is_never_run(model, tmp_path, exploded, file, form):
    folder = model.save(tmp_path / "model")
    (folder / file).write_bytes(bombs(exploded)[form])
    if file != "model.json":
        resign(folder)
    with pytest.raises(ValueError, match="damaged"):
        TrainedModel.load(folder)
    assert not exploded.exists()


def test_a_pickle_beside_a_model_is_never_read(model, tmp_path, exploded):
    folder = model.save(tmp_path / "model")
    for name in ("model.pt", "pytorch_model.bin", "model.pkl", "last.ckpt", "data.npy"):
        (folder / name).write_bytes(bombs(exploded)["torch"])
    assert TrainedModel.load(folder).genes == model.genes
    assert not exploded.exists()


@pytest.mark.parametrize(
    ("suffix", "form"),
    [(".pt", "pickle"), (".pth", "torch"), (".ckpt", "legacy torch"), (".bin", "archive"), (".pt", "numpy")],
)
def test_a_pickle_as_published_weights_is_never_run(make_section, tmp_path, exploded, suffix, form):
    weights = tmp_path / f"weights{suffix}"
    weights.write_bytes(bombs(exploded)[form])
    with pytest.raises(ValueError, match="weights only|no state dict"):
        fit(make_section(), init_from=weights, **fast(model="stnet", preset=None))
    assert not exploded.exists()


def test_a_pickle_in_the_checkpoints_of_a_training_is_never_run(make_section, tmp_path, exploded):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("last.safetensors", "last.ckpt"):
        (folder / name).write_bytes(bombs(exploded)["torch"])
    with pytest.raises(ValueError, match="last.safetensors' is damaged"):
        fit(make_section(), **fast(checkpoint_dir=folder))
    assert not exploded.exists()


def test_a_pickle_in_an_h5ad_is_data(model, make_section, tmp_path, exploded):
    path = tmp_path / "section.h5ad"
    section = make_section()
    section.uns["pickle"] = np.frombuffer(bombs(exploded)["pickle"], dtype=np.uint8)
    section.write_h5ad(path)
    with h5py.File(path, "a") as file:
        file["uns/spatial/s0/images/hires"].attrs["pickle"] = np.void(bombs(exploded)["pickle"])
        file.attrs["pickle"] = np.void(bombs(exploded)["pickle"])
    predict(ad.read_h5ad(path), model, **QUIET)
    assert not exploded.exists()


def resign(folder: Path, **fields) -> None:
    """Change the card as someone who knows how its SHA-256 come about."""
    from hist2scrna.trained.files import FILES, file_sha256

    card = json.loads((folder / "model.json").read_text()) | fields
    card["sha256"] = {name: file_sha256(folder / name) for name in FILES}
    card["sha256"]["model.json"] = card_sha256(card)
    (folder / "model.json").write_text(json.dumps(card))


def resident() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "options", [{"decoder": [30000, 30000]}, {"width": 30000, "heads": 1}, {"depth": 900}, {"patch_px": 60000}], ids=str
)
def test_a_card_allocates_no_more_than_its_files_hold(model, tmp_path, options):
    folder = model.save(tmp_path / "model")
    resign(folder, options={**model.options, **options})
    before = resident()
    with pytest.raises(ValueError, match="damaged"):
        TrainedModel.load(folder)
    assert resident() - before < MOST_RESIDENT < CLAIMED


@pytest.mark.slow
def test_a_card_of_two_million_genes_allocates_no_more_than_its_files_hold(model, tmp_path):
    folder = model.save(tmp_path / "model")
    resign(folder, genes=[f"g{i}" for i in range(2_000_000)])
    with pytest.raises(ValueError, match="tells another model"):
        TrainedModel.load(folder)
    # The names themselves take memory, twice; the heads for them would take 1.5 GB for each of three.
    assert resident() < 4e9


def test_a_header_of_safetensors_that_claims_more_than_the_file_holds_is_refused(model, tmp_path):
    folder = model.save(tmp_path / "model")
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    for content in (len(header).to_bytes(8, "little") + header + b"\0" * 64, (2**62).to_bytes(8, "little") + b"{}"):
        (folder / "model.safetensors").write_bytes(content)
        resign(folder)
        before = resident()
        with pytest.raises(ValueError, match="damaged"):
            TrainedModel.load(folder)
        assert resident() - before < MOST_RESIDENT


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "a/../../outside.png"])
def test_a_patch_folder_names_no_file_outside_it(make_section, tmp_path, name):
    from hist2scrna.io import read_patch_folder, write_patch_folder

    folder = tmp_path / "folder"
    write_patch_folder(make_section(n_spots=12), folder, patch_px=8)
    table = folder / "spatial_coordinates.csv"
    lines = table.read_text().splitlines()
    patch = next(path.name for path in sorted((folder / "patches").iterdir()))
    shutil.copy(folder / "patches" / patch, tmp_path / "outside.png")
    spot = patch.rsplit(".", 1)[0]
    changed = [line.replace(spot, name.removesuffix(".png"), 1) if line.startswith(spot) else line for line in lines]
    assert changed != lines
    table.write_text("\n".join(changed) + "\n")
    with pytest.raises((ValueError, FileNotFoundError, KeyError)):
        read_patch_folder(folder)
