"""Which spots train and which validate, without letting neighbors leak."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.fitting.batches import spatial_blocks, with_halo
from hist2scrna.fitting.result import Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

FEWEST_TO_HOLD_OUT = 3


def split_spots(
    spots: Spots, usable: NDArray[np.bool_], validation: float | Sequence[str], gap: int, seed: int
) -> Split:
    """Split into training and validation spots: by group of sections, by section, or by spatial block with a gap.

    Parameters
    ----------
    spots
        All spots.
    usable
        `(n,)`, spots that may train or validate.
    validation
        Fraction to hold out, 0 for none, or the names of the sections to hold out. With three groups or more, whole
        groups are held out; else, with three sections or more, whole sections; else one contiguous block of each, or
        slides, which have no place, at random.
    gap
        Spots at most this many edges from a validation block neither train nor validate: their neighborhoods overlap.
    seed
        Chooses the groups or sections or the place of the blocks.

    Returns
    -------
    Numbers of the training spots, of the validation spots, and a sentence that says how they were split.

    Raises
    ------
    ValueError
        If a name is not a section, the fraction is not in [0, 1), or no spot would be left to train on.
    """
    rng = np.random.default_rng(seed)
    everything = np.flatnonzero(usable)
    n_sections = len(spots.sections)
    if not isinstance(validation, int | float):
        named = [validation] if isinstance(validation, str) else [str(v) for v in validation]
        unknown = sorted(set(named) - set(spots.sections))
        if unknown:
            raise ValueError(f"Sections {unknown} in `validation` not found. Available: {list(spots.sections)}.")
        held_out = np.isin(spots.section, [spots.sections.index(name) for name in named])
        how = f"held-out sections: {', '.join(named)}"
    elif not 0 <= validation < 1:
        raise ValueError(f"Expected `validation` to be at least 0 and less than 1, found {validation}.")
    elif validation == 0:
        return Split(everything, everything[:0], "no validation")
    elif spots.groups is not None and spots.group is not None and len(spots.groups) >= FEWEST_TO_HOLD_OUT:
        held_out, names = _draw(spots.groups, spots.group, validation, rng)
        how = f"held-out groups: {names}"
    elif n_sections >= FEWEST_TO_HOLD_OUT:
        held_out, names = _draw(spots.sections, spots.section, validation, rng)
        how = f"held-out sections: {names}"
    elif spots.are_slides:
        held_out = np.zeros(len(spots), dtype=bool)
        held_out[rng.choice(everything, max(1, round(len(everything) * validation)), replace=False)] = True
        how = "held-out slides"
    else:
        held_out = np.zeros(len(spots), dtype=bool)
        for code in range(n_sections):
            members = everything[spots.section[everything] == code]
            blocks = spatial_blocks(spots.xy, members, max(1, round(len(members) * validation)), rng)
            if len(blocks) > 1:
                held_out[blocks[rng.integers(len(blocks))]] = True
        how = f"held-out spatial blocks with a gap of {gap} spots"
    validating = np.flatnonzero(held_out & usable)
    near = with_halo(spots.graph.adjacency, np.flatnonzero(held_out), gap) if len(validating) else validating
    training = np.setdiff1d(everything, near)
    if len(training) == 0 or len(validating) == 0:
        raise ValueError(
            f"Too few spots to hold out {validation!r} of them: {len(everything)} usable spots in {n_sections} "
            f"sections leave {len(training)} to train and {len(validating)} to validate. Pass validation=0, or give "
            "more spots."
        )
    log.info("validation: %s (%d spots train, %d validate)", how, len(training), len(validating))
    return Split(training, validating, how)


def _draw(
    names: tuple[str, ...], code: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], str]:
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = np.sort(rng.choice(len(names), count, replace=False))
    return np.isin(code, chosen), ", ".join(names[c] for c in chosen)


def some_of(rng: np.random.Generator, members: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of some spots, drawn at random, in order."""
    return members if len(members) <= most else np.sort(rng.choice(members, most, replace=False))
