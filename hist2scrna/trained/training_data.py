"""What a model is fitted to: the sections with images, counts, labels, groups, and patches or features."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from hist2scrna import keys
from hist2scrna.encoders.encoder import WITH_MORPHOLOGY
from hist2scrna.messages import listed
from hist2scrna.models.choose import AUTO, RGB, Choice, choose_model
from hist2scrna.models.registry import model_entry
from hist2scrna.spots.counts import choose_genes
from hist2scrna.spots.nuclei_in_spots import read_nucleus_labels
from hist2scrna.spots.patches import PatchSize, encoder_patch_size
from hist2scrna.spots.placed import placed_spots, restricted
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.reference import read_reference
from hist2scrna.spots.sections import read_groups, read_sections
from hist2scrna.spots.slides import one_section_a_slide, rows_are_slides
from hist2scrna.spots.tiles import TileSize, with_nucleus
from hist2scrna.trained.donor_counts import read_donor_counts
from hist2scrna.trained.expression import check_slides, read_expression, usable_rows
from hist2scrna.trained.plan import FitPlan, FitRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.fitting.closed_form.donors import DonorCounts
    from hist2scrna.spots.read import Spots
    from hist2scrna.spots.sections import OpenedSections
    from hist2scrna.spots.source import Source

log = logging.getLogger(__name__)

# Features by hand tell of nuclei, which wider pixels do not show: bulb at 4.5 um predicted worse with them.
COARSEST_UM = 2.0


def apart_from_images(opened: OpenedSections, request: FitRequest) -> tuple[OpenedSections, FitRequest]:
    """Return the sections with images, and the request with the counts of the others, which some models learn from."""
    source = opened.source
    on_images = source.features_key is None and source.image is None and not opened.patches_are_files
    without = [section for section in opened.members if not section.has_image] if on_images else []
    able = request.model == AUTO or "expression" in model_entry(request.model).uses
    if not able or len(without) in (0, len(opened.members)):
        return opened, request
    rows = np.concatenate([section.rows for section in without])
    log.info("%s: counts alone, without an image", listed([section.name for section in without]))
    given = request.expression
    tables = [] if given is None else [given] if isinstance(given, AnnData) else list(given)
    kept = restricted(opened, np.setdiff1d(np.arange(len(opened.codes)), rows))
    return kept, replace(request, expression=[*tables, opened.adata[rows]])


def choose(opened: OpenedSections, model: str) -> Choice:
    """Return the model that was named; of `"auto"`, the one that suits the data, and say why."""
    if model != AUTO:
        return Choice(model)
    on_features = opened.source.features_key is not None
    patch_files = not on_features and opened.patches_are_files
    channels = RGB if on_features or patch_files else opened.members[0].image.channels
    choice = choose_model(opened.adata.n_obs, channels=channels, patch_files=patch_files, features_key=on_features)
    log.info("model='auto' chose %r: %s. Pass model= to choose another.", choice.name, choice.reason)
    return choice


def with_encoder(opened: OpenedSections, choice: Choice, request: FitRequest) -> FitRequest:
    """Return the request with the encoder of the model, where none was named: features by hand need to see nuclei."""
    entry = model_entry(choice.name)
    named = request.encoder is not None or opened.source.features_key is not None
    if named or entry.model.needs != "features" or not (entry.encoder or "").endswith(WITH_MORPHOLOGY):
        return request
    encoder = str(entry.encoder)
    pixel_um = max(section.scale.mpp / section.image.scale for section in opened.members)
    if pixel_um > COARSEST_UM:
        encoder = encoder.removesuffix(WITH_MORPHOLOGY)
        log.info(
            "Nuclei are not measured: the pixels of the image are %.2g um wide, and nuclei can be seen in pixels of %g "
            "um at most. encoder=%r",
            *(pixel_um, COARSEST_UM, encoder),
        )
    return replace(request, encoder=encoder)


@dataclass(frozen=True)
class TrainingData:
    """What was read: where from, all spots, which of them have any count, names of genes and classes.

    `features_from` is what `.uns` tells of features that were extracted beforehand; `profiles` are `(k, genes)`
    reference profiles, or None; `expression` the counts of donors without images.
    """

    source: Source
    spots: Spots
    usable: NDArray[np.bool_]
    genes: list[str]
    classes: list[str]
    features_from: dict[str, str]
    profiles: NDArray[np.float32] | None = None
    expression: tuple[DonorCounts, ...] = ()


def read_data(opened: OpenedSections, plan: FitPlan) -> TrainingData:
    """Read counts, labels, groups, and patches or features."""
    request, source = plan.request, opened.source
    slides = rows_are_slides(opened.adata, plan.entry.model.observation)
    if slides:
        check_slides(plan)
    opened = one_section_a_slide(opened) if slides else placed_spots(opened)
    adata = opened.adata
    genes = choose_genes(adata, request.genes)
    profiles = None
    if request.reference is not None:
        genes, profiles = read_reference(request.reference, genes, named=request.genes is not None)
    counts = read_expression(adata, genes, plan)
    classes, label = ([], None) if request.labels_key is None else read_nucleus_labels(opened, request.labels_key)
    spots = read_spots(
        opened,
        patch=None if slides else _patch_size(plan),
        tile=_tile_size(plan),
        on_array=plan.entry.model.on_array,
        neighbors=plan.neighbors,
        slides=slides,
    )
    spots.counts, spots.label = counts, label
    usable = usable_rows(np.asarray(counts.sum(axis=1)).ravel() > 0, len(genes), slides)
    if spots.tiles is not None:
        usable = usable & with_nucleus(spots.tiles)
    if request.group_key is not None:
        # A slide that is a section of its own lies in one group.
        alone = slides and source.library_key is None
        groups = read_sections(adata, request.group_key) if alone else None
        spots.groups, spots.group = groups or read_groups(adata, source.library_key, request.group_key)
    about = adata.uns.get(source.features_key, {}) if source.features_key else {}
    features_from = {field: str(about[field]) for field in keys.ENCODER_FIELDS if field in about}
    request = replace(request, source=source)
    others = read_donor_counts(request, genes, spots.groups or ())
    return TrainingData(source, spots, usable, genes, classes, features_from, profiles, others)


def _patch_size(plan: FitPlan) -> PatchSize | None:
    if plan.encoder is not None:
        return encoder_patch_size(plan.encoder, patch_um=plan.request.patch_um)
    if plan.entry.patch_option is None:
        return None
    return PatchSize(plan.options[plan.entry.patch_option], plan.request.patch_um, plan.entry.patch_per_spot)


def _tile_size(plan: FitPlan) -> TileSize | None:
    return TileSize(plan.options["tile_px"], plan.options["tile_um"]) if plan.entry.model.needs == "tiles" else None
