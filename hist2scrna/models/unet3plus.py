"""UNet 3+: every level of the decoder reads every level of the encoder and of the decoder below it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEPTH = 5
# Each side of a tile is halved so often.
MULTIPLE = 2 ** (DEPTH - 1)


def unit(n_in: int, n_out: int) -> nn.Sequential:
    """Return a 3 x 3 convolution, batch normalization and ReLU."""
    convolution, norm = nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out)
    nn.init.kaiming_normal_(convolution.weight)
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return nn.Sequential(convolution, norm, nn.ReLU())


class UNet3Plus(nn.Module):
    """The backbone of GHIST: five levels, without deep supervision.

    Source: Huang et al., UNet 3+: a full-scale connected UNet for medical image segmentation, ICASSP 2020; with the
    widths and the order of the branches of GHIST.

    Parameters
    ----------
    width
        Channels of the first level; each further one has twice as many, and the decoder five times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [3, *(width * 2**level for level in range(DEPTH))]
        self.encoder = nn.ModuleDict(
            {
                str(level): nn.Sequential(
                    OrderedDict({"1": unit(widths[level - 1], widths[level]), "2": unit(widths[level], widths[level])})
                )
                for level in range(1, DEPTH + 1)
            }
        )
        self.decoder, self.fuse = nn.ModuleDict(), nn.ModuleDict()
        for level in range(DEPTH - 1, 0, -1):
            read = {i: widths[i] if i <= level or i == DEPTH else DEPTH * width for i in range(1, DEPTH + 1)}
            self.decoder[str(level)] = nn.ModuleDict({str(i): unit(n_in, width) for i, n_in in read.items()})
            self.fuse[str(level)] = unit(DEPTH * width, DEPTH * width)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last level of the decoder, `(t, 5 width, H, W)`, and the first of the encoder, `(t, width, H, W)`.

        Parameters
        ----------
        tiles
            `(t, 3, H, W)`, standardized; `H` and `W` are multiples of 16.
        """
        hidden, levels = tiles, {}
        for level in range(1, DEPTH + 1):
            hidden = self.encoder[str(level)](hidden if level == 1 else F.max_pool2d(hidden, 2))
            levels[level] = hidden
        first = levels[1]
        for level in range(DEPTH - 1, 0, -1):
            branches = self.decoder[str(level)].children()
            seen = [branch(_resampled(levels[i], i - level)) for i, branch in enumerate(branches, 1)]
            # From here on the decoder's own level is read in place of the encoder's.
            levels[level] = self.fuse[str(level)](torch.cat(seen, dim=1))
        return levels[1], first


def _resampled(level: Tensor, steps: int) -> Tensor:
    """Return a level at the size of one that is so many steps finer (coarser, where negative)."""
    if steps < 0:
        return F.max_pool2d(level, 2**-steps, ceil_mode=True)
    if steps == 0:
        return level
    return F.interpolate(level, scale_factor=2**steps, mode="bilinear", align_corners=False)
