"""Any model of timm as an encoder, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hist2scrna.encoders.encoder import NONE, UNKNOWN, Encoder
from hist2scrna.encoders.networks import fill, import_timm
from hist2scrna.encoders.weights import file_sha256, local_file, read_state_dict, state_sha256
from hist2scrna.messages import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

HUB_PREFIXES = ("hf-hub:", "hf_hub:", "local-dir:")


def timm_encoder(name: str, weights: str | Path | None, others: Sequence[str]) -> Encoder:
    """Return a model of timm as an encoder.

    Parameters
    ----------
    name
        Name of the model, or its address on the hub (`"hf-hub:owner/name"`).
    weights
        A file of weights, or a folder with one; None: the pretrained ones of timm.
    others
        Names of the encoders that are not of timm, for messages.

    Raises
    ------
    ImportError
        If timm cannot be imported.
    ValueError
        If the name is not known, or the weights do not fit.
    FileNotFoundError
        If the weights are not there.
    """
    backbone, version = _create(name, weights is None, others)
    config = backbone.pretrained_cfg
    if weights is None:
        origin, sha256 = f"timm {version}, tag {config.get('tag') or NONE}", state_sha256(backbone.state_dict())
    else:
        file = local_file(weights)
        fill(backbone, _without_head(read_state_dict(file), config.get("classifier")), str(file))
        origin, sha256 = str(file), file_sha256(file)
    return Encoder(
        name,
        backbone.eval().requires_grad_(False),
        colors=(tuple(config["mean"]), tuple(config["std"])),
        px=int(config["input_size"][-1]),
        fixed=bool(config.get("fixed_input_size")),
        license=str(config.get("license") or UNKNOWN),
        hub_id=str(config.get("hf_hub_id") or NONE),
        weights=origin,
        sha256=sha256,
        by_name=True,
    )


def _create(name: str, pretrained: bool, others: Sequence[str]) -> tuple[Any, str]:
    """Return the model without its head, and the version of timm."""
    try:
        timm = import_timm()
    except ImportError as error:
        near = nearest(name.lower(), others)
        hint = "" if near is None else f" Did you mean {near!r}?"
        raise ImportError(
            f"{name!r} is none of the encoders known here ({', '.join(others)}).{hint} To look it up in timm: {error}"
        ) from error
    if not name.startswith(HUB_PREFIXES) and not timm.is_model(name):
        near = nearest(name.lower(), [*others, *timm.list_models()])
        hint = "" if near is None else f" Did you mean {near!r}?"
        raise ValueError(f"Unknown encoder {name!r}.{hint} Available: {list(others)}, and the models of timm.")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0), timm.__version__
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"The weights of the timm model {name!r} cannot be downloaded: {error} Pass weights=, a file that you have."
        ) from error


def _without_head(state: dict[str, Tensor], classifier: str | Sequence[str] | None) -> dict[str, Tensor]:
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    head = tuple(f"{name}." for name in names)
    return {key: value for key, value in state.items() if not (head and key.startswith(head))}
