"""How sharp the pictures of spots are, measured as their patches are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hist2scrna.images.sharpness import FEWEST_PX, sharpness

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray
    from torch import Tensor

    from hist2scrna.spots.read import Spots

AT_ONCE = 64


class Sight:
    """The sharpness of what patches show.

    Parameters
    ----------
    n
        Number of all spots.
    view
        How many times as wide as the middle that is looked at a patch is.
    side
        Pixels to which that is brought; 0: too few to tell.

    Attributes
    ----------
    values
        `(n,)` float32, NaN for spots that were not seen.
    """

    def __init__(self, n: int, view: int, side: int) -> None:
        self.view, self.side = view, side
        self.values = np.full(n, np.nan, dtype=np.float32)

    @classmethod
    def of(cls, spots: Spots, view: int = 1) -> Self:
        """Look at the spots of a training, at the pixels of its coarsest image where the model sees finer ones."""
        assert spots.geometry is not None
        side = spots.geometry.px // view
        if spots.pixel_um is not None:
            side = min(side, round(spots.geometry.um / view / spots.pixel_um[1]))
        return cls(len(spots), view, side if side >= FEWEST_PX else 0)

    def measure(self, patches: Tensor) -> NDArray[np.float32]:
        """Return the sharpness of patches `(n, channels, px, px)` uint8, `(n,)`."""
        if not self.side:
            return np.full(len(patches), np.nan, dtype=np.float32)
        px = patches.shape[-1] // self.view
        start = (patches.shape[-1] - px) // 2
        return sharpness(patches[..., start : start + px, start : start + px].cpu().numpy(), self.side)

    def see(self, members: NDArray[np.int64], patches: Tensor) -> None:
        """Measure the patches of some spots; threads may call it at once."""
        self.values[members] = self.measure(patches)

    def complete(self, spots: Spots, members: NDArray[np.int64]) -> None:
        """Read the patches of those that were not seen, since their features were at hand."""
        if spots.patches is None or not self.side:
            return
        unseen = members[np.isnan(self.values[members])]
        for start in range(0, len(unseen), AT_ONCE):
            chunk = unseen[start : start + AT_ONCE]
            self.see(chunk, torch.from_numpy(spots.patches.cut(chunk)))
