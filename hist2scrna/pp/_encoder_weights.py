"""Where the weights of an encoder are: a file, a folder, or the Hugging Face hub; and what tells them apart."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hist2scrna.models.encoders import EncoderEntry

log = logging.getLogger(__name__)

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


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
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not found:
            raise FileNotFoundError(f"No file of weights ({', '.join(SUFFIXES)}) in the folder '{path}'.")
        if len(found) > 1:
            raise ValueError(
                f"The folder '{path}' holds {len(found)} files of weights: {[file.name for file in found]}. "
                "Pass one of them as weights=."
            )
        return found[0]
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
            # Of which one kind is that the repository is gated, and nobody, or the wrong person, is logged in.
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
    with file.open("rb") as held:
        return hashlib.file_digest(held, "sha256").hexdigest()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of weights, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
