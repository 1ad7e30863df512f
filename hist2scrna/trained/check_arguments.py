"""Arguments of `predict` that no model could predict with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hist2scrna.arguments import require_flag, require_whole
from hist2scrna.messages import require_adata, require_key
from hist2scrna.trained.owned import check_key, require_own_slots
from hist2scrna.trained.store import check_store

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def check_arguments(
    adata: AnnData,
    key_added: str,
    store: str | Path | None,
    batch_size: int | None,
    group_key: str | None,
    *,
    copy: bool,
    progress: bool,
    another_donor: bool | None,
) -> None:
    """Refuse arguments of :func:`hist2scrna.tl.predict` before a model is loaded.

    Raises
    ------
    KeyError, TypeError, ValueError
        If one is wrong.
    OSError
        If something is at `store`, or nothing can be written there.
    """
    require_adata(adata)
    check_key(adata, key_added)
    if store is not None:
        check_store(store)
    elif not copy:
        require_own_slots(adata)
    for name, flag in (("copy", copy), ("progress", progress), ("another_donor", another_donor)):
        if flag is not None:
            require_flag(name, flag)
    if batch_size is not None:
        require_whole("batch_size", batch_size, 1)
    if group_key is not None:
        require_key(adata.obs, group_key, "adata.obs")
