"""Building blocks that several models share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


class SelfAttention(nn.Module):
    """Multi-head self-attention over the tokens of each item, `(n, t, width) -> (n, t, width)`.

    Parameters
    ----------
    width
        Width of the tokens.
    heads
        Number of attention heads.
    dropout
        Rate on the output. The attention weights have none: fused kernels exist only without it.
    head_width
        Width of a head; None: `width / heads`.
    qkv_bias
        Give queries, keys and values an offset.
    """

    def __init__(
        self, width: int, heads: int, dropout: float, *, head_width: int | None = None, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"Expected `width` to be a multiple of `heads`, found {width} and {heads}.")
        self.heads = heads
        inner = heads * (width // heads if head_width is None else head_width)
        self.qkv = nn.Linear(width, 3 * inner, bias=qkv_bias)
        self.proj: nn.Module = nn.Linear(inner, width)
        self.drop: nn.Module = nn.Dropout(dropout)

    def leave_out_projection(self) -> None:
        """Return what the heads read as it is, as the transformers of HisToGene and Hist2ST do with a single head."""
        self.proj, self.drop = nn.Identity(), nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend."""
        n, t, _ = tokens.shape
        q, k, v = self.qkv(tokens).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.drop(self.proj(mixed.transpose(1, 2).reshape(n, t, -1)))


def feed_forward(width: int, dropout: float, hidden: int | None = None) -> nn.Sequential:
    """Return the GELU perceptron of a transformer block, four times as wide inside unless `hidden` says otherwise."""
    hidden = 4 * width if hidden is None else hidden
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
    )


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: attention, then a GELU perceptron, each added to its input.

    Parameters
    ----------
    width, heads, dropout, head_width, qkv_bias
        See :class:`SelfAttention`.
    mlp_width
        Width inside the perceptron; None: four times `width`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        *,
        head_width: int | None = None,
        qkv_bias: bool = True,
        mlp_width: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, dropout, head_width=head_width, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = feed_forward(width, dropout, mlp_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map `(n, t, width)` to the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


def perceptron(width: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """Stack Linear, LayerNorm, ReLU and dropout for each width in `hidden`."""
    layers: list[nn.Module] = []
    for out in hidden:
        layers += [nn.Linear(width, out), nn.LayerNorm(out), nn.ReLU(), nn.Dropout(dropout)]
        width = out
    return nn.Sequential(*layers)


class PatchNormalization(nn.Module):
    """Turn uint8 patches, or float patches in 0..1, into floats centered on zero.

    Mean and standard deviation of the first three channels are those of ImageNet, the convention of nearly every
    encoder of histology; those of further stains are 0.5 and 0.25.

    Parameters
    ----------
    channels
        Number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"Expected `channels` to be at least 1, found {channels}.")
        mean = [0.485, 0.456, 0.406] if channels >= 3 else []
        std = [0.229, 0.224, 0.225] if channels >= 3 else []
        more = channels - len(mean)
        for name, colors, other in (("mean", mean, 0.5), ("std", std, 0.25)):
            values = torch.cat([torch.tensor(colors), torch.full((more,), other)])
            self.register_buffer(name, values.view(-1, 1, 1), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Normalize `(n, channels, H, W)`."""
        if patches.dtype == torch.uint8:
            patches = patches.to(self.mean.dtype) / 255
        return (patches - self.mean) / self.std


class RawPixels(nn.Module):
    """Turn uint8 patches, or float patches in 0..1, into floats in 0..255 with axes (x, y).

    That is how HisToGene and Hist2ST cut them: neither scales nor centers, and both index the image column first.
    """

    def forward(self, patches: Tensor) -> Tensor:
        """Map `(n, 3, H, W)` to `(n, 3, W, H)`."""
        values = patches.float() if patches.dtype == torch.uint8 else patches * 255
        return values.transpose(-1, -2)


class UnitPixels(nn.Module):
    """Turn uint8 patches into floats in 0..1; float patches, as augmentation gives them, are in 0..1 already."""

    def forward(self, patches: Tensor) -> Tensor:
        """Map `(n, channels, H, W)` to the same shape."""
        return patches.float() / 255 if patches.dtype == torch.uint8 else patches
