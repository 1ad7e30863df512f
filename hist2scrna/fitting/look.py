"""Looks at patches: as they are, or varied at random in a way that can be found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots


class Variation(Protocol):
    """What a look does to patches at random: first it is drawn for each patch, then done."""

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Return what is done to each of `n` patches, tensors with `n` rows on the CPU."""

    def vary(self, patches: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """Return patches `(n, 3, h, w)`, uint8 or 0..1, varied as was drawn; float in 0..1."""

    def moved(self, places: Tensor, side: int, drawn: Sequence[Tensor]) -> Tensor:
        """Return where places `(m, 2)`, x and y, in one patch of `side` pixels come to lie when it is varied."""


@dataclass(frozen=True)
class Look:
    """One look at each patch: as it is, or varied as was drawn for all spots.

    Attributes
    ----------
    variation
        What varies patches; None: they are seen as they are.
    drawn
        What was drawn, tensors with a row for each spot.
    """

    variation: Variation | None = None
    drawn: tuple[Tensor, ...] = field(default=())

    @classmethod
    def of(cls, variation: Variation, spots: Spots, seed: int) -> Look:
        """Draw for all spots, section by section.

        What a spot gets depends on the seed, the name of its section and its place there: so it is the same whichever
        other sections are read with it, and its features can be found again.
        """
        drawn: list[Tensor] = []
        for code, name in enumerate(spots.sections):
            members = torch.from_numpy(np.flatnonzero(spots.section == code))
            text = f"{seed} {type(variation).__name__} {name}"
            number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
            own = variation.draw(len(members), torch.Generator().manual_seed(number))
            drawn = drawn or [values.new_empty((len(spots), *values.shape[1:])) for values in own]
            for values, part in zip(drawn, own, strict=True):
                values[members] = part
        return cls(variation, tuple(drawn))

    def drawn_for(self, members: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Return what was drawn for some spots."""
        return tuple(values[torch.from_numpy(members)] for values in self.drawn)

    def at(self, patches: Tensor, members: NDArray[np.int64]) -> Tensor:
        """Return the patches of some spots as they are seen."""
        return patches if self.variation is None else self.variation.vary(patches, self.drawn_for(members))


PLAIN = (Look(),)
