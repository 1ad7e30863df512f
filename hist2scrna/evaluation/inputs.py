"""What is scored: counts, predictions and their provenance, read from AnnData and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.evaluation.predictors import ExpectedLog, Expression, LogExpression, Predictor, Sections
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.metrics.blocks import blocks
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.sections import read_sections

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.trained.model import TrainedModel

LAYERS_OF = {
    "zinb": ("mean", "dropout", "mu", "dispersion"),
    "nb": ("mean", "mu", "dispersion"),
    "poisson": ("mean", "mu"),
    "mse": ("mean",),
}
NEEDED_OF = {"zinb": ("mean", "dropout", "dispersion"), "nb": ("mean", "dispersion")}
LOG = "log_normalized"
FEWEST_SPOTS = 2


@dataclass
class Remarks:
    """What the reader of an evaluation must be told."""

    not_scored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Scored:
    """Spots and genes that are scored.

    Attributes
    ----------
    genes
        Names, in the order of `adata.var_names`.
    kept
        Numbers of the scored spots in `adata`, sorted by section.
    truth, model
        Counts, and what was predicted for them.
    log_normalized_from
        How the prediction was read on the log-normalized scale, in words.
    """

    genes: list[str]
    kept: NDArray[np.int64]
    truth: Expression
    model: Predictor
    log_normalized_from: str

    @property
    def sections(self) -> Sections:
        """Their sections."""
        return self.truth.sections


def layers_to_score(trained: TrainedModel) -> list[str]:
    """Return the layers that a prediction needs so that everything about it can be scored."""
    own = (LOG,) if trained.module.estimates_log and trained.likelihood != "mse" else ()
    return [*LAYERS_OF[trained.likelihood], *own]


def with_predictions(
    adata: AnnData, trained: TrainedModel | None, names: keys.OutputKeys, library_key: str | None, progress: bool
) -> tuple[AnnData, bool]:
    """Return an AnnData that holds predictions, and whether they were made just now.

    Those in `adata` are taken if they are complete, or if there is no model to complete them.

    Raises
    ------
    KeyError
        If there are none, and no model.
    ValueError
        If those in `adata` are of another model.
    """
    written = adata.uns.get(names.parameters, {})
    likelihood = str(written.get("likelihood", "unknown")) if trained is None else trained.likelihood
    needed = [names.layer(name) for name in NEEDED_OF.get(likelihood, ("mean",))]
    if trained is not None and names.modeled in adata.var:
        others = set(adata.var_names[adata.var[names.modeled].to_numpy(dtype=bool)]) - set(trained.genes)
        if others:
            raise ValueError(
                f"adata holds predictions under {names.key!r} for {len(others)} genes that this model does not know, "
                f"such as {sorted(others)[:3]}: another model made them. Leave out model= to score them, or pass key=."
            )
    if all(layer in adata.layers for layer in needed):
        return adata, False
    if trained is None:
        if names.layer("mean") not in adata.layers:
            raise KeyError(
                f"Layer {names.layer('mean')!r} not found in adata.layers. Available layers: {list(adata.layers)}. "
                "Call tl.predict(adata, model) first, or pass model=; for another prefix, pass key=."
            )
        return adata, False
    made = trained.predict(
        adata,
        key_added=names.key,
        layers=layers_to_score(trained),
        copy=True,
        library_size=str(written.get("library_size", "predicted")) if likelihood != "mse" else "predicted",
        library_key=library_key,
        progress=progress,
    )
    return made, True


def read_scored(
    adata: AnnData,
    predicted: AnnData,
    names: keys.OutputKeys,
    layer: str | None,
    library_key: str | None,
    remarks: Remarks,
) -> Scored:
    """Read counts and predictions of the genes that are in both, and of the spots that have counts there.

    Raises
    ------
    KeyError
        If a slot is missing.
    ValueError
        If counts are no counts, predictions are not finite or are negative, or too little is left.
    """
    genes = _genes(adata, predicted, names)
    counts = read_counts(adata, genes, layer)
    section_names, codes = read_sections(adata, library_key)
    usable = np.asarray(counts.sum(axis=1)).ravel() > 0
    if usable.sum() < FEWEST_SPOTS:
        raise ValueError(
            f"Too few spots to score: {int(usable.sum())} of {adata.n_obs} have a count in the {len(genes)} scored "
            f"genes, and {FEWEST_SPOTS} are needed. Look at layer= and at adata.var_names."
        )
    if not usable.all():
        remarks.notes.append(f"{int((~usable).sum())} spots without counts in the scored genes were left out.")
    kept = np.flatnonzero(usable)
    kept = kept[np.argsort(codes[kept], kind="stable")]
    present, local = np.unique(codes[kept], return_inverse=True)
    sections = Sections(tuple(section_names[i] for i in present), local.astype(np.int64))
    truth = Expression(counts[kept], sections)
    model, log_normalized_from = read_model(predicted, names, genes, kept, sections, remarks)
    return Scored(genes, kept, truth, model, log_normalized_from)


def _genes(adata: AnnData, predicted: AnnData, names: keys.OutputKeys) -> list[str]:
    modeled = predicted.var_names
    if names.modeled in predicted.var:
        modeled = modeled[predicted.var[names.modeled].to_numpy(dtype=bool)]
    common = adata.var_names[adata.var_names.isin(modeled)]
    if len(common) == 0:
        raise ValueError(
            f"None of the {len(modeled)} predicted genes is in adata.var_names, which begins with "
            f"{list(adata.var_names[:3])}; predicted are for example {list(modeled[:3])}. Are the identifiers alike?"
        )
    return choose_genes(adata, common)


def read_model(
    predicted: AnnData,
    names: keys.OutputKeys,
    genes: list[str],
    kept: NDArray[np.int64],
    sections: Sections,
    remarks: Remarks,
) -> tuple[Predictor, str]:
    """Return the prediction for some genes and spots, and how it is read on the log-normalized scale.

    Raises
    ------
    ValueError
        If predictions are not finite, or expected counts are negative.
    """
    written = predicted.uns.get(names.parameters, {})
    likelihood = str(written.get("likelihood", "unknown"))
    columns = predicted.var_names.get_indexer(genes).astype(np.int64)
    layers = {
        name: np.asarray(predicted.layers[names.layer(name)])
        for name in (*LAYERS_OF["zinb"], LOG)
        if names.layer(name) in predicted.layers
    }
    log_scale = str(written.get("scale", "counts")) == "log_normalized"
    _check_finite(layers["mean"], kept, columns, names.layer("mean"), negative=log_scale)
    if (log_scale or LOG in layers) and names.modeled in predicted.var:
        if (total := int(predicted.var[names.modeled].sum())) > len(genes):
            remarks.notes.append(
                f"The model normalizes over its {total} genes, the truth is normalized over the {len(genes)} scored."
            )
    if log_scale:
        why = f"the model ({likelihood}) predicts log-normalized expression, no distribution of counts"
        remarks.not_scored.update({"counts, residuals, zeros": why})
        return LogExpression(layers["mean"], kept, columns), f"layer {names.layer('mean')!r}, as predicted"
    missing = [name for name in NEEDED_OF.get(likelihood, ()) if name not in layers]
    if likelihood not in LAYERS_OF:
        remarks.not_scored["count likelihood, zeros"] = (
            f"adata.uns[{names.key!r}]['likelihood'] does not say which distribution was predicted"
        )
    elif missing:
        remarks.not_scored["count likelihood, zeros"] = (
            f"no layer {names.layer(missing[0])!r}; pass model=, or predict with layers={list(LAYERS_OF[likelihood])}"
        )
    known = likelihood in LAYERS_OF and not missing
    model = Expression(
        layers["mean"],
        sections,
        rows=kept,
        columns=columns,
        mu=layers.get("mu"),
        dispersion=layers.get("dispersion") if likelihood in NEEDED_OF else None,
        dropout=layers.get("dropout") if likelihood == "zinb" else None,
        likelihood=likelihood if known else None,
    )
    if LOG in layers:
        _check_finite(layers[LOG], kept, columns, names.layer(LOG), negative=True)
        model.log = LogExpression(layers[LOG], kept, columns)
        return model, f"layer {names.layer(LOG)!r}, as predicted"
    if known:
        model.log = ExpectedLog(model)
        return model, "expectation under the predicted distribution, the total that of its means over the scored genes"
    remarks.notes.append(
        "On the log-normalized scale the predicted means were log-normalized, which lie above what is to be expected "
        "and lose the signal of depth: the distribution or a log-normalized prediction is not there."
    )
    return model, "log-normalized predicted mean"


def _check_finite(
    values: Any, rows: NDArray[np.int64], columns: NDArray[np.int64], layer: str, *, negative: bool
) -> None:
    for part in blocks(len(rows), len(columns)):
        block = values[np.ix_(rows[part], columns)]
        if not np.isfinite(block).all():
            raise ValueError(
                f"adata.layers[{layer!r}] holds NaN or infinite values for modeled genes. Predict these spots again."
            )
        if not negative and (block < 0).any():
            raise ValueError(
                f"adata.layers[{layer!r}] holds negative values, but expected counts are not negative. If it holds "
                "log-normalized expression, say so: adata.uns[key]['scale'] = 'log_normalized'."
            )


def choose_nulls(trained: TrainedModel | None, scored: Scored) -> tuple[Baselines, dict[str, str]]:
    """Return the baselines of the training if they are of the scored genes, else those of the scored spots."""
    if trained is not None and set(trained.genes) == set(scored.genes):
        place = {gene: i for i, gene in enumerate(trained.genes)}
        baselines = trained.baselines.take(np.array([place[gene] for gene in scored.genes]))
        return baselines, {"fitted_on": "training", "statement": "fitted on the training spots of the model."}
    reason = (
        "no model was given"
        if trained is None
        else f"only {len(scored.genes)} of the {len(trained.genes)} genes of the model are here"
    )
    statement = f"fitted on the scored spots themselves, which flatters them ({reason})."
    return Baselines.fit(scored.truth.values), {"fitted_on": "scored spots", "statement": statement}
