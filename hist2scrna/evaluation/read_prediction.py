"""The prediction that is scored, read from AnnData; made first if a model is given and parts of it are missing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.encoders.weights import state_sha256
from hist2scrna.evaluation.notes import Notes
from hist2scrna.evaluation.predictors import (
    ExpectedLog,
    Expression,
    LogExpression,
    Predictor,
    Sections,
    WithLogNormalized,
)
from hist2scrna.messages import listed, require_key
from hist2scrna.metrics.blocks import blocks
from hist2scrna.spots.gene_names import locate_genes
from hist2scrna.trained.layers import default_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.trained.model import TrainedModel

log = logging.getLogger(__name__)

LAYERS_OF = {
    "zinb": ("mean", "dropout", "mu", "dispersion"),
    "nb": ("mean", "mu", "dispersion"),
    "poisson": ("mean", "mu"),
    "mse": ("mean",),
}
NEEDED_OF = {"zinb": ("mean", "dropout", "dispersion"), "nb": ("mean", "dispersion")}
LOG, SPARSE_BELOW = "log_normalized", "sparse_below"


@dataclass(frozen=True)
class Where:
    """Which part of the predictions is scored.

    Attributes
    ----------
    genes
        Names of the scored genes.
    rows
        Numbers of the scored spots.
    sections
        Their sections.
    """

    genes: list[str]
    rows: NDArray[np.int64]
    sections: Sections


def layers_to_score(trained: TrainedModel) -> list[str]:
    """Return the layers that a prediction needs so that everything about it can be scored."""
    module = trained.module
    logs = module.target == "log_counts" if trained.likelihood == "mse" else module.estimates_log
    return [*LAYERS_OF[trained.likelihood], *((LOG,) if logs else ())]


def with_predictions(
    adata: AnnData,
    trained: TrainedModel | None,
    called: Sequence[str],
    names: keys.OutputKeys,
    library_key: str | None,
    nuclei: Any,
    progress: bool,
) -> tuple[AnnData, bool]:
    """Return an AnnData that holds predictions, and whether they were made just now.

    `called` is what the genes of the model are called here. The predictions in `adata` are taken if they are complete,
    or if there is no model to complete them.

    Raises
    ------
    KeyError
        If there are none, and no model.
    ValueError
        If those in `adata` are of another model.
    """
    parameters = adata.uns.get(names.parameters, {})
    likelihood = str(parameters.get("likelihood", "unknown")) if trained is None else trained.likelihood
    needed = NEEDED_OF.get(likelihood, ("mean",))
    thinned = names.layer("mean") in adata.layers and SPARSE_BELOW in parameters
    missing = [name for name in needed if _slot(adata, names, name) is None or (thinned and trained is not None)]
    if trained is not None and names.modeled in adata.var:
        others = set(adata.var_names[adata.var[names.modeled].to_numpy(dtype=bool)]) - set(called)
        if others:
            raise ValueError(
                f"adata holds predictions under {names.key!r} for {len(others)} genes that this model does not know, "
                f"such as {sorted(others)[:3]}: another model made them. Leave out model= to score them, or pass key=."
            )
    made_by = parameters.get("model_sha256")
    if trained is not None and made_by is not None and made_by != state_sha256(trained.module.state_dict()):
        raise ValueError(
            f"adata holds predictions under {names.key!r} that another model made, a {parameters.get('model')!r} "
            f"trained on {listed([str(s) for s in parameters.get('trained_on', [])])}. Leave out model= to score "
            "these, or predict with this one under another key_added=, and pass that as key=."
        )
    if not missing:
        return adata, False
    if trained is None:
        hint = "Call tl.predict(adata, model) first, or pass model=; for another prefix, pass key=."
        require_key(adata.layers, names.layer("mean"), "adata.layers", hint)
        return adata, False
    if thinned:
        log.info(
            "Means below %g were stored as zeros, under which no count is possible: all %d spots are predicted again",
            parameters[SPARSE_BELOW],
            adata.n_obs,
        )
    elif names.layer("mean") in adata.layers:
        log.info(
            "adata has no layer %s, which the scores of counts need: all %d spots are predicted again. To spare this, "
            "keep it: tl.predict(adata, model, layers=%s)",
            ", ".join(repr(names.layer(name)) for name in missing),
            adata.n_obs,
            list(dict.fromkeys([*default_layers(trained), *missing])),
        )
    else:
        log.info("adata has no layer %r: all %d spots are predicted first", names.layer("mean"), adata.n_obs)
    predicted = trained.predict(
        adata,
        key_added=names.key,
        layers=layers_to_score(trained),
        copy=True,
        library_size=str(parameters.get("library_size", "predicted")) if likelihood != "mse" else "predicted",
        library_key=library_key,
        nuclei=nuclei,
        progress=progress,
    )
    return predicted, True


def names_here(adata: AnnData, trained: TrainedModel) -> list[str]:
    """Return what the genes of a model are called in `.var_names`; those that are not there keep their names."""
    places = locate_genes(adata, trained.genes)
    return [gene if at < 0 else str(adata.var_names[at]) for gene, at in zip(trained.genes, places, strict=True)]


def predicted_spots(predicted: AnnData, names: keys.OutputKeys) -> NDArray[np.bool_]:
    """Return which rows were predicted: those that were left out have NaN in every gene."""
    mean = predicted.layers[names.layer("mean")]
    modeled = np.arange(predicted.n_vars)
    if names.modeled in predicted.var:
        modeled = np.flatnonzero(predicted.var[names.modeled].to_numpy(dtype=bool))
    here = np.ones(predicted.n_obs, dtype=bool)
    for part in blocks(predicted.n_obs, len(modeled)):
        here[part] = ~np.isnan(_in_memory(mean[part])[:, modeled]).all(axis=1)
    return here


def _in_memory(layer: Any) -> NDArray[Any]:
    """Return rows of a layer, which may be sparse, or in a store, as a dense array."""
    computed = layer.compute() if hasattr(layer, "compute") else layer
    return np.asarray(computed.toarray() if hasattr(computed, "toarray") else computed)


def _slot(adata: AnnData, names: keys.OutputKeys, name: str) -> NDArray[np.float32] | None:
    """Return what a layer holds, or, of a dispersion by gene, what its column of `.var` says of every spot."""
    if name == "dispersion" and names.dispersion in adata.var:
        return np.broadcast_to(adata.var[names.dispersion].to_numpy(), adata.shape)
    return _in_memory(adata.layers[names.layer(name)]) if names.layer(name) in adata.layers else None


def read_prediction(predicted: AnnData, names: keys.OutputKeys, where: Where, notes: Notes) -> tuple[Predictor, str]:
    """Return the prediction for some genes and spots, and where its log-normalized expression comes from, in words.

    Raises
    ------
    ValueError
        If predictions are not finite, or expected counts are negative.
    """
    parameters = predicted.uns.get(names.parameters, {})
    likelihood = str(parameters.get("likelihood", "unknown"))
    columns = predicted.var_names.get_indexer(where.genes).astype(np.int64)
    found = {name: _slot(predicted, names, name) for name in (*LAYERS_OF["zinb"], LOG)}
    layers = {name: values for name, values in found.items() if values is not None}
    another = [str(name) for name in parameters.get("another_donor", ())]
    if another:
        notes.remarks.append(
            f"Predicted as tissue of another donor than those of the training: {listed(another)}. Intervals allow for "
            "a sequencing depth that no picture tells."
        )
    is_log = str(parameters.get("scale", "counts")) == "log_normalized"
    _check_finite(layers["mean"], where.rows, columns, names.layer("mean"), negative=is_log)
    if (is_log or LOG in layers) and names.modeled in predicted.var:
        if (total := int(predicted.var[names.modeled].sum())) > len(where.genes):
            notes.remarks.append(
                f"The model normalizes over its {total} genes, but the truth is normalized over the "
                f"{len(where.genes)} scored genes."
            )
    if is_log:
        notes.not_scored["counts, residuals, zeros"] = (
            f"the model ({likelihood}) predicts log-normalized expression, not a distribution of counts"
        )
        return LogExpression(layers["mean"], where.rows, columns), f"layer {names.layer('mean')!r}, as predicted"
    below = parameters.get(SPARSE_BELOW)
    if below is not None:
        notes.not_scored["count likelihood, zeros"] = (
            f"means below {below:g} were stored as zeros, under which no count is possible; pass model=, or predict "
            "without sparse_below="
        )
    likelihood_scored = below is None and _has_distribution(names, likelihood, layers, notes)
    counts = Expression(
        layers["mean"],
        where.sections,
        rows=where.rows,
        columns=columns,
        mu=layers.get("mu"),
        dispersion=layers.get("dispersion") if likelihood in NEEDED_OF else None,
        dropout=layers.get("dropout") if likelihood == "zinb" else None,
        likelihood=likelihood if likelihood_scored else None,
    )
    if LOG in layers:
        _check_finite(layers[LOG], where.rows, columns, names.layer(LOG), negative=True)
        estimated = LogExpression(layers[LOG], where.rows, columns)
        return WithLogNormalized(counts, estimated), f"layer {names.layer(LOG)!r}, as predicted"
    if likelihood_scored:
        source = "expectation under the predicted distribution, scaled by the sum of its means over the scored genes"
        return WithLogNormalized(counts, ExpectedLog(counts)), source
    notes.remarks.append(
        "On the log-normalized scale the predicted means themselves were log-normalized, because neither a "
        "distribution nor a log-normalized prediction is available. The result lies above the expectation and loses "
        "the signal of sequencing depth."
    )
    return counts, "log-normalized predicted mean"


def _has_distribution(names: keys.OutputKeys, likelihood: str, layers: Mapping[str, Any], notes: Notes) -> bool:
    """Return whether all of a distribution of counts was predicted; if not, note why it is not scored."""
    missing = [name for name in NEEDED_OF.get(likelihood, ()) if name not in layers]
    if likelihood == "mse":
        notes.not_scored["count likelihood, zeros"] = (
            "the model (mse) predicts expression, not a distribution of counts"
        )
        return False
    if likelihood not in LAYERS_OF:
        notes.not_scored["count likelihood, zeros"] = (
            f"adata.uns[{names.key!r}]['likelihood'] does not say which distribution was predicted"
        )
    elif missing:
        notes.not_scored["count likelihood, zeros"] = (
            f"no layer {names.layer(missing[0])!r}; pass model=, or predict with layers={list(LAYERS_OF[likelihood])}"
        )
    return likelihood in LAYERS_OF and not missing


def _check_finite(
    values: Any, rows: NDArray[np.int64], columns: NDArray[np.int64], layer: str, *, negative: bool
) -> None:
    for part in blocks(len(rows), len(columns)):
        block = values[np.ix_(rows[part], columns)]
        if not np.isfinite(block).all():
            raise ValueError(
                f"adata.layers[{layer!r}] holds NaN or infinite values for modeled genes. Predict these spots again; "
                "leave out cells without a nucleus, which are not predicted."
            )
        if not negative and (block < 0).any():
            raise ValueError(
                f"adata.layers[{layer!r}] holds negative values, but expected counts are not negative. If it holds "
                "log-normalized expression, say so: adata.uns[key]['scale'] = 'log_normalized'."
            )


def read_true_means(adata: AnnData, where: Where) -> Predictor | None:
    """Return the true means of a simulation, with their distribution if it is there; None where there are none."""
    if keys.TRUE_MEAN not in adata.layers:
        return None
    columns = adata.var_names.get_indexer(where.genes).astype(np.int64)
    others = {"mu": keys.TRUE_MU, "dispersion": keys.TRUE_DISPERSION, "dropout": keys.TRUE_DROPOUT}
    known = all(layer in adata.layers for layer in others.values())
    parameters: dict[str, Any] = {name: np.asarray(adata.layers[layer]) for name, layer in others.items() if known}
    counts = Expression(
        np.asarray(adata.layers[keys.TRUE_MEAN]), where.sections, rows=where.rows, columns=columns, **parameters
    )
    return WithLogNormalized(counts, ExpectedLog(counts)) if known else counts
