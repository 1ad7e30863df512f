"""Fit a model on AnnData: choose, plan, read, create, split, encode, start, fit; each step a call."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from hist2scrna.encoders.encoder import WITH_MORPHOLOGY
from hist2scrna.encoders.patch_statistics import feature_names
from hist2scrna.encoders.weights import read_state_dict
from hist2scrna.fitting.augment import ImageVariation, StainVariation
from hist2scrna.fitting.checkpoint import BEST, TrainingCheckpoint
from hist2scrna.fitting.encode import encode_patches, encoded_width
from hist2scrna.fitting.identity import spots_identity
from hist2scrna.fitting.inference import pick_device
from hist2scrna.fitting.look import PLAIN, Look
from hist2scrna.fitting.objective import Objective
from hist2scrna.fitting.result import FitResult, FitSettings, Split, useless
from hist2scrna.fitting.sight import Sight
from hist2scrna.fitting.split import some_of, split_spots
from hist2scrna.fitting.start import load_reference, loss_terms, training_statistics
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.fitting.tissue_meter import MOST_PATCHES, learn_tissue
from hist2scrna.fitting.warm_start import start_from
from hist2scrna.messages import require_adata, sections_counted, warn_user
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.metrics.blocks import taken
from hist2scrna.models.choose import AUTO, RGB
from hist2scrna.models.create import create_model
from hist2scrna.models.registry import model_entry
from hist2scrna.models.training import as_training
from hist2scrna.processors import threads
from hist2scrna.provenance import fingerprint, package_versions
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.slides import with_pooled_features
from hist2scrna.trained.announce import announce_fit
from hist2scrna.trained.checkpoint import check_checkpoint_folder, training_identity
from hist2scrna.trained.model import TrainedModel, as_trained
from hist2scrna.trained.plan import FitPlan, FitRequest, check_numbers, plan_fit
from hist2scrna.trained.training_data import TrainingData, apart_from_images, choose, read_data, with_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hist2scrna.models.contract import SpotModel
    from hist2scrna.spots.read import Spots
    from hist2scrna.spots.source import Source

log = logging.getLogger(__name__)

CHANNELS, N_MORPHOLOGY = "channels", "n_morphology"
CLASSES, N_REFERENCE, SUPERVISION = "classes", "n_reference", "supervision"


@in_own_torch
@sections_counted
def fit_model(adata: AnnData, request: FitRequest) -> TrainedModel:
    """Fit what is asked for; see :func:`hist2scrna.tl.fit`. The global random state is left as it was."""
    require_adata(adata)
    check_numbers(request)
    check_checkpoint_folder(as_training(request.training).checkpoint_dir)
    with threads() as look_again:
        return _fit(adata, request, look_again)


def _fit(adata: AnnData, request: FitRequest, look_again: Callable[[], None]) -> TrainedModel:
    if request.model == AUTO or model_entry(request.model).model.needs == "features":
        request = replace(request, source=with_pooled_features(adata, request.source, request.encoder))
    opened, request = apart_from_images(open_sections(adata, request.source), request)
    choice = choose(opened, request.model)
    with torch.random.fork_rng():
        # Before the encoder is built, whose own start draws numbers: the random looks at patches come after these.
        torch.manual_seed(request.seed)
        plan = plan_fit(choice, with_encoder(opened, choice, request))
        data = read_data(opened, plan)
        seen = {} if plan.training.checkpoint_dir is None else spots_identity(data.spots)
        model = create(data, plan)
        announce_fit(plan.entry, plan.training, plan.encoder, data.spots, int(data.usable.sum()), len(data.genes))
        split = split_spots(
            data.spots, data.usable, plan.training.validation or 0, max(1, model.context.hops), request.seed
        )
        sight = encode(model, data.spots, split, plan)
        baselines = start(model, data, split, plan)
        objective = Objective(plan.training.alpha or 0, loss_terms(model, request.losses or {}))
        draft = describe(model, data, split, baselines, objective, plan)
        draft, result = fit_and_keep(draft, data, split, objective, plan, seen, look_again, sight)
    if (verdict := useless(result.notes.get("variance_explained"))) is not None:
        warn_user(
            f"{verdict}. Check that coordinates and image belong together, and that group_key= names the donors where "
            "there are several; else give more sections, or choose another encoder= or model=."
        )
    return complete(draft, result)


# -- create and start --------------------------------------------------------------------------------------------------
def create(data: TrainingData, plan: FitPlan) -> SpotModel:
    """Create the model; the data tell the number of channels of a patch, or of features."""
    spots, options, name = data.spots, plan.options, plan.entry.name
    if spots.patches is not None and spots.patches.channels != RGB:
        if CHANNELS not in options:
            raise ValueError(
                f"Model {name!r} reads RGB images, these have {spots.patches.channels} channels. Pass "
                "model='hist2scrna', or one image of each section."
            )
        options[CHANNELS] = spots.patches.channels
    if N_MORPHOLOGY in plan.entry.options:
        joined = data.features_from.get("encoder", "").endswith(WITH_MORPHOLOGY)
        options[N_MORPHOLOGY] = len(feature_names()) if joined else getattr(plan.encoder, N_MORPHOLOGY, 0)
    if spots.features is not None:
        options["n_features"] = spots.features.shape[1]
    elif plan.encoder is not None:
        options["n_features"] = encoded_width(plan.encoder, spots, pick_device(str(plan.training.accelerator)))
    if CLASSES in plan.entry.options:
        options[CLASSES] = data.classes
    if spots.tiles is not None:
        options[SUPERVISION] = "nucleus" if spots.tiles.by_spot is None else "spot"
    if data.profiles is not None:
        options[N_REFERENCE] = len(data.profiles)
    preset = plan.request.preset
    model = create_model(name, preset=preset, n_genes=len(data.genes), n_classes=len(data.classes), **options)
    if model.likelihood == "mse" and model.target == "log_normalized" and len(data.genes) == 1:
        raise ValueError(
            f"Model {name!r} is fitted to log-normalized expression, which of a single gene ({data.genes[0]!r}) is the "
            "same in every spot. Give more genes, or pass a model of counts, such as model='kernel'."
        )
    if data.profiles is not None:
        model.get_buffer("reference").copy_(torch.from_numpy(data.profiles))
    return model


def encode(model: SpotModel, spots: Spots, split: Split, plan: FitPlan) -> Sight | None:
    """Replace patches by their features, with augmentation those of two random looks; return how sharp these are."""
    if plan.encoder is None:
        return None
    sight = Sight.of(spots, plan.encoder.widest)
    needed = np.arange(len(spots))
    if model.context.kind == "spot":
        needed = np.union1d(split.training, split.validating)
    varied = "augment" in plan.entry.uses and bool(plan.training.augment)
    variations = (StainVariation(), ImageVariation()) if varied else ()
    features = encode_patches(
        plan.encoder,
        spots,
        needed,
        batch_size=plan.training.batch_size or 1,
        device=pick_device(str(plan.training.accelerator)),
        progress=plan.request.progress,
        looks=[Look.of(variation, spots, plan.request.seed) for variation in variations] or PLAIN,
        watch=sight.see,
    )
    sight.complete(spots, some_of(np.random.default_rng(plan.request.seed), split.training, MOST_PATCHES))
    spots.features, spots.second_look = features[0], features[1] if varied else None
    spots.patches = None
    return sight


def start(model: SpotModel, data: TrainingData, split: Split, plan: FitPlan) -> Baselines:
    """Let the model begin at what the training spots tell, or at other weights; return the baselines on these spots."""
    assert data.spots.counts is not None
    baselines = Baselines.fit(taken(data.spots.counts, split.training))
    model.start_at(training_statistics(data.spots, split.training, baselines, model.starting_programs, data.expression))
    init_from = plan.request.init_from
    if isinstance(init_from, str | Path) and Path(init_from).is_file():
        load_reference(model, read_state_dict(Path(init_from)), plan.entry.name)
    elif init_from is not None:
        other = as_trained(init_from, "init_from")
        names = {"genes": (data.genes, other.genes), "classes": (data.classes, other.classes)}
        start_from(model, other.module.state_dict(), **names)
    return baselines


# -- fit and describe --------------------------------------------------------------------------------------------------
def describe(
    model: SpotModel, data: TrainingData, split: Split, baselines: Baselines, objective: Objective, plan: FitPlan
) -> TrainedModel:
    """Return the trained model as far as it is known before the fit; its weights are those of `model` at any time."""
    spots = data.spots
    assert spots.counts is not None
    return TrainedModel(
        module=model,
        name=plan.entry.name,
        choice=plan.choice.reason,
        options={name: list(value) if isinstance(value, tuple) else value for name, value in plan.options.items()},
        genes=data.genes,
        classes=data.classes,
        geometry=spots.geometry,
        encoder=None if plan.encoder is None else plan.encoder.card(),
        parameters=_parameters(data.source, objective, plan),
        training={
            "sections": list(spots.sections),
            "donors": list(spots.groups or ()),
            "donors_without_images": [donor.name for donor in data.expression],
            "unit": asdict(spots.unit),
            "pitch_um": spots.pitch_um,
            "pixel_um": spots.pixel_um and list(spots.pixel_um),
            "n_training": len(split.training),
            "n_validation": len(split.validating),
            "n_nuclei": spots.nuclei_summed(split.training),
            "validation": split.how,
            "versions": package_versions(),
            "nuclei": [] if spots.tiles is None else list(spots.tiles.origin),
            "features": data.features_from,
        },
        baselines=baselines,
        fingerprints=fingerprint(taken(spots.counts, np.flatnonzero(data.usable))),
        history=pd.DataFrame(),
        encoder_in_memory=plan.encoder,
    )


def _parameters(source: Source, objective: Objective, plan: FitPlan) -> dict[str, Any]:
    """Return what `fit` was called with, of the arguments that the model reads, as values that JSON can hold."""
    request, uses = plan.request, plan.entry.uses
    training = {name: value for name, value in plan.training.to_dict().items() if name in uses}
    parameters: dict[str, Any] = {
        "model": request.model,
        "preset": request.preset,
        "layer": request.layer,
        "labels_key": request.labels_key,
        "library_key": source.library_key,
        "group_key": request.group_key,
        "spatial_key": source.spatial_key,
        "features_key": source.features_key,
        "img_key": None if source.img_key is None or isinstance(source.img_key, str) else list(source.img_key),
        "patch_um": request.patch_um,
        "neighbors": asdict(plan.neighbors) if plan.neighbors.asked else None,
        "seed": request.seed,
        "training": training,
    }
    if "losses" in uses:
        parameters["losses"] = {name: weight for name, (_, weight) in objective.extra.items()}
    return parameters


def fit_and_keep(
    draft: TrainedModel,
    data: TrainingData,
    split: Split,
    objective: Objective,
    plan: FitPlan,
    seen: Mapping[str, Any],
    look_again: Callable[[], None],
    sight: Sight | None,
) -> tuple[TrainedModel, FitResult]:
    """Fit the model in place by its own fitter, and learn which tissue is like that of the training.

    Where there is a `checkpoint_dir`, the best so far and the whole training are kept there, and it goes on from there.
    """
    folder, request, on_best, checkpoint = plan.training.checkpoint_dir, plan.request, None, None
    if folder is not None:
        on_best = partial(keep_best, draft, folder)
        checkpoint = TrainingCheckpoint(folder, training_identity(draft, split, plan, seen, data.expression))
    settings = FitSettings(
        plan.training,
        objective,
        seed=request.seed,
        progress=request.progress,
        expression=data.expression,
        on_best=on_best,
        checkpoint=checkpoint,
        look_again=look_again,
        genes=data.genes,
    )
    result: FitResult = plan.entry.load_fitter()(draft.module, data.spots, split, settings)
    draft.module.cpu().eval()
    where: dict[str, Any] = {"device": pick_device(str(plan.training.accelerator)), "seed": request.seed}
    draft = replace(draft, tissue=learn_tissue(draft.module, data.spots, split.training, sight, **where))
    draft.module.cpu()
    if folder is not None:
        keep_best(draft, folder, result)
    return draft, result


def keep_best(draft: TrainedModel, folder: str | Path, result: FitResult) -> None:
    """Save the model as it is now."""
    complete(draft, result).save(Path(folder) / BEST, overwrite=True)


def complete(draft: TrainedModel, result: FitResult) -> TrainedModel:
    """Return the trained model with the result of its fit."""
    how = [result.validation] if result.validation else []
    if draft.training["n_validation"] or not how:
        how.append(draft.training["validation"])
    training = {
        **draft.training,
        "validation": "; then ".join(how),
        "monitor": "validation_loss" if "validation_loss" in result.history else "train_loss",
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 1),
        **result.notes,
    }
    return replace(draft, training=training, history=result.history)
