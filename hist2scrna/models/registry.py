"""The models by name, with their presets."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from hist2scrna.models import training
from hist2scrna.models.hist2scrna import Hist2scRNA
from hist2scrna.models.hist2st import Hist2ST
from hist2scrna.models.histogene import HisToGene
from hist2scrna.models.kernel import FewFeatures, FewSections
from hist2scrna.models.lightweight import Hist2scRNALightweight
from hist2scrna.models.ridge import Ridge
from hist2scrna.models.stnet import STNet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hist2scrna.models.contract import SpotModel
    from hist2scrna.models.training import Recipe


@dataclass(frozen=True)
class ModelEntry:
    """A model's class, its presets, and how it is trained.

    Attributes
    ----------
    model
        The class.
    recipe
        Defaults of its training.
    presets
        Options by name of preset; the default one gives the constructor's own defaults.
    default
        Name of the default preset.
    patch_option
        Which option says how many pixels a patch is wide; None for models on features.
    few
        What the preset `"few"` stands for, where there is one: a model of its own for little data.
    """

    model: type[SpotModel]
    recipe: Recipe = training.OWN
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    default: str = "small"
    patch_option: str | None = "patch_px"
    few: ModelEntry | None = None


FEW = "few"
MODELS: dict[str, ModelEntry] = {
    "hist2scrna": ModelEntry(
        Hist2scRNA,
        presets={
            "tiny": {
                "patch_px": 48,
                "token_px": 8,
                "width": 96,
                "depth": 2,
                "heads": 4,
                "graph_width": 96,
                "graph_heads": 2,
                "decoder": (192, 192),
            },
            "small": {},
            "base": {"width": 768, "depth": 12, "heads": 12},
        },
        few=ModelEntry(FewSections, training.FEW, {FEW: {}}, default=FEW),
    ),
    "hist2scrna-lightweight": ModelEntry(
        Hist2scRNALightweight,
        presets={
            "tiny": {"width": 96, "depth": 2, "heads": 4, "decoder": (192, 192)},
            "small": {},
        },
        patch_option=None,
        few=ModelEntry(FewFeatures, training.FEW, {FEW: {}}, default=FEW, patch_option=None),
    ),
    "hist2st": ModelEntry(Hist2ST, training.HIST2ST, {"published": {}}, default="published", patch_option="fig_size"),
    "histogene": ModelEntry(
        HisToGene,
        training.HISTOGENE,
        {"published": {"n_layers": 8}, "small": {}},
        default="published",
        patch_option="patch_size",
    ),
    "stnet": ModelEntry(STNet, training.STNET, {"published": {}}, default="published"),
    "ridge": ModelEntry(Ridge, training.RIDGE, {"default": {}}, default="default", patch_option=None),
}


def _known(kind: str, value: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    if value not in choices:
        near = get_close_matches(value, choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown {kind} {value!r}.{hint} Available: {choices}.")
    return value


def model_entry(name: str, preset: str | None = None) -> ModelEntry:
    """Return the registry's entry of a model and preset.

    Raises
    ------
    ValueError
        If the model or the preset is not known; the nearest known name is given.
    """
    entry = MODELS[_known("model", name, MODELS)]
    if preset is not None:
        _known(f"preset of {name}", preset, [*entry.presets, *([FEW] if entry.few else [])])
    return entry.few if entry.few is not None and preset == FEW else entry


def model_options(name: str, preset: str | None = None, **options: Any) -> dict[str, Any]:
    """Return all options of a model: its defaults, those of the preset, then the given ones.

    Raises
    ------
    ValueError
        If the model, the preset or an option is not known; the nearest known name is given.
    """
    entry = model_entry(name, preset)
    preset = entry.default if preset is None else preset
    parameters = inspect.signature(entry.model).parameters
    allowed = {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    for key in options:
        _known(f"option of {name}", key, allowed)
    defaults = {key: p.default for key, p in allowed.items() if p.default is not p.empty}
    return {**defaults, **entry.presets.get(preset, {}), **options}


def create_model(
    name: str, *, n_genes: int, n_classes: int = 0, preset: str | None = None, **options: Any
) -> SpotModel:
    """Create an untrained model.

    Parameters
    ----------
    name
        `"hist2scrna"`, `"hist2scrna-lightweight"` (needs `n_features=`), `"hist2st"`, `"histogene"`, `"stnet"`, or
        `"ridge"` (needs `n_features=`).
    n_genes
        Number of genes to predict.
    n_classes
        Number of cell types; 0 leaves the cell-type head out.
    preset
        `"tiny"` (for CPU and tests), `"small"` (the default), `"base"` for our own models, and `"few"`: a model of its
        own for few sections, solved instead of trained. See `MODELS` for the others.
    **options
        Any keyword argument of the model's class; these win over the preset.

    Returns
    -------
    The model, a :class:`torch.nn.Module` that maps a `SpotBatch` to a `Prediction`.

    Raises
    ------
    ValueError
        If a name is not known, or a number is out of range.
    """
    if n_genes < 1:
        raise ValueError(f"Expected `n_genes` to be at least 1, found {n_genes}.")
    if n_classes < 0:
        raise ValueError(f"Expected `n_classes` to be 0 or more, found {n_classes}.")
    settings = model_options(name, preset, **options)
    entry = model_entry(name, preset)
    missing = [
        key
        for key, p in inspect.signature(entry.model).parameters.items()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and key not in settings
    ]
    if missing:
        raise ValueError(f"Model {name!r} needs {', '.join(f'`{key}=`' for key in missing)}.")
    return entry.model(n_genes, n_classes, **settings)
