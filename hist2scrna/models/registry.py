"""The models by name: what `fit`, the benchmark and the shell know of each."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hist2scrna.messages import require_known
from hist2scrna.models.training import DEFAULTS, FIELDS, Training

if TYPE_CHECKING:
    from hist2scrna.models.contract import SpotModel

BY_GRADIENT = "hist2scrna.fitting.gradient:fit_by_gradient"
# Arguments of `fit` that only some fitters read, as they read only some fields of `Training`.
OPTIONAL_ARGUMENTS = ("losses", "init_from", "neighbors", "expression")

# Each registers itself at the foot of its file, which is imported when the name is first asked for.
OUR_MODELS = {
    "hist2scrna": "hist2scrna.models.hist2scrna",
    "hist2scrna-lightweight": "hist2scrna.models.lightweight",
    "kernel": "hist2scrna.models.kernel",
    "ridge": "hist2scrna.models.ridge",
    "hist2st": "hist2scrna.models.hist2st",
    "histogene": "hist2scrna.models.histogene",
    "stnet": "hist2scrna.models.stnet",
    "transformerst": "hist2scrna.models.transformerst",
    "hist2rna": "hist2scrna.models.hist2rna",
    "ghist": "hist2scrna.models.ghist",
}


@dataclass(frozen=True)
class ModelEntry:
    """What is known of a model by its name; see :func:`register`."""

    name: str
    model: type[SpotModel]
    training: Training
    presets: Mapping[str, Mapping[str, Any]]
    default: str
    fitter: str | Callable[..., Any]
    uses: tuple[str, ...]
    patch_option: str | None
    patch_per_spot: float
    encoder: str | None
    adapter: str | Callable[..., Any] | None
    trainings: Mapping[str, Training]

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The options of the model: the keyword arguments of its class."""
        parameters = inspect.signature(self.model).parameters
        return {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    @property
    def defaults(self) -> Training:
        """The complete training defaults of its default preset."""
        return self.training_of(None)

    def training_of(self, preset: str | None) -> Training:
        """Return the complete training defaults of a preset; None: the default one."""
        own = self.trainings.get(self.default if preset is None else preset, Training())
        return own.filled_by(self.training).filled_by(DEFAULTS)

    def load_fitter(self) -> Callable[..., Any]:
        """Return the function that fits the model."""
        return _load(self.fitter)

    def load_adapter(self) -> Callable[..., Any]:
        """Return the function that adapts the model to a donor.

        Raises
        ------
        ValueError
            If it has none; the models that have one are named.
        """
        if self.adapter is None:
            able = [name for name in model_names() if model_entry(name).adapter is not None]
            raise ValueError(
                f"Model {self.name!r} cannot be adapted. Models that can: {', '.join(able)}; or fit this one "
                "again with the measured spots among its sections."
            )
        return _load(self.adapter)


def _load(function: str | Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return loaded


_entries: dict[str, ModelEntry] = {}


def register(
    name: str,
    cls: type[SpotModel],
    *,
    training: Training | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    default: str | None = None,
    fitter: str | Callable[..., Any] = "gradient",
    uses: Sequence[str] | None = None,
    patch_option: str = "patch_px",
    patch_per_spot: float = 1.5,
    encoder: str | None = None,
    adapter: str | Callable[..., Any] | None = None,
    trainings: Mapping[str, Training] | None = None,
) -> None:
    """Make a model known by name, to `fit`, `predict`, `benchmark`, saved models and the shell.

    A saved model names the module in which its class is defined; import that before you load it in another process.

    Parameters
    ----------
    name
        Name of the model.
    cls
        Its class, a :class:`~hist2scrna.models.SpotModel` that takes `n_genes`, `n_classes`, and its options by
        keyword, with defaults. Of models on features, `n_features` needs no default.
    training
        How it is trained unless the user says otherwise; fields that are None take the defaults of
        :class:`~hist2scrna.Training`.
    presets
        Options by name of preset (size).
    default
        Name of the default preset; None: the first one.
    fitter
        `"gradient"`, or a function `(model, spots, split, settings) -> FitResult` that fits the model in place (see
        `hist2scrna.fitting.result`), or its name as `"module:function"`.
    uses
        Which fields of `Training`, and which of `losses`, `init_from`, `neighbors` and `expression`, the fitter reads:
        others are refused. None: all but `expression`.
    patch_option
        Which option is the side of a patch in pixels, for models on patches.
    patch_per_spot
        Side of a patch in spot diameters where `patch_um` is not given, for models on patches.
    encoder
        Name of the encoder that stands in front of it unless another is asked for, for models on features; None:
        `"imagenet"`.
    adapter
        A function `(model, prediction, counts)` that brings a fitted model to the donor of some measured spots, in
        place, or its name as `"module:function"`; see :func:`hist2scrna.tl.adapt`.
    trainings
        By name of preset, what of its training differs from `training`.

    Raises
    ------
    TypeError
        If the class is no `SpotModel`.
    ValueError
        If the name is that of one of our models, a preset has an unknown option, or `uses` an unknown name.

    Examples
    --------
    >>> class Mine(h2s.models.Ridge):
    ...     pass  # a model of your own
    ...
    >>> h2s.models.register("mine", Mine, training=h2s.Training(lr=1e-3), presets={"wide": {}})
    >>> "mine" in h2s.models.model_names()
    True
    """
    from hist2scrna.models.contract import SpotModel

    if not (inspect.isclass(cls) and issubclass(cls, SpotModel)):
        raise TypeError(f"Expected `cls` to be a subclass of SpotModel, found {cls!r}.")
    if name in OUR_MODELS and cls.__module__ != OUR_MODELS[name]:
        raise ValueError(f"{name!r} is a model of hist2scrna; register yours by another name.")
    presets = {"default": {}} if presets is None else {key: dict(options) for key, options in presets.items()}
    default = next(iter(presets)) if default is None else default
    require_known(f"default preset of {name}", default, presets)
    for preset in trainings or {}:
        require_known(f"preset of {name} in `trainings`", preset, presets)
    known = (*FIELDS, *OPTIONAL_ARGUMENTS)
    for used in uses or ():
        require_known("name in `uses`", used, known)
    entry = ModelEntry(
        name=name,
        model=cls,
        training=Training() if training is None else training,
        presets=presets,
        default=default,
        fitter=BY_GRADIENT if fitter == "gradient" else fitter,
        uses=tuple(name for name in known if name != "expression") if uses is None else tuple(uses),
        patch_option=patch_option if getattr(cls, "needs", "patches") == "patches" else None,
        patch_per_spot=patch_per_spot,
        encoder=encoder,
        adapter=adapter,
        trainings=dict(trainings or {}),
    )
    for preset, options in presets.items():
        for option in options:
            require_known(f"option in preset {preset!r} of {name}", option, entry.options)
    _entries[name] = entry


def model_names() -> list[str]:
    """Return the names of all models: ours, then those that were registered.

    Examples
    --------
    >>> h2s.models.model_names()[:4]
    ['hist2scrna', 'hist2scrna-lightweight', 'kernel', 'ridge']
    """
    return [*OUR_MODELS, *(name for name in _entries if name not in OUR_MODELS)]


def model_entry(name: str, preset: str | None = None) -> ModelEntry:
    """Return what is registered of a model.

    Raises
    ------
    ValueError
        If the model or the preset is not known; the nearest known name is given.
    """
    require_known("model", name, model_names())
    if name not in _entries:
        importlib.import_module(OUR_MODELS[name])
    entry = _entries[name]
    if preset is not None and preset not in entry.presets:
        refuse_of_others(f"Model {name!r} has no preset", preset, {n: model_entry(n).presets for n in model_names()})
        require_known(f"preset of {name}", preset, entry.presets)
    return entry


def refuse_of_others(sentence: str, word: str, has: Mapping[str, Any]) -> None:
    """Raise an error that names the models that have a word, if any has."""
    models = [name for name, words in has.items() if word in words]
    if models:
        raise ValueError(f"{sentence} `{word}`. Models that have `{word}`: {', '.join(models)}.")
