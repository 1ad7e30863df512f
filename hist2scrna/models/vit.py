"""Vision transformer on one patch: tokens cut by a strided convolution, a class token, learned positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hist2scrna.models.layers import TransformerBlock


class PatchEmbedding(nn.Module):
    """Cut `(n, channels, H, W)` into square tokens and project each, `(n, (H / token_px) (W / token_px), width)`."""

    def __init__(self, token_px: int, width: int, channels: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=token_px, stride=token_px)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed."""
        return self.proj(patches).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Encode each patch as its class token after `depth` pre-norm blocks.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021.

    Parameters
    ----------
    patch_px
        Side of the square patch in pixels; a multiple of `token_px`.
    token_px
        Side of a token in pixels.
    width, depth, heads
        Width of the tokens, number of blocks, attention heads of each.
    dropout
        Dropout rate throughout.
    channels
        Channels of a patch.

    Attributes
    ----------
    grid
        Rows and columns of the tokens.
    """

    def __init__(
        self, patch_px: int, token_px: int, width: int, depth: int, heads: int, dropout: float, channels: int = 3
    ) -> None:
        super().__init__()
        if patch_px % token_px:
            raise ValueError(f"Expected `patch_px` to be a multiple of `token_px`, found {patch_px} and {token_px}.")
        self.grid = (patch_px // token_px, patch_px // token_px)
        self.patch_embed = PatchEmbedding(token_px, width, channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (patch_px // token_px) ** 2, width))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, patches: Tensor) -> Tensor:
        """Map normalized patches `(n, channels, H, W)` to `(n, width)`."""
        tokens = self.patch_embed(patches)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = self.drop(tokens + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])
