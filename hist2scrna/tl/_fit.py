"""Train a model on AnnData with a picture."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hist2scrna import keys
from hist2scrna.fitting.closed_form.fit_kernel import solve_few
from hist2scrna.fitting.closed_form.folds import solve
from hist2scrna.fitting.gradient import Schedule, Trained, default_precision, train
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.objective import ALPHA, Objective
from hist2scrna.fitting.recalibration import recalibrate_dispersion
from hist2scrna.fitting.split import split_spots
from hist2scrna.fitting.start import load_reference, loss_terms, start_at_means, starting_point
from hist2scrna.fitting.warm_start import start_from
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.models.kernel import FewFeatures
from hist2scrna.models.lightweight import Hist2scRNALightweight
from hist2scrna.models.registry import create_model, model_entry, model_options
from hist2scrna.models.ridge import Ridge
from hist2scrna.provenance import fingerprint, package_versions
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.features import read_features
from hist2scrna.spots.graph import Neighbors
from hist2scrna.spots.labels import read_labels
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections, read_groups
from hist2scrna.spots.source import Source
from hist2scrna.tl._preset import suited_preset
from hist2scrna.trained.model import TrainedModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from hist2scrna.models.contract import Likelihood, Term

log = logging.getLogger(__name__)

FEWEST_SPOTS = 8
CHANNELS = "channels"
# What of a schedule also concerns a model that is solved at once.
OF_SOLVED = ("batch_size", "accelerator", "seed", "augment")


def fit(
    adata: AnnData,
    *,
    model: str = "hist2scrna",
    preset: str | None = None,
    genes: Sequence[str] | str | None = None,
    layer: str | None = None,
    labels_key: str | None = None,
    library_key: str | None = None,
    group_key: str | None = None,
    spatial_key: str = keys.SPATIAL,
    img_key: str | Sequence[str] | None = None,
    image: Any = None,
    features_key: str | None = None,
    patch_um: float | None = None,
    mpp: float | None = None,
    neighbors: Literal["knn", "delaunay"] | None = None,
    n_neighbors: int | None = None,
    radius_um: float | None = None,
    likelihood: Likelihood | None = None,
    alpha: float | None = None,
    losses: Mapping[str, float | Term | tuple[Term, float]] | None = None,
    validation: float | Sequence[str] | None = None,
    max_epochs: int | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None = None,
    accumulate: int = 1,
    augment: bool | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    checkpoint_dir: str | Path | None = None,
    init_from: TrainedModel | str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    **model_options_: Any,
) -> TrainedModel:
    """Train a model that predicts counts and cell types from histology. `adata` is not changed.

    With up to 20,000 spots and no further wishes, the preset `"few"` of the model is taken, which is solved at once:
    see :class:`hist2scrna.models.FewSections`. It was better than every network on the sections at hand (see the
    benchmark in the documentation). Any argument that only a network has (such as `preset`, `max_epochs`, `lr`,
    `losses`, `neighbors`, or an option of the network), several stains, or patches in files, choose the network; the
    log says what was chosen.

    The spots are trained in spatially contiguous blocks, each with the halo of neighbors that the graph layers need,
    so that every spot sees its true neighborhood; models that read a whole section train on one section a step. The
    loss is the negative log-likelihood of the counts (the squared error, for models of log-normalized expression) +
    `alpha` x cross-entropy of the cell type + 0.5 x squared error of the log library size, where the model has these,
    + the model's own terms + `losses`. The weights of the epoch with the lowest validation loss are kept; without
    validation, those of the last. Then one number, chosen on the validation spots, is added to the dispersion 1 / theta
    of our networks, which holds the error of the mean on tissue not trained on (`.training["dispersion_shift"]`).

    Arguments that are None take the model's recipe: 50 epochs, stopped after 10 without a better validation loss,
    AdamW at a learning rate of 1e-4 along a cosine, weight decay 0.01, blocks of 64, a tenth held out, augmented. The
    published models have their published ones. `hist2st`: 350 epochs, Adam at 1e-5, a tenth less every 50 epochs, no
    decay, no validation, 4 neighbors on the array. `histogene`: 100 epochs, Adam at 1e-5. `stnet` trains from random
    weights as ours do, at 3e-4 in batches of 32. `ridge` is solved at once.

    Parameters
    ----------
    adata
        Annotated data: counts in `.X` or `layer`, coordinates in `.obsm[spatial_key]` (full-resolution pixels, x right,
        y down), pictures in `.uns["spatial"]`.
    model
        `"hist2scrna"`, `"hist2st"`, `"histogene"` or `"stnet"`, which read patches; `"hist2scrna-lightweight"` or
        `"ridge"`, which read features extracted beforehand.
    preset
        `"few"`: for few sections, solved at once. Else the size of the network: `"tiny"` (CPU, tests), `"small"`,
        `"base"`; the published models have their own. None: `"few"` or `"small"`, as said above.
    genes
        Genes to model: names, a boolean column of `.var`, or None for all.
    layer
        Layer with raw counts; None: `.X`.
    labels_key
        Categorical column of `.obs` with cell types; spots without a label train on counts alone. None: no such head.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`; None: one section.
    group_key
        Column of `.obs` with what sections belong together, for instance the donor. Then whole donors are left out for
        validation, penalties and dispersions, instead of sections: give it where tissue of other donors will be
        predicted, or intervals are those of further sections of the same ones. None: sections.
    spatial_key
        Slot of `.obsm` with the coordinates.
    img_key
        Which image in `.uns["spatial"][library]["images"]`; None: the finest, be it there or in the file named in
        `metadata["source_image_path"]`. Several names, as `["he", "ihc"]`: registered stains of each section, stacked.
    image
        A full-resolution picture instead: a path, an array, a list of these for several registered stains, or a
        dictionary by section. An array may have more channels than colors: RGB first, then one for each marker.
    features_key
        Slot of `.obsm` with features, for models that read these; no picture is needed then.
    patch_um
        Side of a patch in microns; None: one and a half spot diameters (`hist2st` and `histogene`: 112/136, which is
        112 full-resolution pixels on HER2ST). Preset `"few"` sees views two and four times as wide beside.
    mpp
        Microns per full-resolution pixel; None: from the metadata, else from the spot diameter (65 um for Space Ranger
        data, else 100 um; logged).
    neighbors
        Which spots or cells are neighbors: `"knn"`, the nearest `n_neighbors`, or `"delaunay"`, those with a common
        edge of the triangulation. None: `.obsp["spatial_connectivities"]` if it is there, else 6 on a hexagonal
        lattice, 4 on a square one, and the nearest 6 of scattered cells. Prediction builds them in the same way.
    n_neighbors
        For `"knn"`; default 6.
    radius_um
        Neighbors farther apart than this, in microns, are none. For single cells some 20 to 50; None: no limit.
    likelihood
        `"zinb"` (default), `"nb"`, `"poisson"`, or `"mse"` on log-normalized expression. The published models and
        `ridge` predict log-normalized expression, and take no other.
    alpha
        Weight of the cross-entropy of the cell type; None: 0.1.
    losses
        Further loss terms: `{"smoothness": weight, "pearson": weight, "distillation": weight}`, or your own by a name
        of your choice, as `function(prediction, batch) -> scalar` or `(function, weight)`. They replace the model's own
        of the same name (`hist2st`: `"counts"` and `"distillation"`).
    validation
        Fraction of sections to hold out (of groups, where there are three or more; with fewer than three sections: of
        each, one spatial block, with a gap as wide as the model's view), or the names of the sections, or 0.
    max_epochs, patience
        Most epochs; epochs without a better validation loss after which training stops.
    batch_size
        Most core spots of a block.
    lr, weight_decay
        Of the optimizer; biases and norms are not decayed.
    precision
        Default: bfloat16 mixed on a GPU that has it, else float32. The likelihood is always float32.
    accumulate
        Batches whose gradients are added up before a step.
    augment
        Flip, turn and color-jitter the patches; in the preset `"few"`, see each twice, in other stains, turned and out
        of focus, and heed least what then differs; that takes twice as long.
    accelerator, devices
        As Lightning takes them.
    checkpoint_dir
        Folder in which the best model so far is kept while training goes on, as `best/`.
    init_from
        A trained model, or its folder, of the same architecture to start from; genes are matched by name. Or a file
        (`.safetensors`, or `.pt`, `.pth`, `.ckpt`, read with `weights_only=True`) with the state dict of the published
        implementation, as the model's `load_reference_state_dict` takes it: for `stnet`, a DenseNet-121.
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
    of_networks = {
        "max_epochs": max_epochs,
        "patience": patience,
        "lr": lr,
        "weight_decay": weight_decay,
        "alpha": alpha,
        "precision": precision,
        "accumulate": accumulate if accumulate > 1 else None,
        "devices": devices if devices > 1 else None,
        "losses": losses,
        "checkpoint_dir": checkpoint_dir,
        "init_from": init_from,
        "neighbors": neighbors,
        "n_neighbors": n_neighbors,
        "radius_um": radius_um,
    }
    # Options are the network's, unless the preset is named: the check of their names comes below.
    wishes = of_networks if preset is not None else {**of_networks, **model_options_}
    opened = open_sections(adata, Source(library_key, spatial_key, img_key, image, features_key, mpp))
    library_key = opened.source.library_key
    preset = suited_preset(opened, model, preset, wishes)
    entry = model_entry(model, preset)
    recipe = entry.recipe
    max_epochs = recipe.max_epochs if max_epochs is None else max_epochs
    lr = recipe.lr if lr is None else lr
    validation = recipe.validation if validation is None else validation
    if max_epochs < 1:
        raise ValueError(f"Expected `max_epochs` to be at least 1, found {max_epochs}.")
    if lr <= 0:
        raise ValueError(f"Expected `lr` to be positive, found {lr}.")
    if likelihood is not None:
        model_options_["likelihood"] = likelihood
    options = model_options(model, preset, **model_options_)
    on_patches = entry.model.needs == "patches"
    if on_patches and features_key is not None:
        raise ValueError(
            f"Model {model!r} reads patches, not features. Pass model='hist2scrna-lightweight' or model='ridge'."
        )
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
            "neighbors only.",
            UserWarning,
            stacklevel=2,
        )
    classes, label = ([], None) if labels_key is None else read_labels(adata, labels_key)
    size = None
    if entry.patch_option is not None:
        um = None if patch_um is None else patch_um * recipe.widest_view
        size = PatchSize(options[entry.patch_option], um, recipe.patch_per_spot * recipe.widest_view)
    asked = Neighbors(neighbors, n_neighbors, radius_um)
    spots = read_spots(opened, patch=size, on_array=entry.model.on_array, neighbors=asked)
    spots.counts, spots.label = counts, label
    if group_key is not None:
        spots.groups, spots.group = read_groups(adata, opened.source.library_key, group_key)
    if spots.patches is not None and spots.patches.channels != 3:
        if CHANNELS not in options:
            raise ValueError(
                f"Model {model!r} reads RGB pictures, these have {spots.patches.channels} channels. Pass "
                "a network, model='hist2scrna' with preset='small', or one picture of each section."
            )
        options[CHANNELS] = spots.patches.channels
    start = None if init_from is None else starting_point(init_from)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = create_model(model, preset=preset, n_genes=len(gene_names), n_classes=len(classes), **options)
        reach = max(1, network.context.hops)
        training, validating, how = split_spots(spots, usable, validation, reach, seed)
        baselines = Baselines.fit(counts[training])
        objective = Objective(ALPHA if alpha is None else alpha, loss_terms(network, losses or {}))
        start_at_means(network, baselines, spots.library_size[training])
        if isinstance(network, Hist2scRNALightweight) and spots.features is not None:
            network.standardize_by(torch.from_numpy(spots.features[training]))
        if isinstance(start, dict):
            load_reference(network, start, model)
        elif start is not None:
            start_from(
                network,
                start.module.state_dict(),
                genes=(gene_names, start.genes),
                classes=(classes, start.classes),
            )
        schedule = Schedule(
            max_epochs=max_epochs,
            batch_size=recipe.batch_size if batch_size is None else batch_size,
            lr=lr,
            weight_decay=recipe.weight_decay if weight_decay is None else weight_decay,
            patience=recipe.patience if patience is None else patience,
            optimizer=recipe.optimizer,
            decay=recipe.decay,
            clip=recipe.clip,
            precision=default_precision(accelerator) if precision is None else precision,
            accumulate=accumulate,
            accelerator=accelerator,
            devices=devices,
            seed=seed,
            augment=on_patches and (recipe.augment if augment is None else augment),
            progress=progress,
        )
        settings = {k: v for k, v in asdict(schedule).items() if k != "progress"}
        if isinstance(network, FewFeatures | Ridge):
            settings = {k: settings[k] for k in OF_SOLVED}
        else:
            settings["alpha"] = objective.alpha
            settings["losses"] = {name: weight for name, (_, weight) in objective.extra.items()}
        about = adata.uns.get(features_key, {}) if features_key else {}
        parameters = {
            "preset": preset,
            "layer": layer,
            "labels_key": labels_key,
            "library_key": library_key,
            "group_key": group_key,
            "spatial_key": spatial_key,
            "features_key": features_key,
            "img_key": None if img_key is None or isinstance(img_key, str) else list(img_key),
            "neighbors": neighbors,
            "n_neighbors": n_neighbors,
            "radius_um": radius_um,
            "validation": validation if isinstance(validation, int | float) else [*validation],
            **settings,
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
                    "monitor": "validation_loss" if "validation_loss" in run.history else "train_loss",
                    "best_epoch": run.best_epoch,
                    "seconds": round(run.seconds, 1),
                    "versions": package_versions(),
                    "features": {k: str(about[k]) for k in keys.ENCODER_FIELDS if k in about},
                },
                baselines=baselines,
                fingerprints=fingerprint(counts[np.flatnonzero(usable)]),
                history=run.history,
            )

        def keep(run: Trained) -> None:
            if checkpoint_dir is not None:
                trained(run).save(Path(checkpoint_dir) / "best", overwrite=True)

        if isinstance(network, FewFeatures):
            how = f"groups, sections or blocks left out in turn, for penalties and dispersion; then {how}"
            solved = solve_few(
                network,
                spots,
                training,
                batch_size=schedule.batch_size,
                device=pick_device(accelerator),
                augment=schedule.augment,
                seed=seed,
                progress=progress,
            )
            return trained(solved)
        if isinstance(network, Ridge):
            how = f"groups, sections or blocks left out in turn, to choose the penalty; then {how}"
            return trained(solve(network, spots, training))
        device = pick_device(accelerator)
        run = train(network, spots, training, validating, objective, schedule, keep)
        shift = recalibrate_dispersion(
            network,
            spots,
            validating,
            batch_size=schedule.batch_size,
            device=device,
            seed=seed,
            progress=progress,
        )
        result = trained(run)
        if shift is not None:
            result.training["dispersion_shift"] = shift
            if checkpoint_dir is not None:
                result.save(Path(checkpoint_dir) / "best", overwrite=True)
        return result
