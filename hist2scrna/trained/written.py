"""What `.uns` tells of a prediction."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hist2scrna
from hist2scrna.encoders.weights import state_sha256

if TYPE_CHECKING:
    from hist2scrna.spots.read import Spots
    from hist2scrna.trained.fitted import FittedModel
    from hist2scrna.trained.layer_form import LayerForm


def written_parameters(model: FittedModel, library_size: str, spots: Spots, form: LayerForm) -> dict[str, Any]:
    """Return the model, what it read, and how, as values that h5ad and zarr can hold."""
    on_logs = model.likelihood == "mse"
    target = model.module.target
    return {
        "model": model.name,
        "preset": model.preset,
        "model_sha256": state_sha256(model.module.state_dict()),
        "choice": model.choice or None,
        "version": hist2scrna.__version__,
        "likelihood": model.likelihood,
        "scale": "log_normalized" if on_logs and target == "log_normalized" else "counts",
        "target": target if on_logs else None,
        "observation": "slide" if spots.are_slides else "spot",
        "library_size": "none" if on_logs else library_size,
        "sparse_below": form.sparse_below,
        "median_library_size": float(model.baselines.median_library),
        "options": model.options,
        "geometry": None if model.geometry is None else asdict(model.geometry),
        "encoder": model.encoder,
        "graph": list(spots.graph.origin),
        "nuclei": None if spots.tiles is None else list(spots.tiles.origin),
        "another_donor": _sections_of_another(spots),
        "trained_on": model.training["sections"],
        "variance_explained": model.training.get("variance_explained"),
        "params": model.parameters,
    }


def _sections_of_another(spots: Spots) -> list[str]:
    if spots.donor is None:
        return []
    return [spots.sections[code] for code in np.unique(spots.section[spots.donor < 0])]


def writable(value: Any) -> Any:
    """Return parameters in the form that AnnData can write: no None, tuple, path or list of numbers and words mixed."""
    if isinstance(value, dict):
        return {str(k): writable(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return np.array([str(v) for v in value]) if any(isinstance(v, str) for v in value) else np.array(value)
    if isinstance(value, Path):
        return str(value)
    return value
