"""What a line of the log says before long work, and where its result is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hist2scrna.fitting.inference import pick_device
from hist2scrna.messages import listed, warn_user
from hist2scrna.spots.gene_names import hint_of_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from hist2scrna.encoders import Encoder
    from hist2scrna.models.registry import ModelEntry
    from hist2scrna.models.training import Training
    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel

log = logging.getLogger(__name__)

MOST_NAMED = 3


def announce_fit(
    entry: ModelEntry, training: Training, encoder: Encoder | None, spots: Spots, n_usable: int, n_genes: int
) -> None:
    """Say what will be fitted, to how many spots and where."""
    schedule = f", {training.max_epochs} epochs at most in batches of {training.batch_size}"
    log.info(
        "fitting %r%s to %d genes in %d %s (%s) on %s%s",
        entry.name,
        "" if encoder is None else f" on features of {encoder.name!r}",
        n_genes,
        n_usable,
        spots.unit,
        listed(spots.sections, MOST_NAMED),
        pick_device(str(training.accelerator)),
        schedule if "max_epochs" in entry.uses else "",
    )


def announce_prediction(model: FittedModel, spots: Spots, device: str) -> None:
    """Say what will be predicted, for how many spots and where."""
    where = listed(spots.sections, MOST_NAMED)
    n_genes = len(model.genes)
    log.info(
        "predicting %d genes with %r in %d %s (%s) on %s",
        n_genes,
        model.name,
        len(spots),
        spots.unit,
        where,
        device,
    )


def announce_new(adata: AnnData, genes: Sequence[str], missing: Sequence[str]) -> None:
    """Say that the result is a new AnnData, which is lost unless it is kept, and warn of genes named otherwise."""
    log.info(
        "adata lacks %d of the %d genes of the model and stays as it is: the result is a new AnnData, whose X is the "
        "predicted mean (in Python, keep it: adata = tl.predict(adata, ...))",
        *(len(missing), len(genes)),
    )
    if 2 * len(missing) > len(genes) and (hint := hint_of_names(adata, missing)):
        warn_user(f"adata.var_names lacks {len(missing)} of the {len(genes)} genes of the model.{hint}")
