"""The networks of the published encoders, as timm builds them, and the renaming of weights from other layouts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hist2scrna.encoders.published import EncoderEntry, Pooling

# From the names of transformers (Dinov2Model, Dinov2WithRegistersModel) and of the DINOv2 repository to those of timm.
RENAMED = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^(embeddings\.)?register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.(weights_in|w12)\.", ".mlp.fc1."),
    (r"\.mlp\.(weights_out|w3)\.", ".mlp.fc2."),
)
# Weights that only training uses.
UNREAD = ("mask_token", "embeddings.mask_token")


def pool_tokens(tokens: Tensor, pooling: Pooling, registers: int) -> Tensor:
    """Return one vector for each patch from its tokens.

    Parameters
    ----------
    tokens
        `(n, 1 + registers + t, d)`: the class token, the registers, the tokens of the patch.
    pooling
        `"class"` or `"class+mean"`.
    registers
        Number of register tokens, which the mean leaves out.

    Returns
    -------
    `(n, d)` of the class token, or `(n, 2 d)` with the mean of the patch's tokens after it.
    """
    if pooling == "class":
        return tokens[:, 0]
    return torch.cat([tokens[:, 0], tokens[:, 1 + registers :].mean(dim=1)], dim=-1)


class PooledEncoder(nn.Module):
    """A vision transformer of timm that maps normalized patches `(n, 3, h, w)` to `(n, width)`."""

    def __init__(self, backbone: Any, pooling: Pooling, registers: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.registers = registers

    def forward(self, patches: Tensor) -> Tensor:
        """Map `(n, 3, h, w)` to `(n, width)`."""
        return pool_tokens(self.backbone.forward_features(patches), self.pooling, self.registers)


class ConchEncoder(nn.Module):
    """The image half of CONCH, before its projection for contrast with text."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, patches: Tensor) -> Tensor:
        """Map `(n, 3, 448, 448)` to `(n, 512)`."""
        return self.backbone.encode_image(patches, proj_contrast=False, normalize=False)


def import_timm() -> Any:
    """Return timm.

    Raises
    ------
    ImportError
        If it is not installed, or its torchvision is of another torch; says what to do.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"This encoder needs timm, which cannot be imported: {error}. Install it: "
            "pip install 'hist2scrna[encoders]'."
        ) from error
    except RuntimeError as error:
        # A torchvision that was compiled for another torch, or for CUDA where torch is for the CPU, fails like this.
        raise ImportError(
            f"timm cannot be imported, because its torchvision does not fit torch {torch.__version__}: {error}. "
            "Install torchvision from where torch came from, in the version that pairs with it."
        ) from error
    return timm


def build_network(entry: EncoderEntry) -> PooledEncoder:
    """Build the architecture of an encoder on the meta device: shapes without memory, to be filled by weights.

    Raises
    ------
    ImportError
        If timm cannot be imported.
    """
    timm = import_timm()
    gated: dict[str, Any] = {}
    if entry.swiglu:
        from timm.layers import SwiGLUPacked

        gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    with torch.device("meta"):
        backbone = timm.create_model(
            entry.architecture,
            pretrained=False,
            num_classes=0,
            img_size=entry.px,
            dynamic_img_size=True,
            reg_tokens=entry.registers,
            **gated,
            **entry.arguments,
        )
    return PooledEncoder(backbone, entry.pooling, entry.registers)


def as_timm(state: Mapping[str, Tensor], registers: int) -> dict[str, Tensor]:
    """Rename the weights of a DINOv2 transformer as timm names them; those of timm stay as they are.

    Query, key and value become one matrix. With registers, timm has no position for the class token: the position is
    added to that token.

    Parameters
    ----------
    state
        Weights by name, of timm, of `Dinov2Model` or `Dinov2WithRegistersModel` of transformers, or of the DINOv2
        repository.
    registers
        Number of register tokens.
    """
    if "embeddings.cls_token" not in state and not any(name in state for name in (*UNREAD, "register_tokens")):
        return dict(state)
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in UNREAD:
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        named[name] = value
    for name in [name for name in named if ".attn.query." in name]:
        parts = [named.pop(name.replace("query", part), None) for part in ("query", "key", "value")]
        named[name.replace("query", "qkv")] = torch.cat([part for part in parts if part is not None])
    position, token = named.get("pos_embed"), named.get("cls_token")
    if registers and position is not None and token is not None:
        named["cls_token"] = token + position[:, :1]
        named["pos_embed"] = position[:, 1:]
    return named


def fill(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Give a network its weights, as float32; each must be there and of the right shape.

    Parameters
    ----------
    network
        The network, on any device or on meta.
    state
        Weights by name.
    origin
        Where the weights are from, for messages.

    Raises
    ------
    ValueError
        If a weight is missing, left over, or of another shape.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    reshaped = [name for name in expected if name in state and expected[name].shape != state[name].shape]
    if missing or unknown or reshaped:
        shapes = [f"{name} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}" for name in reshaped]
        parts = (("missing", missing), ("not of this network", unknown), ("of another shape", shapes))
        differences = "; ".join(f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in parts if names)
        raise ValueError(
            f"The weights in '{origin}' do not fit {len(expected)} tensors of the encoder: {differences}. Pass the "
            "file that was published for this encoder, or another `encoder`."
        )
    network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in state.items()}, assign=True
    )
