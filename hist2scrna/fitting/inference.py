"""Prediction for all spots: each is encoded once, then read in its context, block by block."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hist2scrna.encoders.precision import has_bfloat16
from hist2scrna.fitting.batches import BlockSampler, make_batch
from hist2scrna.fitting.duration import Duration
from hist2scrna.fitting.feature_store import FeatureStore
from hist2scrna.fitting.read_ahead import read_ahead
from hist2scrna.fitting.tile_batches import make_tile_batch, tiles_of
from hist2scrna.models.by_spot import summed
from hist2scrna.models.contract import Context

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


@torch.no_grad()
def encode_spots(
    model: SpotModel,
    spots: Spots,
    members: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
    kept: FeatureStore | None = None,
) -> Tensor:
    """Return the encodings of some spots, `(members, width)` float32 on the CPU; each patch is read once.

    They are computed in bfloat16 on a GPU that has it.

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
    kept
        Where encodings of an interrupted run lie, and new ones go; None: in memory.
    """
    half = device.type == "cuda" and has_bfloat16(device)
    encode = model.to(device).eval().encode
    with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
        return encode_members(
            encode, spots, members, batch_size=batch_size, device=device, progress=progress, kept=kept
        )


@torch.no_grad()
def encode_members(
    encode: Callable[[SpotBatch], Tensor],
    spots: Spots,
    members: NDArray[np.int64],
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
    kept: FeatureStore | None = None,
) -> Tensor:
    """Return what `encode` makes of some spots, `(members, width)` float32 on the CPU; what is kept is not repeated."""
    from tqdm.auto import tqdm

    if len(members) == 0:
        raise ValueError("There is no spot to encode.")

    def encoded(batch: SpotBatch) -> NDArray[np.float32]:
        features: NDArray[np.float32] = encode(batch.to(device, non_blocking=True)).float().cpu().numpy()
        return features

    read = partial(_inputs, spots, pinned=device.type == "cuda")
    rows = FeatureStore(len(spots), None, {}) if kept is None else kept
    finished = rows.finished
    rows.check_encoder(finished, lambda some: encoded(read(some)), spots.names)
    missing = members[~finished[members]]
    done = len(members) - len(missing)
    duration = Duration(f"encoding {len(missing):,} spots on {device}", len(missing))
    with tqdm(total=len(members), initial=done, desc="encoding", unit="spot", disable=not progress) as bar:
        chunks = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        for chunk, batch in read_ahead(chunks, read):
            rows.write(chunk, encoded(batch))
            bar.update(len(chunk))
            duration.step(bar.n - done)
    array = rows.array()
    return torch.from_numpy(array if len(members) == len(array) else array[members])


def _inputs(spots: Spots, members: NDArray[np.int64], *, pinned: bool) -> SpotBatch:
    batch = make_batch(spots, members, Context("spot"), supervised=False)[0]
    return batch.pinned() if pinned else batch


@torch.no_grad()
def predict_blocks(
    model: SpotModel,
    spots: Spots,
    *,
    batch_size: int,
    device: torch.device,
    log_library: NDArray[np.float32] | None,
    progress: bool,
    kept: FeatureStore | None = None,
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
        Patches encoded at once; of models on tiles, tiles.
    device
        Where to compute.
    log_library
        `(n,)` log library size of each spot; None for the model's own.
    progress
        Show a bar.
    kept
        Where encodings of an interrupted run lie, and new ones go; None: in memory. Models on tiles have none.
    """
    if model.context.kind == "tile":
        members = np.ones(len(spots), dtype=bool)
        where: dict[str, Any] = {"batch_size": batch_size, "device": device, "progress": progress}
        yield from predict_tiles(model, spots, members, log_library=log_library, **where)
        return
    everyone = np.arange(len(spots))
    tokens = encode_spots(model, spots, everyone, batch_size=batch_size, device=device, progress=progress, kept=kept)
    for core in BlockSampler(spots, everyone, model.context, GRAPH_BLOCK):
        batch, nodes = make_batch(spots, core, model.context, supervised=False, inputs=False)
        if log_library is not None:
            batch.log_library = torch.from_numpy(log_library[core])
        yield core, model.decode(tokens[torch.from_numpy(nodes)].to(device), batch.to(device))


@torch.no_grad()
def predict_tiles(
    model: SpotModel,
    spots: Spots,
    members: NDArray[np.bool_],
    *,
    batch_size: int,
    device: torch.device,
    log_library: NDArray[np.float32] | None,
    progress: bool,
) -> Iterator[tuple[NDArray[np.int64], Prediction]]:
    """Yield nuclei with their prediction: each comes once, of the tile where it shows the most pixels, or not at all.

    Each tile is encoded once, and those that no nucleus is predicted by are not read. Where the rows of AnnData are
    spots, these come, with the sum over the nuclei in them.

    Parameters
    ----------
    model, spots
        The model, and all nuclei.
    members
        `(n,)`, nuclei or spots to predict.
    batch_size
        Tiles encoded at once.
    device, log_library, progress
        As of :func:`predict_blocks`.
    """
    from tqdm.auto import tqdm

    model = model.to(device).eval()
    half = device.type == "cuda" and has_bfloat16(device)
    tiles = tiles_of(spots, members, owned=True)
    duration = Duration(f"predicting {len(tiles):,} tiles on {device}", len(tiles))
    with tqdm(total=len(tiles), desc="predicting", unit="tile", disable=not progress) as bar:
        for start in range(0, len(tiles), batch_size):
            some = tiles[start : start + batch_size]
            batch, core = make_tile_batch(spots, some, members, owned=True, supervised=False)
            if log_library is not None:
                batch.log_library = torch.from_numpy(log_library[core])
            with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
                prediction = model(batch.to(device))
            if batch.spot is not None:
                prediction = summed(prediction, batch.spot.to(device), len(some))
            yield core, prediction
            bar.update(len(some))
            duration.step(start + len(some))
