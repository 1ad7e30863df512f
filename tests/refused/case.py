"""One refused input: how it comes about, which function is given it, and what it is given from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from anndata import AnnData
from builders import fast

import hist2scrna as h2s

Change = Callable[[AnnData], AnnData | None]
SLOTS = ("obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers")
# Folder of the bench in which cases put the files that they give.
GIVEN = "given"
FEATURES = {"model": "ridge", "features_key": "f", "progress": False}


@dataclass(frozen=True)
class Bench:
    """What the cases share: a maker of sections, two fitted models, and a folder with their files."""

    make: Callable[..., AnnData]
    folder: Path
    network: h2s.TrainedModel
    ridge: h2s.TrainedModel

    def section(self, **how: Any) -> AnnData:
        """A section with features in `.obsm["f"]`."""
        adata = self.make(**how)
        adata.obsm["f"] = np.random.default_rng(0).normal(size=(adata.n_obs, 6)).astype(np.float32)
        return adata


@dataclass(frozen=True)
class Case:
    """An input that is refused.

    `change` makes it of a good section; `arguments` go to the function of that name (of `tl`, `io`, ...); `call`, where
    given, does all of it. `shell`: the command gives the same message, from a file of the changed AnnData and options
    by the names of the arguments.
    """

    by: str
    change: Change = lambda adata: None
    error: type[Exception] = ValueError
    arguments: Mapping[str, Any] = field(default_factory=dict)
    call: Callable[[AnnData, Bench], Any] | None = None
    shell: bool = False
    model: str = "network"

    def run(self, adata: AnnData, bench: Bench) -> Any:
        """Give the input to the function."""
        if self.call is not None:
            return self.call(adata, bench)
        if self.by == "fit":
            return h2s.tl.fit(adata, **self.fit_arguments())
        places = {name: bench.folder / value.name for name, value in self.arguments.items() if isinstance(value, Path)}
        arguments = {**self.arguments, **places}
        model = arguments.pop("model", getattr(bench, self.model))
        if self.by == "predict":
            return h2s.tl.predict(adata, model, **{"progress": False, "accelerator": "cpu", **arguments})
        return h2s.tl.evaluate(adata, model, progress=False, **arguments)

    def fit_arguments(self) -> dict[str, Any]:
        """The arguments of `fit`: of a tiny network, of ridge where features are named."""
        if "features_key" in self.arguments:
            return {**FEATURES, **self.arguments}
        training = self.arguments.get("training", {})
        if isinstance(training, Mapping):
            training = {"max_epochs": 1, "accelerator": "cpu", **training}
        return {**fast(), **self.arguments, "training": training}


def fit(
    change: Change | None = None, error: type[Exception] = ValueError, shell: bool = True, **arguments: Any
) -> Case:
    return Case("fit", change or (lambda adata: None), error, arguments, shell=shell)


def on_features(change: Change, error: type[Exception] = ValueError, shell: bool = True, **arguments: Any) -> Case:
    return Case("fit", change, error, {"features_key": "f", **arguments}, shell=shell)


def predict(
    change: Change | None = None,
    error: type[Exception] = ValueError,
    shell: bool = False,
    by_model: str = "network",
    **arguments: Any,
) -> Case:
    return Case("predict", change or (lambda adata: None), error, arguments, shell=shell, model=by_model)


def evaluate(change: Change, error: type[Exception] = ValueError, **arguments: Any) -> Case:
    return Case("evaluate", change, error, arguments)


def other(by: str, call: Callable[[AnnData, Bench], Any], error: type[Exception] = ValueError) -> Case:
    return Case(by, error=error, call=call)


def counts_of(function: Callable[[np.ndarray], Any]) -> Change:
    """A change of `.X`, which is dense."""

    def change(adata: AnnData) -> None:
        adata.X = function(adata.X.toarray())

    return change


def one_count(value: Any, dtype: type = np.float64) -> Change:
    """A change of one count."""

    def put(counts: np.ndarray) -> np.ndarray:
        counts = counts.astype(dtype)
        counts[3, 2] = value
        return counts

    return counts_of(put)


def slot(name: str, key: str, value: Any) -> Change:
    """A change of an entry of a slot; a function is called with what was there, `...` removes it."""

    def change(adata: AnnData) -> None:
        holder = getattr(adata, name)
        if value is ...:
            del holder[key]
        else:
            holder[key] = value(holder[key]) if callable(value) else value

    return change


def section_entry(*path: str, value: Any) -> Change:
    """A change of the entry of the section in `.uns["spatial"]`; a function is called with what was there."""

    def change(adata: AnnData) -> None:
        holder = adata.uns["spatial"]["s0"]
        for key in path[:-1]:
            holder = holder[key]
        if value is ...:
            del holder[path[-1]]
        else:
            holder[path[-1]] = value(holder[path[-1]]) if callable(value) else value

    return change


def state(adata: AnnData) -> str:
    """A digest of all that an AnnData holds."""
    slots = {name: dict(getattr(adata, name)) for name in SLOTS if name not in ("obs", "var")}
    raw = None if adata.raw is None else adata.raw.X
    return str(joblib.hash([adata.X, raw, adata.obs, adata.var, slots]))


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for those in `given/`, which cases make themselves."""
    there = (
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.relative_to(folder).parts[0] != GIVEN
    )
    return {str(path): path.read_bytes() for path in there}
