"""Expression to fit to: counts, or values in other units where the model takes them; of spots or of slides."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.messages import warn_user
from hist2scrna.spots.counts import read_counts
from hist2scrna.spots.slides import pooled

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse

    from hist2scrna.trained.plan import FitPlan

log = logging.getLogger(__name__)

FEWEST_SPOTS = 8
FEWEST_SLIDES = 3
TARGET = "target"


def check_slides(plan: FitPlan) -> None:
    """Refuse to cut patches from rows that are slides.

    Raises
    ------
    ValueError
        If the model reads patches, itself or by an encoder.
    """
    if plan.entry.model.needs == "patches":
        raise ValueError(
            f"Model {plan.entry.name!r} reads the patch of each row, but the rows are slides. Fit it on the spots, or "
            "choose a model on features, such as 'hist2rna' or 'ridge'."
        )
    if plan.encoder is not None:
        raise ValueError(
            "Rows that are slides have no patch to encode: pass features_key=, a key of adata.obsm. "
            "pp.pool_patches(adata, by=...) averages the features of their patches."
        )


def read_expression(adata: AnnData, genes: list[str], plan: FitPlan) -> sparse.csr_array:
    """Read the counts; of a model that takes them, values that are not whole too, by which its target is chosen.

    Measured bulk is predicted as it is; pseudobulk, which grows with the number of spots, after normalization.
    """
    options, layer = plan.options, plan.request.layer
    if TARGET not in plan.entry.options or options[TARGET] == "log_normalized":
        return read_counts(adata, genes, layer, whole=plan.entry.model.target == "log_normalized")
    values = read_counts(adata, genes, layer, whole=False)
    if options[TARGET] is None:
        bulk = pooled(adata).get("expression") == "bulk" or bool((values.data != np.round(values.data)).any())
        options[TARGET] = "log_counts" if bulk else "log_normalized"
        log.info("target %r: the values are %s", options[TARGET], "bulk expression" if bulk else "counts")
    return values


def usable_rows(usable: NDArray[np.bool_], n_genes: int, slides: bool) -> NDArray[np.bool_]:
    """Refuse too few spots or slides with counts, and warn of those that have none."""
    fewest, what = (FEWEST_SLIDES, "slides") if slides else (FEWEST_SPOTS, "spots")
    if usable.sum() < fewest:
        raise ValueError(
            f"Too few {what} to train on: {int(usable.sum())} of {len(usable)} have any count in the {n_genes} chosen "
            f"genes, and {fewest} are needed. Give more {what}, or other `genes`."
        )
    if not usable.all():
        role = "are not trained on" if slides else "are not trained on, and serve as neighbors at most"
        few = f"{int((~usable).sum())} of {len(usable)}"
        warn_user(f"{what.capitalize()} that have no count in the chosen genes {role}: {few}.")
    return usable
