"""A fitted model brought to a donor of whom a few spots were measured."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from hist2scrna.fitting.batches import make_batch
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.messages import arguments_known, listed, require_adata, require_key
from hist2scrna.models.registry import model_entry
from hist2scrna.provenance import fingerprint
from hist2scrna.spots.counts import read_counts
from hist2scrna.spots.gene_names import hint_of_names
from hist2scrna.trained.encode import encode
from hist2scrna.trained.model import TrainedModel, as_trained
from hist2scrna.trained.predict import PREDICTION_BATCH
from hist2scrna.trained.read import read_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

log = logging.getLogger(__name__)

FEWEST = 5


@arguments_known
@in_own_torch
def adapt(
    model: TrainedModel | str | Path,
    adata: AnnData,
    *,
    measured: str | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    spatial_key: str | None = None,
    img_key: str | Sequence[str] | None = None,
    image: Any = None,
    mpp: float | None = None,
    features_key: str | None = None,
    encoder: Any = None,
    accelerator: str = "auto",
    progress: bool = True,
) -> TrainedModel:
    """Bring a model to a donor of whom a few spots were measured.

    No picture tells how deep a section was sequenced, or how much of each gene a donor has; a few spots do. Their
    counts set the level and the slope of depth, and a factor for each gene; everything else stays as it was. It takes a
    moment, and the model that is returned is for this donor alone.

    Parameters
    ----------
    model
        What :func:`hist2scrna.tl.fit` returned, or its folder: a `kernel` model that predicts counts.
    adata
        Annotated data of the donor, with an image and coordinates (or features), in which some spots have counts.
    measured
        Column of `.obs`, bool, that marks them; None: all spots that have a count in the genes of the model.
    layer
        Layer with the counts; None: `.X`.
    library_key, spatial_key, img_key, image, mpp, features_key, encoder, accelerator, progress
        As in :func:`hist2scrna.tl.predict`.

    Returns
    -------
    The adapted model; `model` and `adata` are left as they are.

    Raises
    ------
    KeyError
        If a key, or a gene of the model, is missing.
    ValueError
        If the model cannot be adapted (`kernel` models of counts can), or fewer than five spots were measured.

    Examples
    --------
    >>> test.obs["sequenced"] = np.arange(test.n_obs) < 10
    >>> adapted = h2s.tl.adapt(model, test, measured="sequenced", progress=False)
    >>> h2s.tl.predict(test, adapted, key_added="adapted", progress=False).layers["adapted_mean"].shape
    (30, 12)
    """
    require_adata(adata)
    trained = as_trained(model)
    adapt_to = model_entry(trained.name).load_adapter()
    if trained.likelihood == "mse":
        raise ValueError("A model of squared error has no depth to adapt: fit one with likelihood='zinb'.")
    rows = _measured_rows(trained, adata, measured, layer)
    some = adata[rows].copy()
    spots = read_for(
        trained,
        some,
        library_key=library_key,
        spatial_key=spatial_key,
        img_key=img_key,
        image=image,
        mpp=mpp,
        features_key=features_key,
    )
    counts = read_counts(some[spots.rows], trained.genes, layer)
    device = pick_device(accelerator)
    encode(trained, spots, encoder, batch_size=PREDICTION_BATCH, device=device, progress=progress)
    module = copy.deepcopy(trained.module)
    batch, _ = make_batch(spots, np.arange(len(spots)), module.context, supervised=False)
    batch.donor = torch.full((len(spots),), -1)
    with torch.no_grad():
        adapt_to(module, module(batch), counts)
    training = {
        **trained.training,
        "donors": [],
        "adapted_to": {"sections": list(spots.sections), "n_spots": len(spots)},
    }
    log.info("adapted to %d measured spots of %s", len(spots), listed(spots.sections))
    seen = np.union1d(trained.fingerprints, fingerprint(counts))
    return replace(trained, module=module, training=training, fingerprints=seen)


def _measured_rows(model: TrainedModel, adata: AnnData, measured: str | None, layer: str | None) -> Any:
    missing = [gene for gene in model.genes if gene not in adata.var_names]
    if missing:
        raise KeyError(
            f"adata lacks {len(missing)} of the {len(model.genes)} genes of the model, such as {listed(missing, 3)}."
            f"{hint_of_names(adata, missing)}"
        )
    if measured is None:
        rows = np.asarray(read_counts(adata, model.genes, layer).sum(axis=1)).ravel() > 0
    else:
        if not isinstance(measured, str):
            raise TypeError(
                "Expected `measured` to be the name of a boolean column of adata.obs, found what is a "
                f"{type(measured).__name__}. Write it there first, adata.obs['measured'] = ..., and pass "
                "measured='measured'."
            )
        require_key(adata.obs, measured, "adata.obs")
        if not pd.api.types.is_bool_dtype(adata.obs[measured]):
            raise ValueError(f"Expected adata.obs[{measured!r}] to be boolean, found {adata.obs[measured].dtype}.")
        rows = adata.obs[measured].to_numpy(dtype=bool)
        rows &= np.asarray(read_counts(adata, model.genes, layer).sum(axis=1)).ravel() > 0
    if rows.sum() < FEWEST:
        raise ValueError(f"Expected at least {FEWEST} measured spots, found {int(rows.sum())} of {adata.n_obs}.")
    return np.flatnonzero(rows)
