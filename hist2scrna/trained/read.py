"""Read an AnnData as a fitted model needs it: its geometry, its keys, its encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hist2scrna.messages import sections_counted, warn_user
from hist2scrna.models.choose import RGB
from hist2scrna.spots.graph import Neighbors
from hist2scrna.spots.nuclei import DISCS, LABELED, POLYGONS
from hist2scrna.spots.patches import MOST_COARSER, PatchSize
from hist2scrna.spots.placed import placed_spots
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.scale import LARGEST_DISAGREEMENT
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.slides import one_section_a_slide, rows_are_slides, with_pooled_features
from hist2scrna.spots.source import Source
from hist2scrna.spots.tiles import TileSize
from hist2scrna.spots.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel

# Of neighboring tiles, so that most nuclei at the rim of one are whole in another: 30 of 256 px, as GHIST has it.
OVERLAP = 30 / 256
SPOT_DIAMETER, ARGUMENT = "spot diameter", "argument"


@sections_counted
def read_for(
    model: FittedModel,
    adata: AnnData,
    *,
    library_key: str | None = None,
    spatial_key: str | None = None,
    img_key: str | Sequence[str] | None = None,
    image: Any = None,
    features_key: str | None = None,
    mpp: float | None = None,
    nuclei: Any = None,
) -> Spots:
    """Read the spots of `adata` in a model's geometry; keys that are not named are those of the training."""
    trained = model.parameters
    if library_key is None and trained.get("library_key") in adata.obs:
        library_key = trained["library_key"]
    if img_key is None and image is None:
        img_key = trained.get("img_key")
    if features_key is None:
        features_key = trained.get("features_key")
    source = Source(
        library_key=library_key,
        spatial_key=spatial_key or trained["spatial_key"],
        img_key=img_key,
        image=image,
        features_key=features_key,
        mpp=mpp,
        nuclei=nuclei,
    )
    source = with_pooled_features(adata, source)
    features_key = source.features_key
    opened = open_sections(adata, source)
    slides = rows_are_slides(adata, model.module.observation)
    opened = one_section_a_slide(opened) if slides else placed_spots(opened)
    patch, tile = _input_size(model, features_key, nuclei)
    neighbors = trained.get("neighbors")
    spots = read_spots(
        opened,
        patch=patch,
        tile=tile,
        n_features=model.options.get("n_features"),
        on_array=model.module.on_array,
        neighbors=Neighbors() if neighbors is None else Neighbors(**neighbors),
        slides=slides,
        trained_um=None if model.module.context.kind == "spot" else model.training.get("pitch_um"),
    )
    channels = model.options.get("channels", RGB)
    if spots.patches is not None and spots.patches.channels != channels:
        raise ValueError(
            f"The model reads {channels} channels, the image here has {spots.patches.channels}. Pass the stains of the "
            f"training, in their order: img_key={trained.get('img_key')!r} or image=[...]."
        )
    taught_by_sums = model.options.get("supervision") == "spot"
    if spots.are_sums == taught_by_sums:
        _compare_scale(spots, model)
    _compare_pixels(spots, model)
    # The nuclei of a spot are summed, however large it is.
    if "unit" in model.training and not (spots.are_sums or taught_by_sums):
        _compare_units(spots.unit, Unit(**model.training["unit"]))
    if spots.tiles is not None:
        _compare_nuclei(spots.tiles.origin, model.training.get("nuclei", []))
    if features_key is not None:
        _compare_features(adata, features_key, model)
    return spots


def _input_size(model: FittedModel, features_key: str | None, nuclei: Any) -> tuple[PatchSize | None, TileSize | None]:
    """Return how large the patches or the tiles of a model are; None for those that it does not read."""
    geometry, on_tiles = model.geometry, model.module.needs == "tiles"
    if nuclei is not None and not on_tiles:
        raise ValueError(f"Model {model.name!r} reads no nuclei: leave `nuclei` out.")
    if geometry is None or (features_key is not None and not on_tiles):
        return None, None
    if on_tiles:
        return None, TileSize(geometry.px, geometry.um, round(OVERLAP * geometry.px))
    finest = (model.training.get("pixel_um") or [None])[0]
    return PatchSize(geometry.px, geometry.um, finest_um=finest), None


def _compare_features(adata: AnnData, features_key: str, model: FittedModel) -> None:
    """Warn where the features are known to come from another encoder than in training."""
    trained = model.training.get("features") or {}
    if model.encoder is not None:
        trained = {"encoder": model.encoder["name"], "weights_sha256": model.encoder["sha256"]}
    here = adata.uns.get(features_key, {})
    for field in ("encoder", "weights_sha256"):
        if field in trained and field in here and str(here[field]) != trained[field]:
            warn_user(
                f"The features in adata.obsm[{features_key!r}] have {field} {here[field]!s}, those in training had "
                f"{trained[field]}: the model then reads noise. Extract them with the same encoder."
            )


def _compare_nuclei(here: Sequence[str], trained: Sequence[str]) -> None:
    """Warn where nuclei had their own shape in training, and are drawn without any here."""
    discs = [origin for origin in here if origin.startswith(DISCS)]
    if discs and {LABELED, POLYGONS} & set(trained):
        warn_user(
            f"The model was trained on nuclei of their own shape; here they are drawn as {discs[0]}. Pass nuclei=, "
            "or sizes in adata.obs, as pp.segment_nuclei writes them."
        )


def _compare_units(here: Unit, trained: Unit) -> None:
    """Warn where what is predicted is of another size than what was measured in training."""
    if here.differs_from(trained):
        warn_user(
            f"The model was trained on {trained}, and these are {here}: for each of them it predicts the counts of a "
            f"whole {trained.kind} of {trained.um:.3g} um around it. Pass library_size=, a column of adata.obs with "
            f"their own total counts, compare genes and not totals, or fit a model on {here.kind}s of this size."
        )


def _compare_pixels(spots: Spots, model: FittedModel) -> None:
    """Warn where images are coarser than those of the training, as far as the model sees them."""
    trained = model.training.get("pixel_um")
    if spots.pixel_um is None or spots.geometry is None or not trained:
        return
    seen = spots.geometry.um / spots.geometry.px
    here, there = max(spots.pixel_um[1], seen), max(trained[1], seen)
    if here > MOST_COARSER * there:
        warn_user(
            f"A pixel of the image is {spots.pixel_um[1]:.2g} um wide here, and was {trained[1]:.2g} um at most in "
            f"training (the model sees {seen:.2g}): what it reads is blurred, and its predictions are less sure. Pass "
            "image= with the full-resolution file, or img_key=, or train on images as coarse as these."
        )


def _compare_scale(spots: Spots, model: FittedModel) -> None:
    """Warn where one of training and prediction infers microns from its spots, and these are not as wide in the other.

    Whoever passed `mpp` said how large a pixel is here, and is not asked again. Spots that were laid over a slide have
    no width to compare, and those of another size are warned of by themselves.
    """
    here, trained = spots.geometry, model.geometry
    if here is None or trained is None or here.scale_from in (trained.scale_from, ARGUMENT):
        return
    before = Unit(**model.training.get("unit", {"kind": spots.unit.kind}))
    slightly = spots.unit.differs_from(before, LARGEST_DISAGREEMENT) and not spots.unit.differs_from(before)
    if SPOT_DIAMETER in (here.scale_from, trained.scale_from) and slightly:
        warn_user(
            f"Microns are known from the {here.scale_from} here, which makes {spots.unit}, but were from the "
            f"{trained.scale_from} in training, of {before}: if the spots are the same, the model sees the tissue at "
            "another scale. Pass mpp= to be sure."
        )
