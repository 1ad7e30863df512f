"""Encode the patches of all spots, each once; the next batch is read while one is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hist2scrna.cluster import run_tasks
from hist2scrna.encoders import Encoder
from hist2scrna.encoders.compiled import compiled_on
from hist2scrna.encoders.precision import Precision, has_bfloat16
from hist2scrna.fitting.encode import encode_patches
from hist2scrna.fitting.feature_store import FeatureStore
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.read_ahead import read_ahead, readers
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.processors import threads
from hist2scrna.spots.one_section import section_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots


@dataclass(frozen=True)
class Encoding:
    """How patches are encoded.

    Attributes
    ----------
    encoder
        The encoder.
    precision
        Of its network.
    batch_size
        Patches encoded at once.
    cached
        Whether features are taken from, and go to, `settings.cache_dir`, as `fit` and `predict` do.
    """

    encoder: Encoder
    precision: Precision
    batch_size: int
    cached: bool = False

    def encode(self, spots: Spots, rows: FeatureStore, device: torch.device, *, progress: bool) -> None:
        """Put the features of all spots into `rows`, where they are not there yet."""
        assert spots.geometry is not None
        everything = np.arange(len(spots))
        how: dict[str, Any] = {"batch_size": self.batch_size, "device": device, "progress": progress}
        if self.cached:
            with threads():
                (features,) = encode_patches(self.encoder, spots, everything, **how)
            rows.write(everything, features)
            return
        if self.encoder.maps is not None:
            with threads():
                encode_patches(self.encoder, spots, everything, precision=self.precision, kept=rows, **how)
            return
        with threads(), self.encoder.on(device, self.precision):
            px = spots.geometry.px
            fastest = compiled_on(self.encoder, device, self.precision, px=px, n_patches=len(spots))
            encode_spots(spots, encode_by(fastest, spots.geometry.um, device), rows, self.batch_size, progress)


def encode_sections(
    client: Any, encoding: Encoding, spots: Spots, rows: FeatureStore, accelerator: str, *, progress: bool
) -> None:
    """Put the features of all spots into `rows`, each section as a task of a cluster.

    Spots that `rows` holds already are not encoded again, and not compared with what the encoder returns now.
    """
    from tqdm.auto import tqdm

    missing = np.flatnonzero(~rows.finished)
    parts = [section_of(spots, code, missing) for code in np.unique(spots.section[missing])]
    tasks = [(one, accelerator) for one, _ in parts]
    with tqdm(
        total=len(spots), initial=len(spots) - len(missing), desc="encoding", unit="spot", disable=not progress
    ) as bar:
        try:
            for number, features in run_tasks(client, _encoded, encoding, tasks):
                own = parts[number][1]
                rows.write(own, features)
                bar.update(len(own))
        finally:
            rows.flush()


@in_own_torch
def _encoded(encoding: Encoding, task: tuple[Spots, str]) -> NDArray[np.float32]:
    spots, accelerator = task
    rows = FeatureStore(len(spots), None, {})
    encoding.encode(spots, rows, pick_device(accelerator), progress=False)
    return rows.array()


def precision_there(client: Any, accelerator: str) -> Precision:
    """Return the precision in which networks are computed on the devices of a cluster."""
    return next(run_tasks(client, _precision, None, [accelerator]))[1]


def _precision(shared: None, accelerator: str) -> Precision:
    return "bf16-mixed" if has_bfloat16(pick_device(accelerator)) else "32-true"


def encode_by(encoder: Encoder, um: float, device: torch.device) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return the function from patches `(n, 3, px, px)` uint8, `um` microns wide, to features `(n, d)` float32."""

    @torch.no_grad()
    def encode(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return encoder.encode(torch.from_numpy(patches).to(device), um).float().cpu().numpy()

    return encode


def encode_spots(
    spots: Spots,
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    store: FeatureStore,
    batch_size: int,
    progress: bool,
) -> None:
    """Encode the spots that are not in `store` yet, section by section, and put them there.

    Parameters
    ----------
    spots
        All spots, with patches.
    encode
        From patches `(n, 3, px, px)` uint8 to features `(n, d)` float32.
    store
        Where the features go.
    batch_size
        Patches encoded at once.
    progress
        Show a bar.

    Raises
    ------
    ValueError
        If a feature is NaN or infinite, or those in the store are of another encoder or image.
    """
    from tqdm.auto import tqdm

    assert spots.patches is not None
    finished = store.finished
    patches_of = spots.patches
    store.check_encoder(finished, lambda rows: encode(patches_of.cut(rows)), spots.names)
    missing = np.flatnonzero(~finished)
    missing = missing[np.argsort(spots.section[missing], kind="stable")]
    chunks = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
    with tqdm(total=len(spots), initial=int(finished.sum()), desc="encoding", unit="spot", disable=not progress) as bar:
        try:
            for chunk, patches in read_ahead(chunks, spots.patches.cut, workers=readers(len(chunks))):
                values = encode(patches)
                _check_values(values, spots, chunk)
                store.write(chunk, values)
                bar.update(len(chunk))
        finally:
            store.flush()


def _check_values(values: NDArray[np.float32], spots: Spots, chunk: NDArray[np.int64]) -> None:
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"The encoder returned NaN or infinite numbers for {int(bad.sum())} of {len(chunk)} patches (the first is "
            f"that of spot {spots.names[chunk[bad]][0]!r}). Pass precision='32-true', or look at its weights."
        )
