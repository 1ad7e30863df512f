"""An encoder ready for use, from whatever names it: a function, a module, a published encoder, a model of timm."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hist2scrna.fitting.warm_start import read_state_dict
from hist2scrna.models.encoder_network import ConchEncoder, as_timm, build_network, fill, import_timm
from hist2scrna.models.encoders import ENCODERS
from hist2scrna.pp._encoder_weights import file_sha256, hub_file, local_file, state_sha256

if TYPE_CHECKING:
    from hist2scrna.models.encoders import Colors, EncoderEntry

log = logging.getLogger(__name__)

PLAIN: tuple[Colors, Colors] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
DEFAULT_PX = 224
HUB_PREFIXES = ("hf-hub:", "hf_hub:", "local-dir:")
UNKNOWN, NONE, OWN = "unknown", "none", "the encoder's own"


@dataclass(frozen=True)
class Encoder:
    """A function from normalized patches `(n, 3, px, px)` to `(n, d)`, and what is known of it.

    Attributes
    ----------
    name
        What it is called in slots and messages.
    encode
        The function, or the module.
    colors
        Mean and standard deviation of red, green and blue by which patches are normalized.
    px, um
        Side of a patch in pixels and in microns; `um` None: not of the encoder.
    token_px
        The side must be a multiple of this.
    fixed
        Whether patches of another side are refused.
    width
        Length of a vector, where it is known beforehand.
    license, hub_id, pooling
        As published; `"unknown"`, `"none"` or `"the encoder's own"` where not.
    weights, sha256
        Where the weights are from, and their SHA-256: of the file where there is one, else of the tensors.
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    colors: tuple[Colors, Colors] = PLAIN
    px: int = DEFAULT_PX
    um: float | None = None
    token_px: int = 1
    fixed: bool = False
    width: int | None = None
    license: str = UNKNOWN
    hub_id: str = NONE
    pooling: str = OWN
    weights: str = "as given"
    sha256: str = NONE

    @property
    def module(self) -> nn.Module | None:
        """The encoder, where it is a module."""
        return self.encode if isinstance(self.encode, nn.Module) else None


def prepare_encoder(encoder: Any, weights: str | Path | None) -> Encoder:
    """Return the encoder that a callable, a module or a name stands for.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If the name is not known, or the weights do not fit.
    ImportError
        If a package that it needs is missing.
    """
    if isinstance(encoder, str):
        entry = ENCODERS.get(encoder.lower())
        return _of_timm(encoder, weights) if entry is None else _published(entry, weights)
    if isinstance(encoder, nn.Module):
        return _of_module(encoder, weights)
    if not callable(encoder):
        raise TypeError(
            f"Expected `encoder` to be a function, a torch.nn.Module or a name ({', '.join(ENCODERS)}, or one of "
            f"timm), found {type(encoder).__name__}."
        )
    if weights is not None:
        raise ValueError("`weights` are for modules and for encoders by name; this function brings its own.")
    name = getattr(encoder, "__name__", type(encoder).__name__)
    return Encoder("encoder" if name == "<lambda>" else name, encoder)


def _of_module(module: nn.Module, weights: str | Path | None) -> Encoder:
    name = type(module).__name__
    if weights is None:
        return Encoder(name, module, sha256=state_sha256(module.state_dict()))
    file = local_file(weights)
    filled = copy.deepcopy(module)
    fill(filled, read_state_dict(file), str(file))
    return Encoder(name, filled, weights=str(file), sha256=file_sha256(file))


def _published(entry: EncoderEntry, weights: str | Path | None) -> Encoder:
    """Build the network before its weights are looked for: what is missing is said before gigabytes are read."""
    network = None if entry.package == "conch" else build_network(entry)
    if network is None:
        _import_conch()
    file, origin = hub_file(entry) if weights is None else (local_file(weights), str(weights))
    state = read_state_dict(file)
    encode: nn.Module
    if network is None:
        encode = _conch(entry, file, state)
    else:
        fill(network.backbone, as_timm(state, entry.registers), str(file))
        encode = network
    log.info(
        "encoder %s: %s, license %s. Some licenses count models trained on an encoder's outputs as derivatives: see %s",
        entry.name,
        origin,
        entry.license,
        entry.url,
    )
    return Encoder(
        entry.name,
        encode,
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
    """Build CONCH by its own package from a file that was read as weights only before, and see that all were used."""
    model = _import_conch()(entry.architecture, checkpoint_path=str(file), return_transform=False)
    bare = {name.removeprefix("module.") for name in state}
    missing = [f"visual.{name}" for name in model.visual.state_dict() if f"visual.{name}" not in bare]
    if missing:
        raise ValueError(
            f"The weights in '{file}' are not those of CONCH: {len(missing)} are missing ({', '.join(missing[:3])})."
        )
    return ConchEncoder(model)


def _of_timm(name: str, weights: str | Path | None) -> Encoder:
    choices = list(ENCODERS)
    try:
        timm = import_timm()
    except ImportError as error:
        raise ImportError(
            f"{name!r} is no published encoder known here ({', '.join(choices)}). To be looked up in timm: {error}"
        ) from error
    if not name.startswith(HUB_PREFIXES) and not timm.is_model(name):
        near = get_close_matches(name.lower(), [*choices, *timm.list_models()], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown encoder {name!r}.{hint} Available: {choices}, and the models of timm.")
    try:
        backbone = timm.create_model(name, pretrained=weights is None, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"The weights of the timm model {name!r} could not be had: {error} Pass weights=, a file that you have."
        ) from error
    config = backbone.pretrained_cfg
    if weights is None:
        origin, sha256 = (
            f"timm {timm.__version__}, tag {config.get('tag') or NONE}",
            state_sha256(backbone.state_dict()),
        )
    else:
        file = local_file(weights)
        heads = config.get("classifier") or ()
        head = tuple(f"{part}." for part in ((heads,) if isinstance(heads, str) else heads))
        state = {key: value for key, value in read_state_dict(file).items() if not (head and key.startswith(head))}
        fill(backbone, state, str(file))
        origin, sha256 = str(file), file_sha256(file)
    return Encoder(
        name,
        backbone,
        colors=(tuple(config["mean"]), tuple(config["std"])),
        px=int(config["input_size"][-1]),
        fixed=bool(config.get("fixed_input_size")),
        license=str(config.get("license") or UNKNOWN),
        hub_id=str(config.get("hf_hub_id") or NONE),
        weights=origin,
        sha256=sha256,
    )
