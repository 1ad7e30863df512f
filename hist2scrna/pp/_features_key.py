"""Where features may be written without replacing what is no feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hist2scrna.arguments import shown

if TYPE_CHECKING:
    from anndata import AnnData


def check_features_key(adata: AnnData, key: Any, spatial_key: str) -> None:
    """Refuse a key under which the coordinates, or anything but features, lie; features there are replaced.

    Raises
    ------
    ValueError
        If it is no word, holds a slash, or is taken.
    """
    if not isinstance(key, str) or not key.strip() or "/" in key:
        raise ValueError(f"Expected `key_added` to be a word without a slash, found {shown(key)}.")
    entry = adata.uns.get(key, {"version": ""})
    if key == spatial_key or not (isinstance(entry, Mapping) and "version" in entry):
        slot = "obsm" if key == spatial_key else "uns"
        raise ValueError(
            f"key_added={key!r} would replace adata.{slot}[{key!r}], which holds no features. Pass another key_added=."
        )
