"""Prediction for all spots: each is encoded once, then read in its context, block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hist2scrna.encoders.precision import has_bfloat16
from hist2scrna.fitting.batches import BlockSampler, make_batch
from hist2scrna.fitting.duration import Duration
from hist2scrna.fitting.feature_store import FeatureStore
from hist2scrna.fitting.read_ahead import read_ahead
from hist2scrna.fitting.spool import Spool
from hist2scrna.fitting.tile_batches import make_tile_batch, tiles_of
from hist2scrna.models.by_spot import summed
from hist2scrna.models.contract import Context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.models.contract import Prediction, SpotBatch, SpotModel
    from hist2scrna.spots.read import Spots

GRAPH_BLOCK = 4096
# Called with spots, the pictures that show them, their encodings, and which picture shows each.
Watch = Callable[..., None]


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
    if kept is not None:
        return _encoded_once(model, spots, members, kept, batch_size=batch_size, device=device, progress=progress)
    tokens: Tensor | None = None
    done = 0
    for chunk, encoded, _ in _encoded(model, spots, members, batch_size, device, progress):
        tokens = encoded.new_empty((len(members), encoded.shape[1])) if tokens is None else tokens
        tokens[done : done + len(chunk)] = encoded
        done += len(chunk)
    if tokens is None:
        raise ValueError("There is no spot to encode.")
    return tokens


def _encoded_once(
    model: SpotModel,
    spots: Spots,
    members: NDArray[np.int64],
    kept: FeatureStore,
    *,
    batch_size: int,
    device: torch.device,
    progress: bool,
) -> Tensor:
    """Return the encodings of some spots; those that an interrupted run kept are not made again."""
    finished = kept.finished
    kept.check_encoder(
        finished, lambda some: next(_encoded(model, spots, some, len(some), device, False))[1].numpy(), spots.names
    )
    missing = members[~finished[members]]
    if len(missing):
        for chunk, encoded, _ in _encoded(model, spots, missing, batch_size, device, progress):
            kept.write(chunk, encoded.numpy())
    array = kept.array()
    return torch.from_numpy(array if len(members) == len(array) else array[members])


def _encoded(
    model: SpotModel,
    spots: Spots,
    members: NDArray[np.int64],
    batch_size: int,
    device: torch.device,
    progress: bool,
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor | None]]:
    """Yield some spots, batch by batch, with their encodings, float32 on the CPU, and the patches if they have any.

    The next batch is read meanwhile.
    """
    from tqdm.auto import tqdm

    half = has_bfloat16(device)
    encode = model.to(device).eval().encode
    # Features are at hand, and small: only patches are to be few at once.
    size = batch_size if spots.features is None else max(batch_size, GRAPH_BLOCK)
    chunks = [members[start : start + size] for start in range(0, len(members), size)]
    duration = Duration(f"encoding {len(members):,} spots on {device}", len(members))
    done = 0
    with tqdm(total=len(members), desc="encoding", unit="spot", disable=not progress) as bar:
        for chunk, batch in read_ahead(chunks, partial(_inputs, spots, pinned=device.type == "cuda")):
            with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
                encoded = encode(batch.to(device, non_blocking=True)).float().cpu()
            yield chunk, encoded, batch.patches
            done += len(chunk)
            bar.update(len(chunk))
            duration.step(done)


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
    watch: Watch | None = None,
) -> Iterator[tuple[NDArray[np.int64], Prediction]]:
    """Yield blocks of spots with their prediction, until every spot has come once.

    Every patch goes through the encoder once. Models that see each spot alone go on at once. Of the others the
    encodings of all spots are kept, beyond 256 MB in a temporary file; the layers that mix neighbors then run on blocks
    of 4,096 spots with their exact halo. So memory is bounded by the block.

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
    watch
        Is told of spots, the patches or tiles that show them and, where each has a patch, their encodings, as they are
        read; of tiles, also which of them shows each. Not where encodings are kept.
    """
    if model.context.kind == "tile":
        members = np.ones(len(spots), dtype=bool)
        where: dict[str, Any] = {"batch_size": batch_size, "device": device, "progress": progress}
        yield from predict_tiles(model, spots, members, log_library=log_library, watch=watch, **where)
        return
    if kept is not None:
        where = {"batch_size": batch_size, "device": device, "progress": progress, "kept": kept}
        tokens = encode_spots(model, spots, np.arange(len(spots)), **where)
        for core in BlockSampler(spots, np.arange(len(spots)), model.context, GRAPH_BLOCK):
            batch, nodes = make_batch(spots, core, model.context, supervised=False, inputs=False)
            yield core, _decoded(model, batch, tokens[torch.from_numpy(nodes)], core, log_library, device)
        return
    everyone = np.argsort(spots.section, kind="stable")
    encoded = _encoded(model, spots, everyone, batch_size, device, progress)
    if model.context.kind == "spot":
        for core, tokens, patches in encoded:
            if watch is not None:
                watch(core, patches, tokens)
            batch, _ = make_batch(spots, core, model.context, supervised=False, inputs=False)
            yield core, _decoded(model, batch, tokens, core, log_library, device)
        return
    spool: Spool | None = None
    place = np.empty(len(spots), dtype=np.int64)
    place[everyone] = np.arange(len(spots))
    done = 0
    for chunk, tokens, patches in encoded:
        if watch is not None:
            watch(chunk, patches, tokens)
        spool = Spool(len(spots), tokens.shape[1]) if spool is None else spool
        spool.put(done, tokens)
        done += len(chunk)
    assert spool is not None
    for core in BlockSampler(spots, np.arange(len(spots)), model.context, GRAPH_BLOCK):
        batch, nodes = make_batch(spots, core, model.context, supervised=False, inputs=False)
        yield core, _decoded(model, batch, spool.take(place[nodes]), core, log_library, device)


def _decoded(
    model: SpotModel,
    batch: SpotBatch,
    tokens: Tensor,
    core: NDArray[np.int64],
    log_library: NDArray[np.float32] | None,
    device: torch.device,
) -> Prediction:
    if log_library is not None:
        batch.log_library = torch.from_numpy(log_library[core])
    return model.decode(tokens.to(device), batch.to(device))


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
    watch: Watch | None = None,
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
    device, log_library, progress, watch
        As of :func:`predict_blocks`.
    """
    from tqdm.auto import tqdm

    model = model.to(device).eval()
    half = has_bfloat16(device)
    tiles = tiles_of(spots, members, owned=True)
    duration = Duration(f"predicting {len(tiles):,} tiles on {device}", len(tiles))
    with tqdm(total=len(tiles), desc="predicting", unit="tile", disable=not progress) as bar:
        for start in range(0, len(tiles), batch_size):
            some = tiles[start : start + batch_size]
            batch, core = make_tile_batch(spots, some, members, owned=True, supervised=False)
            if log_library is not None:
                batch.log_library = torch.from_numpy(log_library[core])
            if watch is not None:
                assert batch.tile is not None
                shown = torch.arange(len(some)) if batch.spot is not None else batch.tile[: batch.n_core]
                watch(core, batch.tiles, None, shown.numpy())
            with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
                prediction = model(batch.to(device))
            if batch.spot is not None:
                prediction = summed(prediction, batch.spot.to(device), len(some))
            yield core, prediction
            bar.update(len(some))
            duration.step(start + len(some))
