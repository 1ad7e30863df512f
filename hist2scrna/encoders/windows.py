"""Means and standard deviations in windows of maps, each in a few look-ups whatever its size."""

from __future__ import annotations

import torch
from torch import Tensor


def integrals_of(maps: Tensor) -> Tensor:
    """Return the integrals of maps and of their squares from the upper left corner.

    Parameters
    ----------
    maps
        `(c, h, w)`, each value that of a square token.

    Returns
    -------
    `(h + 1, w + 1, 2 c)` float64, at the corners of tokens: sums over a window are differences of large numbers.
    """
    channels, height, width = maps.shape
    table = torch.zeros((height + 1, width + 1, 2 * channels), dtype=torch.float64, device=maps.device)
    inside = table[1:, 1:]
    inside[..., :channels] = maps.permute(1, 2, 0)
    torch.square(inside[..., :channels], out=inside[..., channels:])
    # Row by row, whose channels lie side by side: several times as fast as two cumulative sums.
    for row in range(1, height):
        inside[row] += inside[row - 1]
    for column in range(1, width):
        inside[:, column] += inside[:, column - 1]
    return table


def statistics_in(integrals: Tensor, places: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of maps in square windows, tokens cut by a rim counting in part.

    Parameters
    ----------
    integrals
        Of :func:`integrals_of`.
    places
        `(m, 2)` float, middles of the windows, x and y in tokens from the upper left corner.
    side
        Side of a window in tokens.

    Returns
    -------
    `(m, c)` float32 each.
    """
    half = side / 2
    sums = torch.zeros((len(places), integrals.shape[2]), dtype=integrals.dtype, device=integrals.device)
    for right in (False, True):
        for below in (False, True):
            corner = places.to(integrals) + half * places.new_tensor([1.0 if right else -1.0, 1.0 if below else -1.0])
            sums += (1.0 if right == below else -1.0) * _between(integrals, corner)
    mean, square = (sums / side**2).chunk(2, dim=1)
    return mean.float(), (square - mean.square()).clamp(min=0).sqrt().float()


def _between(table: Tensor, places: Tensor) -> Tensor:
    """Return rows of `(h, w, c)` between its points, linear in x and in y, which is exact for integrals of tokens."""
    height, width, _ = table.shape
    x, y = places[:, 0].clamp(0, width - 1), places[:, 1].clamp(0, height - 1)
    left, above = x.floor().clamp(max=width - 2).long(), y.floor().clamp(max=height - 2).long()
    across, down = (x - left)[:, None], (y - above)[:, None]
    upper = table[above, left] * (1 - across) + table[above, left + 1] * across
    lower = table[above + 1, left] * (1 - across) + table[above + 1, left + 1] * across
    return upper * (1 - down) + lower * down
