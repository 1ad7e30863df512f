"""Whether the scored spots, or others of their sections, were in the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hist2scrna.messages import listed, warn_user

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hist2scrna.evaluation.predictors import Sections

# Below this share of a section, equal counts are taken for chance: nearly empty cells often agree.
SEEN_SHARE = 0.1
ADVICE = {
    "spot": "Evaluate on sections, better on donors, that were left out of the training. Other spots of a training "
    "section are not enough, because neighboring spots are alike.",
    "slide": "Evaluate on slides, better on donors, that were left out of the training.",
}


@dataclass(frozen=True)
class TrainingOverlap:
    """What the scored data have in common with the training data.

    Attributes
    ----------
    trained_on
        Names of the sections that were trained on.
    have_names
        Whether the scored sections have names of their own, so that equal names mean the same section.
    seen
        `(scored spots,)`, whether a training spot has the same counts; None: not known.
    why_unknown
        Why it is not known.
    """

    trained_on: list[str]
    have_names: bool
    seen: NDArray[np.bool_] | None
    why_unknown: str = ""


def describe_split(overlap: TrainingOverlap, sections: Sections, observation: str) -> dict[str, Any]:
    """Tell whether the scored spots, or sections of the same name, were trained on; warn if they were.

    Parameters
    ----------
    overlap, sections
        What is in common, and the scored sections.
    observation
        `"spot"`, or `"slide"`, of which all together stand for a section.
    """
    trained_on, rows = overlap.trained_on, f"{observation}s"
    same = sorted(set(trained_on) & set(sections.names)) if overlap.have_names else []
    seen_sections = []
    if overlap.seen is not None:
        parts = zip(sections.names, sections.slices, strict=True)
        seen_sections = [name for name, part in parts if float(overlap.seen[part].mean()) >= SEEN_SHARE]
    n_seen = None if overlap.seen is None else int(overlap.seen.sum())
    held_out: bool | None = False
    if seen_sections:
        where = "" if observation == "slide" else f" (of {', '.join(seen_sections)})"
        statement = (
            f"NOT HELD OUT: {n_seen} of {len(sections.codes)} {rows} were in the data that the model was fitted on"
            f"{where}. These scores say nothing about unseen tissue."
        )
    elif same:
        statement = (
            f"NOT HELD OUT: the model was fitted on other spots of {', '.join(same)}. Neighboring spots are alike, so "
            "splitting by spot leaks information, and these scores say little about unseen tissue. (Sections are "
            "identified by name: if another section of that name was trained on, rename it.)"
        )
    elif n_seen is None:
        held_out = None
        statement = f"unknown: {overlap.why_unknown}, so it was not checked whether these {rows} were trained on."
    else:
        held_out = True
        statement = f"held out; the model was fitted on {listed(trained_on)}."
        if n_seen:
            statement += f" {n_seen} {rows} have exactly the counts of one that was trained on."
    if held_out is False:
        warn_user(f"{statement} {ADVICE[observation]}")
    return {
        "held_out": held_out,
        "n_seen": n_seen,
        "seen_sections": seen_sections,
        "same_sections": same,
        "trained_on": trained_on,
        "statement": statement,
    }
