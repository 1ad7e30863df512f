"""A published encoder of the table, with its network and its weights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hist2scrna.encoders.encoder import OWN, Encoder
from hist2scrna.encoders.networks import ConchEncoder, as_timm, build_network, fill
from hist2scrna.encoders.weights import file_sha256, hub_file, local_file, read_state_dict

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from hist2scrna.encoders.published import EncoderEntry

log = logging.getLogger(__name__)

VERSION = "1"


def published_encoder(entry: EncoderEntry, weights: str | Path | None) -> Encoder:
    """Return the encoder of a row of the table.

    The network is built before its weights are looked for: what is missing is said before gigabytes are read.

    Parameters
    ----------
    entry
        The row.
    weights
        A file of weights, or a folder with one; None: those on the hub, from its cache if they are there.

    Raises
    ------
    ImportError
        If a package is missing.
    PermissionError, FileNotFoundError
        If the hub does not give the weights, or there is no such file.
    ValueError
        If they do not fit.
    """
    network = None if entry.package == "conch" else build_network(entry)
    if network is None:
        _import_conch()
    file, origin = hub_file(entry) if weights is None else (local_file(weights), str(weights))
    state = read_state_dict(file)
    module: nn.Module
    if network is None:
        module = _conch(entry, file, state)
    else:
        fill(network.backbone, as_timm(state, entry.registers), str(file))
        module = network
    log.info(
        "encoder %s: %s, license %s. Some licenses count models trained on an encoder's outputs as derivatives: see %s",
        entry.name,
        origin,
        entry.license,
        entry.url,
    )
    return Encoder(
        entry.name,
        module.eval().requires_grad_(False),
        version=VERSION,
        colors=entry.colors,
        px=entry.px,
        um=entry.px * entry.um_per_px,
        token_px=entry.token_px,
        fixed=entry.package == "conch",
        width=entry.width,
        license=entry.license,
        hub_id=entry.hub_id,
        pooling=OWN if network is None else entry.pooling,
        weights=origin,
        sha256=file_sha256(file),
        by_name=True,
    )


def _import_conch() -> Any:
    try:
        from conch.open_clip_custom import create_model_from_pretrained
    except ImportError as error:
        raise ImportError(
            f"CONCH is built by its authors' package, which cannot be imported: {error}. Install it: "
            "pip install git+https://github.com/mahmoodlab/CONCH.git"
        ) from error
    return create_model_from_pretrained


def _conch(entry: EncoderEntry, file: Path, state: dict[str, Tensor]) -> ConchEncoder:
    """Build CONCH by its own package, from a file that was read as weights only before, and check that all are used."""
    model = _import_conch()(entry.architecture, checkpoint_path=str(file), return_transform=False)
    bare = {name.removeprefix("module.") for name in state}
    missing = [f"visual.{name}" for name in model.visual.state_dict() if f"visual.{name}" not in bare]
    if missing:
        raise ValueError(
            f"The weights in '{file}' are not those of CONCH: {len(missing)} are missing ({', '.join(missing[:3])})."
        )
    return ConchEncoder(model)
