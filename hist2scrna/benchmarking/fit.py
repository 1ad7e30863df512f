"""The arguments of `fit` as a mapping, as a model has them in a benchmark: checked, and fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hist2scrna.messages import require_known
from hist2scrna.models.choose import AUTO
from hist2scrna.models.create import model_options
from hist2scrna.models.registry import model_entry, model_names
from hist2scrna.models.training import as_training
from hist2scrna.trained.fit import fit_model
from hist2scrna.trained.plan import FIT_ARGUMENTS, request_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from hist2scrna.trained.model import TrainedModel


def check_options(label: str, options: Mapping[str, Any]) -> None:
    """Refuse a model, preset, option or field of `training` that is not known.

    Raises
    ------
    ValueError
        If one is not known; the nearest known name is given.
    """
    if "model" not in options:
        raise ValueError(f"Model {label!r} does not say which: expected 'model' among its options {list(options)}.")
    as_training(options.get("training"))
    of_model = {name: value for name, value in options.items() if name not in FIT_ARGUMENTS}
    if options["model"] == AUTO:
        for name in of_model:
            require_known("option", name, {key for model in model_names() for key in model_entry(model).options})
        return
    model_options(options["model"], options.get("preset"), **of_model)


def defining_module(model: str) -> str | None:
    """Return the module that registers a model, for a process that does not know it yet; None for `"auto"`."""
    return None if model == AUTO else model_entry(model).model.__module__


def fit(adata: AnnData, **arguments: Any) -> TrainedModel:
    """Fit as :func:`hist2scrna.tl.fit` does."""
    return fit_model(adata, request_of(arguments))
