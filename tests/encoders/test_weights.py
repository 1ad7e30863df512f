"""Weights on the hub: from its cache, by download, and what is said where they are not given."""

from __future__ import annotations

import io
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from hist2scrna.encoders.published import ENCODERS
from hist2scrna.encoders.weights import hub_file, read_state_dict


class HubError(OSError):
    """Stands for the errors of huggingface_hub."""


class EntryNotFoundError(Exception):
    pass


class RepositoryNotFoundError(HubError):
    pass


def hub(monkeypatch, *, cached=None, answer=None) -> list[tuple[str, str]]:
    """Put a stand-in for huggingface_hub in place; returns what it will have been asked to download."""
    asked: list[tuple[str, str]] = []

    def download(repository, name):
        asked.append((repository, name))
        return answer(name)

    module, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    module.hf_hub_download = download
    module.try_to_load_from_cache = lambda repository, name: (cached or {}).get(name)
    errors.HfHubHTTPError = HubError
    errors.EntryNotFoundError = EntryNotFoundError
    errors.RepositoryNotFoundError = RepositoryNotFoundError
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def fails(error):
    def answer(name):
        raise error

    return answer


def test_weights_in_the_cache_need_no_connection(monkeypatch, tmp_path) -> None:
    file = tmp_path / "snapshots" / "abc123" / "pytorch_model.bin"
    asked = hub(monkeypatch, cached={"pytorch_model.bin": str(file)})
    assert hub_file(ENCODERS["uni"]) == (file, "hf://MahmoodLab/UNI@abc123/pytorch_model.bin")
    assert asked == []


def test_weights_are_looked_for_under_both_names(monkeypatch, tmp_path) -> None:
    def answer(name):
        if name == "model.safetensors":
            raise EntryNotFoundError("404")
        return str(tmp_path / name)

    asked = hub(monkeypatch, answer=answer)
    assert hub_file(ENCODERS["uni"])[0] == tmp_path / "pytorch_model.bin"
    assert asked == [("MahmoodLab/UNI", "model.safetensors"), ("MahmoodLab/UNI", "pytorch_model.bin")]


def test_gated_weights_say_how_they_are_had(monkeypatch) -> None:
    hub(monkeypatch, answer=fails(RepositoryNotFoundError("401")))
    with pytest.raises(PermissionError, match=r"https://huggingface\.co/MahmoodLab/UNI.*CC-BY-NC-ND.*hf auth login"):
        hub_file(ENCODERS["uni"])


@pytest.mark.parametrize("error", [EntryNotFoundError("not cached"), HubError("503"), ConnectionError("no network")])
def test_weights_that_cannot_be_reached_are_named(monkeypatch, error) -> None:
    hub(monkeypatch, answer=fails(error))
    with pytest.raises(FileNotFoundError, match=rf"kaiko-ai/midnight: {error}.*pass weights="):
        hub_file(ENCODERS["midnight-12k"])


def test_without_the_hub_its_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"hist2scrna\[encoders\].*or pass weights="):
        hub_file(ENCODERS["uni"])


def test_a_real_cache_is_read_without_a_connection(monkeypatch, tmp_path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="pass weights="):
        hub_file(ENCODERS["uni"])
    repository = tmp_path / "models--MahmoodLab--UNI"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "pytorch_model.bin").write_bytes(b"weights")
    file, origin = hub_file(ENCODERS["uni"])
    assert file.read_bytes() == b"weights"
    assert origin == f"hf://MahmoodLab/UNI@{'0' * 40}/pytorch_model.bin"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
def test_junk_is_refused_by_its_name(tmp_path, suffix) -> None:
    """Whatever bytes a file holds, the error is ours: the unpickler alone raises eight kinds of its own."""
    rng = np.random.default_rng(0)
    good = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, good, _use_new_zipfile_serialization=False)
    path = tmp_path / f"junk{suffix}"
    junk = [rng.integers(0, 256, n, dtype=np.uint8).tobytes() for n in rng.integers(0, 400, 60)]
    for place in rng.integers(0, len(good.getvalue()), 150):
        flipped = bytearray(good.getvalue())
        flipped[place] ^= int(rng.integers(1, 256))
        junk.append(bytes(flipped))
    refused = 0
    for content in [*junk, b"", b"\x80\x02.", b"(lp0\n.", b"\x80\x02}q\x00h\x05."]:
        path.write_bytes(content)
        try:
            read_state_dict(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 100
