"""Encode the patches of all spots: each once, the next being read while one batch is computed."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from hist2scrna.pp._encoder import Encoder
    from hist2scrna.pp._feature_store import FeatureStore
    from hist2scrna.spots.read import Spots

LOWER = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# Batches of another size change the last bits, and bfloat16 has few; another encoder changes all.
SAME_ENCODER, ROUNDING = 0.05, 1e-6


@contextlib.contextmanager
def in_use(module: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Put a module in eval mode on the device, and back as it was."""
    if module is None:
        yield
        return
    modes = [(part, part.training) for part in module.modules()]
    homes = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    try:
        module.eval()
        if len(homes) == 1:
            module.to(device)
        yield
    finally:
        for part, training in modes:
            part.training = training
        if len(homes) == 1:
            module.to(homes.pop())


def encode_by(
    encoder: Encoder,
    colors: tuple[Sequence[float] | NDArray[np.float64], Sequence[float] | NDArray[np.float64]],
    device: torch.device,
    lower: torch.dtype | None,
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return the function from patches `(n, 3, px, px)` uint8 to features `(n, d)` float32.

    Parameters
    ----------
    encoder
        The encoder.
    colors
        Mean and standard deviation of red, green and blue in 0..1, by which patches are normalized.
    device
        Where to compute.
    lower
        Type of mixed precision; None: as the weights are.

    Raises
    ------
    TypeError, ValueError
        By the function returned, if the encoder returns no tensor, or one of another shape.
    """
    mean, std = (torch.tensor(np.asarray(v), dtype=torch.float32, device=device)[:, None, None] for v in colors)
    module = encoder.module
    floats = () if module is None else (p.dtype for p in module.parameters() if p.is_floating_point())
    dtype = next(iter(floats), torch.float32)

    @torch.no_grad()
    def encode(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        tensor = (torch.from_numpy(patches).to(device).float() / 255 - mean) / std
        with contextlib.nullcontext() if lower is None else torch.autocast(device.type, lower):
            found = encoder.encode(tensor.to(dtype))
        if not isinstance(found, torch.Tensor):
            raise TypeError(
                f"Expected encoder {encoder.name!r} to return a tensor (n, d), found {type(found).__name__}. Wrap it "
                "in a function that returns one vector a patch."
            )
        expected = "d" if encoder.width is None else encoder.width
        if found.ndim != 2 or len(found) != len(patches) or found.shape[1] != (encoder.width or found.shape[1]):
            raise ValueError(
                f"Expected encoder {encoder.name!r} to return ({len(patches)}, {expected}) for {len(patches)} patches, "
                f"found {tuple(found.shape)}. Pool maps and tokens to one vector a patch."
            )
        return found.float().cpu().numpy()

    return encode


def encode_spots(
    spots: Spots,
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    kept: FeatureStore,
    batch_size: int,
    progress: bool,
) -> None:
    """Encode the spots that are not in `kept` yet, section by section, and put them there.

    Parameters
    ----------
    spots
        All spots, with patches.
    encode
        From patches `(n, 3, px, px)` uint8 to features `(n, d)` float32.
    kept
        Where the features go.
    batch_size
        Patches encoded at once.
    progress
        Show a bar.

    Raises
    ------
    ValueError
        If a feature is NaN or infinite, or those that are kept are of another encoder or picture.
    """
    from tqdm.auto import tqdm

    finished = kept.finished
    _check_same(spots, encode, kept, finished)
    left = np.flatnonzero(~finished)
    left = left[np.argsort(spots.section[left], kind="stable")]
    chunks = [left[start : start + batch_size] for start in range(0, len(left), batch_size)]
    with tqdm(total=len(spots), initial=int(finished.sum()), desc="encoding", unit="spot", disable=not progress) as bar:
        try:
            for chunk, patches in _ahead(spots, chunks):
                values = encode(patches)
                _check_values(values, kept, spots, chunk)
                kept.write(chunk, values)
                bar.update(len(chunk))
        finally:
            kept.flush()


def _check_values(values: NDArray[np.float32], kept: FeatureStore, spots: Spots, chunk: NDArray[np.int64]) -> None:
    if kept.rows is not None and values.shape[1] != kept.rows.shape[1]:
        raise ValueError(
            f"The encoder returned {values.shape[1]} numbers a patch, and {kept.rows.shape[1]} for patches before."
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"The encoder returned NaN or infinite numbers for {int(bad.sum())} of {len(chunk)} patches (the first is "
            f"that of spot {spots.names[chunk[bad]][0]!r}). Pass precision='32-true', or look at its weights."
        )


def _check_same(
    spots: Spots,
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    kept: FeatureStore,
    finished: NDArray[np.bool_],
) -> None:
    """Encode one finished spot again: that the encoder is the same cannot be read off a function."""
    if kept.rows is None or not finished.any():
        return
    first = np.flatnonzero(finished)[:1]
    assert spots.patches is not None
    held, found = kept.rows[first], encode(spots.patches.read(first))
    apart = np.inf if found.shape != held.shape else float(np.linalg.norm(found - held))
    if not apart <= SAME_ENCODER * float(np.linalg.norm(held)) + ROUNDING:
        raise ValueError(
            f"The store '{kept.folder}' was begun with another encoder or picture: spot {spots.names[first][0]!r} has "
            f"other features there, of shape {held.shape[1:]}, than now, {found.shape[1:]}. Pass the same, or another "
            "store=."
        )


def _ahead(spots: Spots, chunks: list[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield the patches of each chunk; those of the next are read meanwhile."""
    if not chunks:
        return
    assert spots.patches is not None
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(spots.patches.read, chunks[0])
        for number, chunk in enumerate(chunks):
            patches = coming.result()
            if number + 1 < len(chunks):
                coming = pool.submit(spots.patches.read, chunks[number + 1])
            yield chunk, patches
