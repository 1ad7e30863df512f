"""Cell types of the spots, as classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.messages import require_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray


# With fewer labels, each may well be of a class of its own.
MOST_JUDGED = 8


def read_labels(
    adata: AnnData, labels_key: str, classes: Sequence[str] | None = None
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes and the class number of each spot, -1 where the label is missing.

    Parameters
    ----------
    adata, labels_key
        Where the labels are: a column of `.obs`.
    classes
        Classes of a trained model; None takes those that occur.

    Raises
    ------
    KeyError
        If the column is missing.
    ValueError
        If a label is not among `classes`, or there is none.
    """
    require_key(adata.obs, labels_key, "adata.obs")
    try:
        column = adata.obs[labels_key].astype("category").cat.remove_unused_categories()
    except TypeError as error:
        raise ValueError(f"Expected adata.obs[{labels_key!r}] to hold words, one a spot: {error}.") from error
    n_labeled, n_classes = int(column.notna().sum()), len(column.cat.categories)
    if n_classes > n_labeled // 2 > MOST_JUDGED:
        raise ValueError(
            f"adata.obs[{labels_key!r}] holds {n_classes} different values for {n_labeled} spots: these are no "
            "classes. Pass the column with cell types."
        )
    present = [str(c) for c in column.cat.categories]
    if len(set(present)) < len(present):
        twice = sorted({name for name in present if present.count(name) > 1})
        raise ValueError(
            f"adata.obs[{labels_key!r}] holds labels that are written alike, but of different types: {twice}. Make "
            f"them one: adata.obs[{labels_key!r}] = adata.obs[{labels_key!r}].astype(str)."
        )
    if not present:
        raise ValueError(f"adata.obs[{labels_key!r}] holds no label. Pass labels_key=None for no cell-type head.")
    names = present if classes is None else list(classes)
    unseen = sorted(set(present) - set(names))
    if unseen:
        raise ValueError(
            f"adata.obs[{labels_key!r}] holds labels that the model never saw: {unseen}. Its classes are {names}. "
            "Rename them, set them to NaN so that those spots are left out of the score of cell types, or leave out "
            "labels_key= (--labels-key '' in a shell)."
        )
    position = np.array([names.index(c) for c in present] + [-1], dtype=np.int64)
    return names, position[column.cat.codes.to_numpy()]
