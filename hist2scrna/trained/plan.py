"""What to fit and how: the arguments of `fit`, checked against the model that was chosen, before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from hist2scrna.arguments import require_number, require_whole, shown
from hist2scrna.encoders.prepare import DEFAULT_ENCODER, prepare_encoder
from hist2scrna.fitting.gradient import default_precision
from hist2scrna.fitting.processes import require_processes
from hist2scrna.messages import nearest
from hist2scrna.models.create import check_uses, model_options
from hist2scrna.models.registry import OPTIONAL_ARGUMENTS, model_entry, model_names
from hist2scrna.models.training import FIELDS, Training, as_training
from hist2scrna.spots.graph import Neighbors, as_neighbors
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from hist2scrna.encoders import Encoder
    from hist2scrna.models.choose import Choice
    from hist2scrna.models.contract import Likelihood, Term
    from hist2scrna.models.registry import ModelEntry
    from hist2scrna.trained.model import TrainedModel


# NumPy takes no larger one.
LARGEST_SEED = 2**32 - 1
# Counts without images are learned from as gene programs: as many as the kernel model has.
PROGRAMS, N_PROGRAMS = "n_programs", 10


@dataclass(frozen=True)
class FitRequest:
    """The arguments of :func:`hist2scrna.tl.fit` by their names; `source` holds those that say where to read."""

    source: Source = Source()
    model: str = "auto"
    preset: str | None = None
    genes: Sequence[str] | str | None = None
    layer: str | None = None
    labels_key: str | None = None
    group_key: str | None = None
    expression: Any = None
    encoder: Any = None
    patch_um: float | None = None
    reference: Any = None
    neighbors: str | Neighbors | Mapping[str, Any] | None = None
    likelihood: Likelihood | None = None
    losses: Mapping[str, float | Term | tuple[Term, float]] | None = None
    init_from: TrainedModel | str | Path | None = None
    training: Training | Mapping[str, Any] | None = None
    seed: int = 0
    progress: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


SOURCE_ARGUMENTS = tuple(f.name for f in fields(Source))
# Names of the arguments of `fit` that are no option of a model.
FIT_ARGUMENTS = (*SOURCE_ARGUMENTS, *(f.name for f in fields(FitRequest) if f.name not in ("source", "options")))


def request_of(arguments: Mapping[str, Any]) -> FitRequest:
    """Return the request that arguments of :func:`hist2scrna.tl.fit` make, given by name."""
    source = Source(**{name: arguments[name] for name in SOURCE_ARGUMENTS if name in arguments})
    named = {name: arguments[name] for name in FIT_ARGUMENTS if name in arguments and name not in SOURCE_ARGUMENTS}
    options = {name: value for name, value in arguments.items() if name not in FIT_ARGUMENTS}
    return FitRequest(source=source, **named, options=options)


@dataclass(frozen=True)
class FitPlan:
    """What will be fitted.

    Attributes
    ----------
    request, choice
        The arguments; the model that was named, or chosen, and why.
    entry
        The model, as registered.
    options
        All its options but those that the data tell.
    training
        How it is trained, complete.
    encoder
        The frozen encoder in front of it; None for models on patches, and for features extracted beforehand.
    neighbors
        Which spots are neighbors.
    """

    request: FitRequest
    choice: Choice
    entry: ModelEntry
    options: dict[str, Any]
    training: Training
    encoder: Encoder | None
    neighbors: Neighbors


def plan_fit(choice: Choice, request: FitRequest) -> FitPlan:
    """Check the arguments against the model that was chosen, and complete them by its defaults.

    Raises
    ------
    ValueError
        If the model has no such preset, option or argument; the models that have it are named.
    """
    try:
        return _plan(choice, request)
    except ValueError as error:
        if not choice.reason:
            raise
        raise ValueError(f"{error} Here, model='auto' stands for {choice.name!r}: {choice.reason}.") from error


def _plan(choice: Choice, request: FitRequest) -> FitPlan:
    name = choice.name
    entry = model_entry(name, request.preset)
    options = dict(request.options)
    if request.likelihood is not None:
        options["likelihood"] = request.likelihood
    _check_spelling(name, options)
    options = model_options(name, request.preset, **options)
    training = as_training(request.training)
    asked = {key: getattr(request, key) for key in OPTIONAL_ARGUMENTS}
    check_uses(name, [*training.given, *(key for key, value in asked.items() if value is not None)])
    if request.expression is not None and options.get(PROGRAMS) == 0:
        options[PROGRAMS] = _programs_asked(request)
    on_patches = entry.model.needs != "features"
    _check_tiles(entry, request)
    _check_inputs(entry, request, training, on_patches)
    training = training.filled_by(entry.training_of(request.preset))
    require_processes(int(training.devices or 1))
    if training.precision is None:
        training = replace(training, precision=default_precision(str(training.accelerator)))
    encoder = None
    if not on_patches and request.source.features_key is None:
        encoder = prepare_encoder(request.encoder or entry.encoder or DEFAULT_ENCODER)
    neighbors = as_neighbors(request.neighbors)
    return FitPlan(request, choice, entry, options, training, encoder, neighbors)


def _programs_asked(request: FitRequest) -> int:
    """Return the number of gene programs of a network that has none by default."""
    if PROGRAMS in request.options:
        raise ValueError(
            f"`expression` is learned from as gene programs, and {PROGRAMS}=0 leaves none. Pass another number, or "
            "leave one of the two out."
        )
    return N_PROGRAMS


def check_numbers(request: FitRequest) -> None:
    """Refuse a seed, a side or a weight that is no number in its range.

    Raises
    ------
    ValueError
        If it is none; the value is named.
    """
    require_whole("seed", request.seed, 0, LARGEST_SEED)
    if request.patch_um is not None:
        require_number("patch_um", request.patch_um, 0, above=True)
    if not isinstance(request.losses, Mapping | None):
        raise TypeError(f"Expected `losses` to be weights or functions by name, found {shown(request.losses)}.")
    for name, term in (request.losses or {}).items():
        weight = term[1] if isinstance(term, tuple) and len(term) == 2 else term
        if isinstance(weight, Real):
            require_number(f"losses[{name!r}]", weight, 0)


def _check_spelling(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a name that nothing has, and give the nearest of all that `fit` takes, at whatever level.

    Names that another model or `training` has are left to :func:`model_options`, which says whose they are.
    """
    own = model_entry(name).options
    elsewhere = {*FIELDS, *(option for other in model_names() for option in model_entry(other).options)}
    for option in options:
        near = None if option in elsewhere else nearest(option, [*FIT_ARGUMENTS, *FIELDS, *own])
        if near is not None:
            if near in FIELDS and near not in model_entry(name).uses:
                others = [other for other in model_names() if near in model_entry(other).uses]
                raise ValueError(
                    f"`fit` has no argument `{option}`, and model {name!r} nothing like it. Models that have "
                    f"training={{{near!r}: ...}}: {', '.join(others)}."
                )
            right = f"training={{{near!r}: ...}}" if near in FIELDS else f"{near}="
            raise ValueError(f"`fit` has no argument `{option}`. Did you mean {right}?")


def _check_tiles(entry: ModelEntry, request: FitRequest) -> None:
    """Refuse what only models on tiles read, and what these do not."""
    given = {"nuclei": request.source.nuclei, "reference": request.reference, "patch_um": request.patch_um}
    on_tiles = entry.model.needs == "tiles"
    for argument, value in given.items():
        if value is None or on_tiles != (argument == "patch_um"):
            continue
        if on_tiles:
            raise ValueError(f"Model {entry.name!r} reads tiles and has no `patch_um`: pass tile_um= and tile_px=.")
        others = [name for name in model_names() if model_entry(name).model.needs == "tiles"]
        raise ValueError(
            f"Model {entry.name!r} has no `{argument}`. Models that have `{argument}`: {', '.join(others)}."
        )


def _check_inputs(entry: ModelEntry, request: FitRequest, training: Training, on_patches: bool) -> None:
    """Refuse what says of patches, features or an encoder what does not go together."""
    features_key = request.source.features_key
    inputs = {"encoder": request.encoder, "features_key": features_key}
    for argument, value in inputs.items():
        if on_patches and value is not None:
            others = [name for name in model_names() if model_entry(name).model.needs == "features"]
            raise ValueError(
                f"Model {entry.name!r} reads patches itself and has no `{argument}`. Models that have `{argument}`: "
                f"{', '.join(others)}."
            )
    if features_key is None:
        return
    for argument, value in (("encoder", request.encoder), ("patch_um", request.patch_um)):
        if value is not None:
            raise ValueError(
                f"Pass `{argument}` or `features_key`, not both: the features in adata.obsm[{features_key!r}] were "
                "extracted beforehand."
            )
    if training.augment and not on_patches:
        raise ValueError(
            f"`augment` varies patches before they are encoded, but the features in adata.obsm[{features_key!r}] were "
            "extracted beforehand. Pass encoder= instead of features_key=, or leave `augment` out."
        )
