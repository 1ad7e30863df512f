"""Whether the scored spots, or others of their sections, were in the training data."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.spots.counts import read_counts

if TYPE_CHECKING:
    from anndata import AnnData

    from hist2scrna.evaluation.inputs import Scored
    from hist2scrna.trained.model import TrainedModel

# Below this share of a section, equal counts are taken for chance: nearly empty cells often agree.
SEEN_SHARE = 0.1
ADVICE = (
    "Evaluate on sections, better on donors, that were left out of the training; other spots of a training section "
    "will not do, as neighbors are alike."
)


def describe_split(
    adata: AnnData,
    scored: Scored,
    trained: TrainedModel | None,
    names: keys.OutputKeys,
    layer: str | None,
    library_key: str | None,
) -> dict[str, Any]:
    """Tell whether the scored spots, or sections of the same name, were trained on; warn if they were."""
    sections = scored.sections
    trained_on = [str(s) for s in adata.uns.get(names.parameters, {}).get("trained_on", [])]
    if trained is not None:
        trained_on = [str(s) for s in trained.training["sections"]]
    # Without a name of its own a section is called as any other.
    named = library_key is not None or len(adata.uns.get(keys.SPATIAL, {})) > 0
    same = sorted(set(trained_on) & set(sections.names)) if named else []
    split: dict[str, Any] = {
        "held_out": None,
        "n_seen": None,
        "seen_sections": [],
        "same_sections": same,
        "trained_on": trained_on,
    }
    if trained is not None and set(trained.genes) <= set(adata.var_names):
        seen = trained.has_seen(read_counts(adata, trained.genes, layer))[scored.kept]
        split["n_seen"] = int(seen.sum())
        split["seen_sections"] = [
            name
            for name, part in zip(sections.names, sections.slices, strict=True)
            if float(seen[part].mean()) >= SEEN_SHARE
        ]
    if split["seen_sections"]:
        split["held_out"] = False
        split["statement"] = (
            f"NOT HELD OUT: {split['n_seen']} of {len(scored.kept)} spots were in the data that the model was fitted "
            f"on (of {', '.join(split['seen_sections'])}). These scores say nothing of unseen tissue."
        )
    elif same:
        split["held_out"] = False
        split["statement"] = (
            f"NOT HELD OUT: the model was fitted on other spots of {', '.join(same)}. Neighboring spots are alike, so "
            "that a split by spots flatters, and these scores say little of unseen tissue. (Sections are told apart by "
            "name: if another one of that name was trained on, rename it.)"
        )
    elif split["n_seen"] is None:
        why = "no model was given" if trained is None else "genes of the model are missing here"
        split["statement"] = f"unknown: {why}, so it was not checked whether these spots were trained on."
    else:
        split["held_out"] = True
        split["statement"] = f"held out; the model was fitted on {', '.join(trained_on)}."
        if split["n_seen"]:
            split["statement"] += f" {split['n_seen']} spots have the very counts of a training spot."
    if split["held_out"] is False:
        warnings.warn(f"{split['statement']} {ADVICE}", UserWarning, stacklevel=3)
    return split
