"""Learned embeddings of a spot's column and row on the array, for models that read a section at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# 112 px where a spot measures 136 px: the patches that HisToGene and Hist2ST cut from the images of HER2ST.
PUBLISHED_PATCH_PER_SPOT = 112 / 136


class ArrayPosition(nn.Module):
    """Sum of a learned embedding of the array column and one of the row.

    The tables have `n_positions` rows each. The originals fail beyond them; here a section that does not fit is moved,
    and shrunk if it is too large, until it does, and a position between two rows reads both, weighted by distance.
    Whole numbers inside the table read one row, as in the originals.

    Parameters
    ----------
    n_positions
        Columns and rows that are told apart.
    width
        Width of the embedding.
    """

    def __init__(self, n_positions: int, width: int) -> None:
        super().__init__()
        self.n_positions = n_positions
        self.x = nn.Embedding(n_positions, width)
        self.y = nn.Embedding(n_positions, width)

    def forward(self, grid: Tensor) -> Tensor:
        """Map `(n, 2)` array columns and rows of one section to `(n, width)`."""
        return self._read(self.x, grid[:, 0].float()) + self._read(self.y, grid[:, 1].float())

    def _read(self, table: nn.Embedding, position: Tensor) -> Tensor:
        last = self.n_positions - 1
        low, high = position.min(), position.max()
        if low < 0 or high > last:
            position = (position - low) * (last / (high - low).clamp(min=last))
        below = position.floor().long().clamp(max=last)
        above = (below + 1).clamp(max=last)
        weight = (position - below).unsqueeze(-1)
        return torch.lerp(table(below), table(above), weight.to(table.weight.dtype))
