"""The spots of one section by themselves: what a worker of a cluster is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.spots.graph import SpatialGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots


def section_of(spots: Spots, code: int, members: NDArray[np.int64] | None = None) -> tuple[Spots, NDArray[np.int64]]:
    """Return the spots of one section as if there were no others, and their numbers among all.

    Parameters
    ----------
    spots
        All spots, read for prediction, without tiles.
    code
        Number of the section.
    members
        Numbers of the spots to keep; None: all of the section.
    """
    assert spots.tiles is None
    rows = np.flatnonzero(spots.section == code)
    if members is not None:
        rows = np.intersect1d(rows, members)
    together, part = np.unique(spots.together[rows], return_inverse=True)
    graph = SpatialGraph(
        adjacency=spots.graph.adjacency[rows][:, rows],
        pitch=spots.graph.pitch[together],
        origin=spots.graph.origin[code : code + 1],
    )
    one = replace(
        spots,
        names=spots.names[rows],
        rows=spots.rows[rows],
        sections=spots.sections[code : code + 1],
        section=np.zeros(len(rows), dtype=np.int64),
        xy=spots.xy[rows],
        graph=graph,
        part=None if spots.part is None else part.astype(np.int64),
        patches=None if spots.patches is None else spots.patches.of_section(code, rows),
        features=None if spots.features is None else spots.features[rows],
        grid=None if spots.grid is None else spots.grid[rows],
        donor=None if spots.donor is None else spots.donor[rows],
    )
    return one, rows
