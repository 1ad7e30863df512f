"""Prediction for all spots: each is encoded once, then read in its context, block by block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.fitting.batches import BlockSampler, make_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.models.contract import Prediction, SpotBatch, SpotModel
    from hist2scrna.spots.read import Spots

GRAPH_BLOCK = 4096


def pick_device(accelerator: str) -> torch.device:
    """Return the device of an accelerator name as Lightning takes it: `"auto"`, `"cpu"`, `"gpu"`, `"cuda"`, `"mps"`."""
    if accelerator == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    known = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "mps": "mps"}
    if accelerator not in known:
        raise ValueError(f"Expected `accelerator` to be one of {['auto', *known]}, found {accelerator!r}.")
    if known[accelerator] == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"accelerator={accelerator!r}, but torch sees no CUDA device here. Pass accelerator='auto'.")
    return torch.device(known[accelerator])


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16 by itself, and not slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    # Older versions of torch cannot tell.
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16"))


@torch.no_grad()
def encode_spots(
    model: SpotModel,
    spots: Spots,
    members: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
    augmentation: Callable[[SpotBatch], SpotBatch] | None = None,
) -> Tensor:
    """Return the encodings of some spots, `(members, width)` float32 on the CPU; each patch is read once.

    They are computed in bfloat16 on a GPU that has it, and on a CPU that has it where the encoder is frozen.

    Parameters
    ----------
    model
        The model; it is moved to the device, in eval mode.
    spots, members
        All spots; the numbers of those to encode.
    batch_size
        Patches encoded at once.
    device
        Where to compute.
    progress
        Show a bar.
    augmentation
        What is done to each batch first.
    """
    from tqdm.auto import tqdm

    model = model.to(device).eval()
    half = has_bfloat16(device) and (device.type == "cuda" or model.frozen_encoder)
    autocast = torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()
    tokens: Tensor | None = None
    bar = tqdm(total=len(members), desc="encoding", unit="spot", disable=not progress)
    for start in range(0, len(members), batch_size):
        chunk = members[start : start + batch_size]
        batch, _ = make_batch(spots, chunk, type(model.context)("spot"), supervised=False)
        batch = batch.to(device) if augmentation is None else augmentation(batch.to(device))
        with autocast:
            encoded = model.encode(batch).float().cpu()
        tokens = encoded.new_empty((len(members), encoded.shape[1])) if tokens is None else tokens
        tokens[start : start + len(chunk)] = encoded
        bar.update(len(chunk))
    bar.close()
    assert tokens is not None
    return tokens


@torch.no_grad()
def predict_blocks(
    model: SpotModel,
    spots: Spots,
    *,
    batch_size: int,
    device: torch.device,
    log_library: NDArray[np.float32] | None,
    progress: bool,
) -> Iterator[tuple[NDArray[np.int64], Prediction]]:
    """Yield blocks of spots with their prediction, until every spot has come once.

    Every patch goes through the encoder once. The encodings of all spots are kept (`n` x width floats); the layers that
    mix neighbors then run on blocks of 4,096 spots with their exact halo, so that memory is bounded by the block.

    Parameters
    ----------
    model
        The model, in eval mode.
    spots
        All spots.
    batch_size
        Patches encoded at once.
    device
        Where to compute.
    log_library
        `(n,)` log library size of each spot; None for the model's own.
    progress
        Show a bar.
    """
    everyone = np.arange(len(spots))
    tokens = encode_spots(model, spots, everyone, batch_size=batch_size, device=device, progress=progress)
    for core in BlockSampler(spots, everyone, model.context, GRAPH_BLOCK):
        batch, nodes = make_batch(spots, core, model.context, supervised=False, inputs=False)
        if log_library is not None:
            batch.log_library = torch.from_numpy(log_library[core])
        yield core, model.decode(tokens[torch.from_numpy(nodes)].to(device), batch.to(device))
