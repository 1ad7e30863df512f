"""The published pathology encoders by name: what each is, what it reads, and under which license.

To add one, add its row here; a test compares the number of its weights with the published one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Colors = tuple[float, float, float]
Pooling = Literal["class", "class+mean"]

IMAGENET: tuple[Colors, Colors] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP: tuple[Colors, Colors] = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BIOPTIMUS: tuple[Colors, Colors] = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
HIBOU: tuple[Colors, Colors] = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)
HALVES: tuple[Colors, Colors] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

NO_DERIVATIVES = "CC-BY-NC-ND-4.0"


@dataclass(frozen=True)
class EncoderEntry:
    """A published encoder of patches: what is known of it before its weights are read.

    Attributes
    ----------
    name
        What it is called in this package.
    hub_id
        Repository of the weights on the Hugging Face hub.
    width
        Length of the vector of a patch.
    license
        License of the weights.
    gated
        Whether the hub asks for consent or an application before it gives them.
    colors
        Mean and standard deviation of red, green and blue in 0..1, by which patches are normalized.
    architecture, arguments
        Model of timm, and arguments that differ from its defaults.
    swiglu
        Whether the perceptrons are gated by SiLU (SwiGLU) instead of GELU.
    registers
        Register tokens between the class token and the patch tokens.
    token_px
        Side of a token in pixels.
    pooling
        `"class"`: the class token; `"class+mean"`: the class token, then the mean of the patch tokens. CONCH has a
        pooling of its own.
    px, um_per_px
        Side of the input in pixels, and the pixel that the encoder was trained on: `px * um_per_px` microns of tissue.
    package
        Package that must be installed for the architecture.
    """

    name: str
    hub_id: str
    width: int
    license: str
    gated: bool
    colors: tuple[Colors, Colors] = IMAGENET
    architecture: str = "vit_large_patch16_224"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    swiglu: bool = False
    registers: int = 0
    token_px: int = 14
    pooling: Pooling = "class"
    px: int = 224
    um_per_px: float = 0.5
    package: str = "timm"

    @property
    def url(self) -> str:
        """Page of the weights, with their license."""
        return f"https://huggingface.co/{self.hub_id}"


# Hidden width of a SwiGLU perceptron of DINOv2: two thirds of four widths, rounded up to a multiple of 8; both halves.
TWO_THIRDS = 2 * 2.66667

_ENTRIES = (
    EncoderEntry(
        "h-optimus-0",
        "bioptimus/H-optimus-0",
        1536,
        "Apache-2.0",
        gated=True,
        colors=BIOPTIMUS,
        architecture="vit_giant_patch14_reg4_dinov2",
        arguments={"init_values": 1e-5},
        swiglu=True,
        registers=4,
    ),
    EncoderEntry(
        "h-optimus-1",
        "bioptimus/H-optimus-1",
        1536,
        NO_DERIVATIVES,
        gated=True,
        colors=BIOPTIMUS,
        architecture="vit_giant_patch14_reg4_dinov2",
        arguments={"init_values": 1e-5},
        swiglu=True,
        registers=4,
    ),
    EncoderEntry(
        "uni",
        "MahmoodLab/UNI",
        1024,
        NO_DERIVATIVES,
        gated=True,
        arguments={"init_values": 1e-5},
        token_px=16,
    ),
    EncoderEntry(
        "uni2-h",
        "MahmoodLab/UNI2-h",
        1536,
        NO_DERIVATIVES,
        gated=True,
        architecture="vit_giant_patch14_224",
        arguments={
            "depth": 24,
            "num_heads": 24,
            "embed_dim": 1536,
            "mlp_ratio": TWO_THIRDS,
            "init_values": 1e-5,
            "no_embed_class": True,
        },
        swiglu=True,
        registers=8,
    ),
    EncoderEntry(
        "conch",
        "MahmoodLab/conch",
        512,
        NO_DERIVATIVES,
        gated=True,
        colors=CLIP,
        architecture="conch_ViT-B-16",
        token_px=16,
        px=448,
        package="conch",
    ),
    EncoderEntry(
        "virchow",
        "paige-ai/Virchow",
        2560,
        "Apache-2.0",
        gated=True,
        architecture="vit_huge_patch14_224",
        arguments={"mlp_ratio": 5.3375, "init_values": 1e-5},
        swiglu=True,
        pooling="class+mean",
    ),
    EncoderEntry(
        "virchow2",
        "paige-ai/Virchow2",
        2560,
        NO_DERIVATIVES,
        gated=True,
        architecture="vit_huge_patch14_224",
        arguments={"mlp_ratio": 5.3375, "init_values": 1e-5},
        swiglu=True,
        registers=4,
        pooling="class+mean",
    ),
    EncoderEntry(
        "prov-gigapath",
        "prov-gigapath/prov-gigapath",
        1536,
        "Apache-2.0 with conditions",
        gated=True,
        architecture="vit_giant_patch14_dinov2",
        arguments={"patch_size": 16, "init_values": 1e-5},
        swiglu=True,
        token_px=16,
    ),
    EncoderEntry(
        "phikon-v2",
        "owkin/phikon-v2",
        1024,
        "Owkin non-commercial",
        gated=False,
        arguments={"init_values": 1.0},
        token_px=16,
    ),
    EncoderEntry(
        "midnight-12k",
        "kaiko-ai/midnight",
        3072,
        "MIT",
        gated=False,
        colors=HALVES,
        architecture="vit_giant_patch14_dinov2",
        swiglu=True,
        pooling="class+mean",
    ),
    EncoderEntry(
        "hibou-b",
        "histai/hibou-b",
        768,
        "Apache-2.0",
        gated=True,
        colors=HIBOU,
        architecture="vit_base_patch14_reg4_dinov2",
        arguments={"mlp_ratio": TWO_THIRDS},
        swiglu=True,
        registers=4,
    ),
    EncoderEntry(
        "hibou-l",
        "histai/hibou-L",
        1024,
        "Apache-2.0",
        gated=True,
        colors=HIBOU,
        architecture="vit_large_patch14_reg4_dinov2",
        arguments={"mlp_ratio": 2 * 2736 / 1024},
        swiglu=True,
        registers=4,
    ),
)

ENCODERS: dict[str, EncoderEntry] = {entry.name: entry for entry in _ENTRIES}
