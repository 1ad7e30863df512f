"""Weights: where they are (a file, a folder, or the Hugging Face hub), how they are read, and their SHA-256."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hist2scrna.encoders.published import EncoderEntry

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
# What the readers of safetensors and of torch raise on junk.
DAMAGE = (
    SafetensorError,
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def local_file(weights: str | Path) -> Path:
    """Return the file of weights at a path: itself, or the only one in the folder.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If there are several, or the suffix is another.
    """
    path = Path(weights)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise FileNotFoundError(f"No file of weights ({', '.join(SUFFIXES)}) in the folder '{path}'.")
        if len(files) > 1:
            raise ValueError(
                f"The folder '{path}' holds {len(files)} files of weights: {[file.name for file in files]}. "
                "Pass one of them as weights=."
            )
        return files[0]
    if not path.is_file():
        raise FileNotFoundError(f"No file or folder of weights at '{path}'.")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"Expected a file of weights to end in one of {', '.join(SUFFIXES)}, found '{path.name}'.")
    return path


def hub_file(entry: EncoderEntry) -> tuple[Path, str]:
    """Return the file of an encoder's weights, from the hub's cache if it is there, and its address on the hub.

    Raises
    ------
    ImportError
        If huggingface_hub is not installed.
    PermissionError
        If the hub gives the weights only to those who asked for them.
    FileNotFoundError
        If the file is neither in the cache nor reached on the hub.
    """
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError as error:
        raise ImportError(
            f"The weights of {entry.name!r} are on the Hugging Face hub, which needs huggingface_hub: {error}. Install "
            "it: pip install 'hist2scrna[encoders]'; or pass weights=, a file that you have."
        ) from error
    for name in HUB_FILES:
        cached = try_to_load_from_cache(entry.hub_id, name)
        if isinstance(cached, str):
            return _with_address(Path(cached), entry)
    reason: Exception | None = None
    for name in HUB_FILES:
        try:
            return _with_address(Path(hf_hub_download(entry.hub_id, name)), entry)
        except RepositoryNotFoundError as error:
            # Raised too where the repository is gated, and nobody, or the wrong person, is logged in.
            raise PermissionError(
                f"The weights of {entry.name!r} are not given to you as you are: accept their terms at {entry.url} "
                f"(license: {entry.license}), then log in with `hf auth login`. Or pass weights=, a file that you have."
            ) from error
        except (EntryNotFoundError, HfHubHTTPError, OSError) as error:
            reason = error
    raise FileNotFoundError(
        f"The weights of {entry.name!r} are not in the cache of the Hugging Face hub, and could not be downloaded from "
        f"{entry.url}: {reason} Without a connection, pass weights=, a file that you have."
    ) from reason


def _with_address(file: Path, entry: EncoderEntry) -> tuple[Path, str]:
    # The cache keeps files as snapshots/<commit>/<name>.
    commit = file.parent.name if file.parent.parent.name == "snapshots" else "main"
    return file, f"hf://{entry.hub_id}@{commit}/{file.name}"


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of weights, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a `.safetensors` file, whose names and words go into `metadata`.

    Raises
    ------
    OSError
        If the file cannot be written, as where the disk is full: safetensors has an error of its own for that.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:
        raise OSError(f"'{path}' cannot be written: {error}. Make room, or choose another place.") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file, or of a checkpoint of torch or Lightning; code in it is never run.

    Raises
    ------
    ValueError
        If the file is damaged, or holds anything but tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"'{path}' cannot be read as weights only: {reason} Save model.state_dict() alone, best as .safetensors."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"'{path}' holds no state dict: a dictionary of tensors by name.")
    return state
