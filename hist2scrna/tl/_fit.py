"""Train a model on AnnData with a picture."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hist2scrna import slots
from hist2scrna.models.lightweight import Hist2scRNALightweight
from hist2scrna.models.registry import create_model, model_entry, model_options
from hist2scrna.nulls import Nulls
from hist2scrna.provenance import fingerprint, package_versions
from hist2scrna.slides.counts import choose_genes, read_counts
from hist2scrna.slides.labels import read_labels
from hist2scrna.slides.spots import read_features, read_spots
from hist2scrna.trained import TrainedModel, as_trained
from hist2scrna.training.loop import Schedule, Trained, default_precision, train
from hist2scrna.training.objective import Objective
from hist2scrna.training.split import split_spots
from hist2scrna.training.warm_start import start_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from hist2scrna.models.contract import Likelihood, SpotModel
    from hist2scrna.training.objective import Term

log = logging.getLogger(__name__)

FEWEST_SPOTS = 8
BATCH_SIZE = 64


def fit(
    adata: AnnData,
    *,
    model: str = "hist2scrna",
    preset: str | None = None,
    genes: Sequence[str] | str | None = None,
    layer: str | None = None,
    labels_key: str | None = None,
    library_key: str | None = None,
    spatial_key: str = slots.SPATIAL,
    img_key: str | None = None,
    image: Any = None,
    features_key: str | None = None,
    patch_um: float | None = None,
    mpp: float | None = None,
    likelihood: Likelihood = "zinb",
    alpha: float = 0.1,
    losses: Mapping[str, float | Term | tuple[Term, float]] | None = None,
    validation: float | Sequence[str] = 0.1,
    max_epochs: int = 50,
    patience: int = 10,
    batch_size: int | None = None,
    lr: float = 1e-4,
    weight_decay: float = 0.01,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None = None,
    accumulate: int = 1,
    augment: bool = True,
    accelerator: str = "auto",
    devices: int = 1,
    checkpoint_dir: str | Path | None = None,
    init_from: TrainedModel | str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    **model_options_: Any,
) -> TrainedModel:
    """Train a model that predicts counts and cell types from histology. `adata` is not changed.

    The spots are trained in spatially contiguous blocks, each with the halo of neighbours that the graph layers need,
    so that every spot sees its true neighbourhood. The loss is the negative log-likelihood of the counts +
    `alpha` x cross-entropy of the cell type + 0.5 x squared error of the log library size + `losses`. The weights of
    the best epoch are kept.

    Parameters
    ----------
    adata
        Annotated data: counts in `.X` or `layer`, coordinates in `.obsm[spatial_key]` (full-resolution pixels, x right,
        y down), pictures in `.uns["spatial"]`.
    model
        `"hist2scrna"`, or `"hist2scrna-lightweight"` for features extracted beforehand.
    preset
        Size of the model: `"tiny"` (CPU, tests), `"small"` (default), `"base"`.
    genes
        Genes to model: names, a boolean column of `.var`, or None for all.
    layer
        Layer with raw counts; None: `.X`.
    labels_key
        Categorical column of `.obs` with cell types; spots without a label train on counts alone. None: no such head.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`; None: one section.
    spatial_key
        Slot of `.obsm` with the coordinates.
    img_key
        Which image in `.uns["spatial"][library]["images"]`; None: the finest, be it there or in the file named in
        `metadata["source_image_path"]`.
    image
        A full-resolution picture instead: a path, an array, or a dictionary of these by section.
    features_key
        Slot of `.obsm` with features, for models that read these; no picture is needed then.
    patch_um
        Side of a patch in microns; None: one and a half spot diameters.
    mpp
        Microns per full-resolution pixel; None: from the metadata, else from the spot diameter (65 um for Space Ranger
        data, else 100 um; logged).
    likelihood
        `"zinb"`, `"nb"`, `"poisson"`, or `"mse"` on log-normalised expression.
    alpha
        Weight of the cross-entropy of the cell type.
    losses
        Further loss terms: `{"smoothness": weight, "pearson": weight}`, or your own by a name of your choice, as
        `function(prediction, batch) -> scalar` or `(function, weight)`.
    validation
        Fraction of sections to hold out (with fewer than three sections: of each, one spatial block, with a gap as
        wide as the model's view), or the names of the sections, or 0.
    max_epochs, patience
        Most epochs; epochs without a better validation loss after which training stops.
    batch_size
        Most seeds of a block; default 64.
    lr, weight_decay
        Of AdamW; biases and norms are not decayed.
    precision
        Default: bfloat16 mixed on a GPU that has it, else float32. The likelihood is always float32.
    accumulate
        Batches whose gradients are added up before a step.
    augment
        Flip, turn and colour-jitter the patches.
    accelerator, devices
        As Lightning takes them.
    checkpoint_dir
        Folder in which the best model so far is kept while training goes on, as `best/`.
    init_from
        A trained model, or its folder, of the same architecture to start from; genes are matched by name.
    seed
        Of the weights, the blocks, the split and the augmentation. The global random state is left as it was.
    progress
        Show a bar.
    **model_options_
        Options of the model (see :mod:`hist2scrna.models`), for example `depth=4`, `dropout=0.2`, `graph=False`.

    Returns
    -------
    The trained model; `.history` holds the losses of every epoch.

    Raises
    ------
    KeyError
        If a slot, gene, layer, library, image or scale factor is missing.
    ValueError
        If a value is wrong: counts that are not whole or are negative, coordinates that are NaN, swapped or off the
        picture, too few spots, an unknown model, preset or option (the nearest known name is given).
    FloatingPointError
        If the loss becomes NaN or infinite.

    Examples
    --------
    >>> model = hist2scrna.tl.fit(train, layer="counts", labels_key="cell_type", library_key="library_id")
    >>> model.save("breast-model/")
    """
    if max_epochs < 1:
        raise ValueError(f"Expected `max_epochs` to be at least 1, found {max_epochs}.")
    if lr <= 0:
        raise ValueError(f"Expected `lr` to be positive, found {lr}.")
    objective = Objective(alpha, losses)
    options = model_options(model, preset, likelihood=likelihood, **model_options_)
    on_patches = model_entry(model).model.needs == "patches"
    if on_patches and features_key is not None:
        raise ValueError(f"Model {model!r} reads patches, not features. Pass model='hist2scrna-lightweight'.")
    if not on_patches:
        if features_key is None:
            raise ValueError(f"Model {model!r} reads features: pass features_key=, a slot of adata.obsm.")
        options["n_features"] = read_features(adata, features_key).shape[1]
    gene_names = choose_genes(adata, genes)
    counts = read_counts(adata, gene_names, layer)
    usable = np.asarray(counts.sum(axis=1)).ravel() > 0
    if usable.sum() < FEWEST_SPOTS:
        raise ValueError(
            f"Too few spots to train on: {int(usable.sum())} of {adata.n_obs} have any count in the {len(gene_names)} "
            f"chosen genes, and {FEWEST_SPOTS} are needed. Give more spots, or other `genes`."
        )
    if not usable.all():
        warnings.warn(
            f"{int((~usable).sum())} of {adata.n_obs} spots have no count in the chosen genes: they serve as "
            "neighbours only.",
            UserWarning,
            stacklevel=2,
        )
    classes, label = ([], None) if labels_key is None else read_labels(adata, labels_key)
    spots = read_spots(
        adata,
        library_key=library_key,
        spatial_key=spatial_key,
        img_key=img_key,
        image=image,
        features_key=features_key,
        patch_px=options["patch_px"] if on_patches else None,
        patch_um=patch_um,
        mpp=mpp,
    )
    spots.counts, spots.label = counts, label
    start = None if init_from is None else as_trained(init_from)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = create_model(model, n_genes=len(gene_names), n_classes=len(classes), **options)
        reach = max(1, network.context.hops)
        training, validating, how = split_spots(spots, usable, validation, reach, seed)
        nulls = Nulls.fit(counts[training])
        _start_at_means(network, nulls, spots.library_size[training])
        if isinstance(network, Hist2scRNALightweight) and spots.features is not None:
            network.standardise_by(torch.from_numpy(spots.features[training]))
        if start is not None:
            start_from(
                network,
                start.module.state_dict(),
                genes=(gene_names, start.genes),
                classes=(classes, start.classes),
            )
        schedule = Schedule(
            max_epochs=max_epochs,
            batch_size=BATCH_SIZE if batch_size is None else batch_size,
            lr=lr,
            weight_decay=weight_decay,
            patience=patience,
            precision=default_precision(accelerator) if precision is None else precision,
            accumulate=accumulate,
            accelerator=accelerator,
            devices=devices,
            seed=seed,
            augment=augment and on_patches,
            progress=progress,
        )
        parameters = {
            "preset": preset,
            "layer": layer,
            "labels_key": labels_key,
            "library_key": library_key,
            "spatial_key": spatial_key,
            "features_key": features_key,
            "alpha": alpha,
            "losses": {name: weight for name, (_, weight) in objective.extra.items()},
            "validation": validation if isinstance(validation, int | float) else [*validation],
            **{k: v for k, v in asdict(schedule).items() if k != "progress"},
        }

        def trained(run: Trained) -> TrainedModel:
            return TrainedModel(
                module=network,
                name=model,
                options={k: list(v) if isinstance(v, tuple) else v for k, v in options.items()},
                genes=gene_names,
                classes=classes,
                geometry=spots.geometry,
                parameters=parameters,
                training={
                    "sections": list(spots.sections),
                    "n_training": len(training),
                    "n_validation": len(validating),
                    "validation": how,
                    "monitor": "validation_loss" if len(validating) else "train_loss",
                    "best_epoch": run.best_epoch,
                    "seconds": round(run.seconds, 1),
                    "versions": package_versions(),
                },
                nulls=nulls,
                fingerprints=fingerprint(counts[np.flatnonzero(usable)]),
                history=run.history,
            )

        def keep(run: Trained) -> None:
            if checkpoint_dir is not None:
                trained(run).save(Path(checkpoint_dir) / "best", overwrite=True)

        return trained(train(network, spots, training, validating, objective, schedule, keep))


def _start_at_means(network: SpotModel, nulls: Nulls, library: np.ndarray) -> None:
    """Let the heads begin at the mean null."""
    heads = getattr(network, "heads", None)
    if heads is None:
        return
    floor = 0.5 / max(1.0, float(library.sum()))
    log_rate = np.log(np.maximum(nulls.rate, floor))
    baseline = nulls.log_mean if heads.likelihood == "mse" else log_rate
    spread = max(float(np.log(library).std()), 0.05)
    heads.start_from(
        torch.from_numpy(np.asarray(baseline, dtype=np.float32)),
        torch.from_numpy(np.log(nulls.dispersion).astype(np.float32)),
        (float(np.log(np.median(library))), spread),
    )
