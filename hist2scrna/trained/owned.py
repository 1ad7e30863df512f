"""Which slots of AnnData belong to the prediction under a key: no other is replaced, and none of an old one stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.arguments import shown
from hist2scrna.messages import listed

if TYPE_CHECKING:
    from anndata import AnnData


def slots(names: keys.OutputKeys) -> dict[str, list[str]]:
    """Return every name that :func:`hist2scrna.tl.predict` may write under a key, by the attribute of AnnData."""
    return {
        "layers": [*(names.layer(name) for name in keys.LAYERS), names.refined_mean],
        "obs": [
            names.cell_type,
            names.cell_type_confidence,
            names.library_size,
            names.tissue_distance,
            names.unlike_training,
            names.nucleus_px,
            names.tile,
            names.n_nuclei,
            names.refined_cell_type,
        ],
        "obsm": [names.cell_type_probability, names.composition, names.embedding],
        "var": [names.modeled, names.dispersion],
        "uns": [names.unlike_training_colors, names.parameters],
    }


def check_key(adata: AnnData, key: Any) -> None:
    """Refuse a prefix under which something lies that no prediction wrote, or that no file can hold.

    Raises
    ------
    ValueError
        If it is no word, holds a slash, or names slots of others.
    """
    if not isinstance(key, str) or not key.strip() or "/" in key:
        raise ValueError(
            f"Expected `key_added` to be a word without a slash, the prefix of what is written, found {shown(key)}."
        )
    names = keys.OutputKeys(key)
    entry = adata.uns.get(names.parameters)
    if names.layer("mean") in adata.layers or (isinstance(entry, Mapping) and "model" in entry):
        return
    every = [(slot, name) for slot, own in slots(names).items() for name in own]
    taken = [f"adata.{slot}[{name!r}]" for slot, name in every if name in getattr(adata, slot)]
    if taken:
        raise ValueError(
            f"key_added={key!r} would replace {listed(taken)}, which no prediction wrote. Pass another key_added=."
        )


def require_own_slots(adata: AnnData) -> None:
    """Refuse a view of an AnnData that stays in its file: nothing can be written to it.

    Raises
    ------
    ValueError
        If it is one.
    """
    if adata.is_view and adata.isbacked:
        raise ValueError(
            "`adata` is a view of an AnnData in backed mode, to which nothing can be written. Read it first: adata = "
            "adata.to_memory(); or pass store= or copy=True."
        )


def clear(adata: AnnData, names: keys.OutputKeys) -> None:
    """Remove what an earlier prediction wrote under a key: the next one need not write all of it again."""
    for slot, own in slots(names).items():
        holder = getattr(adata, slot)
        for name in own:
            if name in holder:
                del holder[name]
