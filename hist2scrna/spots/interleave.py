"""Lattices finer than that of the training, taken apart into interleaved ones at its pitch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.spots.lattice import array_from_pixels, find_lattice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# A lattice is finer than that of the training where its pitch is smaller by more than this factor.
FINER = 1.5


@dataclass(frozen=True)
class Parts:
    """What is read together: sections, and the interleaved lattices of those that are finer than the training.

    Attributes
    ----------
    names
        Names of the parts, for messages.
    part
        `(n,)` int64, number of the part of each spot.
    section
        `(n_parts,)` int64, number of the section of each part.
    step
        `(n,)` int64, how many steps of the lattice lie between neighbors in a part; 1 where it is a whole section.
    """

    names: tuple[str, ...]
    part: NDArray[np.int64]
    section: NDArray[np.int64]
    step: NDArray[np.int64]


def interleaved(
    xy: NDArray[np.float64],
    section: NDArray[np.int64],
    sections: Sequence[str],
    pitch_um: Sequence[float | None],
    trained_um: float,
) -> Parts | None:
    """Return the parts in which every spot has neighbors about as far away as in training; None: whole sections.

    A lattice with `k` times the density of the training along each axis falls into `k` x `k` lattices at the pitch of
    the training. A model that reads neighbors sees in each of these what it saw in training; what it predicts at a
    place does not depend on the places that were added in between.

    Parameters
    ----------
    xy
        `(n, 2)` coordinates in full-resolution pixels.
    section, sections
        `(n,)` number of the section of each spot; their names.
    pitch_um
        Distance between neighbors in each section, in microns; None where it is not known.
    trained_um
        That of the training.
    """
    part, step = np.zeros(len(xy), dtype=np.int64), np.ones(len(xy), dtype=np.int64)
    names: list[str] = []
    of_section: list[int] = []
    for code, (name, pitch) in enumerate(zip(sections, pitch_um, strict=True)):
        rows = np.flatnonzero(section == code)
        finer = pitch is not None and trained_um > FINER * pitch and find_lattice(xy[rows]) != "irregular"
        k = round(trained_um / pitch) if finer and pitch is not None else 1
        own = _classes(xy[rows], k) if k > 1 else np.zeros(len(rows), dtype=np.int64)
        n_parts = int(own.max(initial=0)) + 1
        part[rows], step[rows] = len(names) + own, k
        names += [name] if n_parts == 1 else [f"{name} ({i + 1} of {n_parts})" for i in range(n_parts)]
        of_section += [code] * n_parts
        if k > 1 and pitch is not None:
            log.info(
                "section %s: spots are %.3g um apart, and were %.3g um apart in training: predicted as %d interleaved "
                "lattices of %.3g um, so that each spot sees its neighbors from as far as in training",
                *(name, pitch, trained_um, n_parts, k * pitch),
            )
    if (step == 1).all():
        return None
    return Parts(tuple(names), part, np.array(of_section), step)


def _classes(xy: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Return which of the `k` x `k` lattices each spot of one lattice lies on, as numbers from 0 without a gap."""
    place = array_from_pixels(xy).astype(np.int64)
    if find_lattice(xy) == "hexagonal":
        # Along the two axes of the lattice: columns count half steps, and every second row is shifted by one.
        place[:, 0] = (place[:, 0] - place[:, 1]) // 2
    _, own = np.unique(np.mod(place, k) @ np.array([k, 1]), return_inverse=True)
    return own.astype(np.int64)
