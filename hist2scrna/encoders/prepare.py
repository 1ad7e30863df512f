"""An encoder ready for use, from whatever names it: a name, a function, a module, or the card in a fitted model."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from hist2scrna.encoders import imagenet, morphology
from hist2scrna.encoders.encoder import WITH_MORPHOLOGY, Encoder
from hist2scrna.encoders.networks import fill
from hist2scrna.encoders.pathology import published_encoder
from hist2scrna.encoders.published import ENCODERS
from hist2scrna.encoders.timm_models import timm_encoder
from hist2scrna.encoders.weights import file_sha256, local_file, read_state_dict, state_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_ENCODER = imagenet.NAME
BUILT_IN = {
    imagenet.NAME: imagenet.imagenet_encoder,
    imagenet.TILES_NAME: imagenet.imagenet_tiles_encoder,
    morphology.NAME: morphology.morphology_encoder,
}


def prepare_encoder(encoder: Any, weights: str | Path | None = None) -> Encoder:
    """Return the encoder that a name, a function or a module stands for.

    `fit(encoder=)`, `pp.extract_features` and `pp.pool_patches` call it with what they are given.

    Parameters
    ----------
    encoder
        `"imagenet"`, `"imagenet-tiles"`, `"morphology"`, a name of the table of published encoders (`"uni2-h"`), or the
        name of a model of timm; `"imagenet"` and the last two may end in `"+morphology"`, which joins the features by
        hand. Else a function, a :class:`torch.nn.Module`, or an :class:`Encoder`, which is returned as it is.
    weights
        A file of weights, or a folder with one; None: those of the package, of the hub, or of the module itself.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If the name is not known, or the weights do not fit.
    ImportError
        If a package that it needs is missing.
    PermissionError, FileNotFoundError
        If the weights are not given, or not there.

    Examples
    --------
    >>> import torch
    >>> encoder = h2s.encoders.prepare_encoder("morphology")
    >>> encoder.encode(torch.full((2, 3, 64, 64), 200, dtype=torch.uint8)).shape
    torch.Size([2, 104])
    """
    if isinstance(encoder, str) and encoder.lower().endswith(WITH_MORPHOLOGY):
        return _with_morphology(prepare_encoder(encoder[: -len(WITH_MORPHOLOGY)], weights))
    if isinstance(encoder, str) and encoder.lower() not in BUILT_IN:
        entry = ENCODERS.get(encoder.lower())
        if entry is None:
            return timm_encoder(encoder, weights, [*BUILT_IN, *ENCODERS])
        return published_encoder(entry, weights)
    if isinstance(encoder, nn.Module):
        return _module_encoder(encoder, weights)
    if weights is not None:
        this = repr(encoder) if isinstance(encoder, str) else "this function"
        raise ValueError(f"`weights` are for modules and for published encoders by name; {this} brings its own.")
    if isinstance(encoder, Encoder):
        return encoder
    if isinstance(encoder, str):
        return BUILT_IN[encoder.lower()]()
    if not callable(encoder):
        raise TypeError(
            f"Expected `encoder` to be a function, a torch.nn.Module or a name ({', '.join([*BUILT_IN, *ENCODERS])}, "
            f"or one of timm), found {type(encoder).__name__}."
        )
    name = getattr(encoder, "__name__", type(encoder).__name__)
    return Encoder("encoder" if name == "<lambda>" else name, encoder)


def encoder_from_card(card: Mapping[str, Any], weights: str | Path | None = None) -> Encoder:
    """Build the encoder that a fitted model was trained on, from what the model keeps of it.

    Parameters
    ----------
    card
        What :meth:`Encoder.card` returned.
    weights
        A file of its weights, where they have been moved; None: where they were.

    Raises
    ------
    ValueError
        If it is a function or a module, which only the user has, or the encoder of that name is another one now.

    Examples
    --------
    >>> card = h2s.encoders.prepare_encoder("morphology").card()
    >>> h2s.encoders.encoder_from_card(card).name
    'morphology'
    """
    name = card["name"]
    if not card["by_name"]:
        raise ValueError(
            f"The model was fitted on the encoder {name!r}, a function or module that is not saved with it. Pass it "
            "again: encoder=."
        )
    if weights is None and Path(card["weights"]).exists():
        weights = card["weights"]
    encoder = replace(prepare_encoder(name, weights), colors=(tuple(card["mean"]), tuple(card["std"])))
    check_card(encoder, card)
    return encoder


def check_card(encoder: Encoder, card: Mapping[str, Any]) -> None:
    """Refuse an encoder that is not the one on the card.

    Raises
    ------
    ValueError
        If its name, its version or the SHA-256 of its weights is another.
    """
    here = encoder.card()
    for field in ("name", "version", "sha256"):
        if here[field] != card[field]:
            raise ValueError(
                f"The model was fitted on an encoder whose {field} is {card[field]!r}; here it is {here[field]!r}, and "
                "its features would mean nothing to the model. Pass the encoder of the training: encoder=."
            )


def _with_morphology(encoder: Encoder) -> Encoder:
    """Return the encoder with the features by hand after its own."""
    if encoder.name == morphology.NAME:
        raise ValueError(f"The encoder {encoder.name!r} is the features by hand; they are not joined to themselves.")
    if encoder.maps is not None:
        raise ValueError(
            f"Encoder {encoder.name!r} cuts no patches, of which features by hand are. Leave {WITH_MORPHOLOGY!r} out, "
            f"or pass {imagenet.NAME + WITH_MORPHOLOGY!r}."
        )
    joined = replace(
        encoder,
        name=encoder.name + WITH_MORPHOLOGY,
        version=f"{encoder.version}+{morphology.VERSION}",
        with_morphology=True,
    )
    return joined if encoder.width is None else replace(joined, width=encoder.width + joined.n_morphology)


def _module_encoder(module: nn.Module, weights: str | Path | None) -> Encoder:
    name = type(module).__name__
    if weights is None:
        return Encoder(name, module, sha256=state_sha256(module.state_dict()))
    file = local_file(weights)
    filled = copy.deepcopy(module)
    fill(filled, read_state_dict(file), str(file))
    return Encoder(name, filled, weights=str(file), sha256=file_sha256(file))
