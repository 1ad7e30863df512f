"""A model from its name: what it has of options and of arguments of `fit`, and how one is created."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hist2scrna.messages import require_known
from hist2scrna.models.option_values import check_option
from hist2scrna.models.registry import OPTIONAL_ARGUMENTS, OUR_MODELS, model_entry, model_names, refuse_of_others
from hist2scrna.models.training import FIELDS

if TYPE_CHECKING:
    from hist2scrna.models.contract import SpotModel


def check_uses(name: str, words: Sequence[str]) -> None:
    """Refuse fields of `Training`, or optional arguments of `fit`, that the fitter of a model does not read.

    Raises
    ------
    ValueError
        If it does not read one; the models that do are named.
    """
    entry = model_entry(name)
    uses = {other: model_entry(other).uses for other in model_names()}
    for word in words:
        if word not in entry.uses:
            what = "has no" if word in OPTIONAL_ARGUMENTS else "is fitted without the training argument"
            refuse_of_others(f"Model {name!r} {what}", word, uses)
            raise ValueError(f"Model {name!r} {what} `{word}`, and no other model has it.")


def model_options(name: str, preset: str | None = None, **options: Any) -> dict[str, Any]:
    """Return all options of a model: its defaults, those of the preset, then the given ones.

    Raises
    ------
    ValueError
        If the model, the preset or an option is not known; models that have the option, or the nearest known name,
        are given.

    Examples
    --------
    >>> h2s.models.model_options("ridge")
    {'n_components': 256, 'penalty': None}
    """
    entry = model_entry(name, preset)
    allowed = entry.options
    for key in options:
        if key in allowed:
            if name in OUR_MODELS:
                check_option(key, options[key], allowed[key])
            continue
        if key in FIELDS:
            check_uses(name, [key])
            raise ValueError(
                f"`{key}` says how to train, not what: pass it as training=hist2scrna.Training({key}=...) or as "
                f"training={{{key!r}: ...}}."
            )
        refuse_of_others(f"Model {name!r} has no option", key, {n: model_entry(n).options for n in model_names()})
        require_known(f"option of {name}", key, allowed)
    defaults = {key: p.default for key, p in allowed.items() if p.default is not p.empty}
    return {**defaults, **entry.presets[entry.default if preset is None else preset], **options}


def create_model(
    name: str, *, n_genes: int, n_classes: int = 0, preset: str | None = None, **options: Any
) -> SpotModel:
    """Create a model that is not fitted yet.

    Parameters
    ----------
    name
        `"hist2scrna"`, `"hist2st"`, `"histogene"`, `"stnet"`, `"transformerst"` or `"ghist"`;
        `"hist2scrna-lightweight"`, `"kernel"`, `"ridge"` or `"hist2rna"`, which need `n_features=`; or a name that was
        registered.
    n_genes
        Number of genes to predict.
    n_classes
        Number of cell types; 0 leaves the cell-type head out.
    preset
        Size: `"tiny"` (for CPU and tests), `"small"` (the default), `"base"` for our networks; the others have their
        own.
    **options
        Any keyword argument of the model's class; these win over the preset.

    Returns
    -------
    The model, a :class:`torch.nn.Module` that maps a `SpotBatch` to a `Prediction`.

    Raises
    ------
    ValueError
        If a name is not known, or a number is out of range.

    Examples
    --------
    >>> module = h2s.models.create_model("ridge", n_genes=20, n_features=104)
    >>> module.needs
    'features'
    """
    if n_genes < 1:
        raise ValueError(f"Expected `n_genes` to be at least 1, found {n_genes}.")
    if n_classes < 0:
        raise ValueError(f"Expected `n_classes` to be 0 or more, found {n_classes}.")
    options = model_options(name, preset, **options)
    entry = model_entry(name)
    missing = [f"`{key}=`" for key in entry.options if key not in options]
    if missing:
        raise ValueError(f"Model {name!r} needs {', '.join(missing)}.")
    return entry.model(n_genes, n_classes, **options)
