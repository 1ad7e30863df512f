"""All that an evaluation scores, read from AnnData at once: nothing after this module knows AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.evaluation.held_out import TrainingOverlap
from hist2scrna.evaluation.notes import Notes
from hist2scrna.evaluation.predictors import Expression, Sections
from hist2scrna.evaluation.read_prediction import (
    Where,
    names_here,
    predicted_spots,
    read_prediction,
    read_true_means,
    with_predictions,
)
from hist2scrna.evaluation.read_tissue import (
    read_cell_types,
    read_label_codes,
    read_maps,
    read_neighbors,
)
from hist2scrna.messages import require_key
from hist2scrna.metrics.baselines import Baselines
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.gene_names import hint_of_names
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.slides import one_section_a_slide, pooled, slides_together
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.evaluation.predictors import Predictor
    from hist2scrna.evaluation.read_tissue import SectionMap, SpotGraph
    from hist2scrna.metrics.labels import LabeledSpots
    from hist2scrna.spots.sections import OpenedSections
    from hist2scrna.trained.model import TrainedModel

FEWEST_SPOTS = 2


@dataclass(frozen=True)
class ScoredData:
    """What is scored, in arrays.

    Attributes
    ----------
    genes
        Names of the scored genes, in the order of `adata.var_names`.
    truth, model
        Counts, and what was predicted for them.
    true_means
        The means that a simulation drew the counts from; None for measured data.
    log_normalized_from
        Where the prediction on the log-normalized scale comes from, in words.
    baselines, baselines_from
        The baselines of the scored genes, and what they were fitted on.
    overlap
        Which of the spots and sections were trained on.
    labels
        `(scored spots,)` number of the true cell type, -1 where there is none; None: no labels.
    cell_types
        True and predicted cell types of the labeled spots; None: not scored.
    neighbors
        Neighbors of the scored spots; None: not known.
    maps
        Where the spots of the first sections lie, with a small image.
    about_model, about_data
        Entries `"model"` and `"data"` of the results.
    notes
        What the reader must know.
    """

    genes: list[str]
    truth: Expression
    model: Predictor
    true_means: Predictor | None
    log_normalized_from: str
    baselines: Baselines
    baselines_from: dict[str, str]
    overlap: TrainingOverlap
    labels: NDArray[np.int64] | None
    cell_types: LabeledSpots | None
    neighbors: SpotGraph | None
    maps: list[SectionMap]
    about_model: dict[str, Any]
    about_data: dict[str, Any]
    notes: Notes


def read_scored_data(
    adata: AnnData,
    trained: TrainedModel | None,
    *,
    key: str,
    layer: str | None,
    labels_key: str | None,
    library_key: str | None,
    nuclei: Any,
    seed: int,
    progress: bool,
) -> ScoredData:
    """Read counts and predictions of the genes that are in both, with all that is known of their spots.

    Arguments are those of :func:`hist2scrna.tl.evaluate`.

    Raises
    ------
    KeyError
        If a key is missing, or there is neither prediction nor model.
    ValueError
        If counts are no counts, predictions are not finite or are negative, or too little is left.
    """
    names, notes = keys.OutputKeys(key), Notes()
    opened = open_sections(adata, Source(library_key=library_key))
    observation = _observation(adata, trained, names)
    if observation == "slide":
        opened = slides_together(opened if opened.source.library_key else one_section_a_slide(opened))
    library_key = opened.source.library_key
    if labels_key is not None:
        require_key(adata.obs, labels_key, "adata.obs")
    called = [] if trained is None else names_here(adata, trained)
    if trained is not None:
        _check_before(adata, trained, called, names, layer, labels_key)
    predicted, made_now = with_predictions(adata, trained, called, names, library_key, nuclei, progress)
    label_codes = read_label_codes(adata, labels_key, trained, predicted, names)
    whole = predicted.uns.get(names.parameters, {}).get("target") != "log_counts"
    genes = _common_genes(adata, predicted, names)
    here = predicted_spots(predicted, names)
    truth, where = _read_truth(adata, genes, layer, opened, here, notes, whole=whole)
    model, log_normalized_from = read_prediction(predicted, names, where, notes)
    baselines, baselines_from = choose_baselines(trained, called, truth, where.genes)
    parameters = predicted.uns.get(names.parameters, {})
    return ScoredData(
        genes=where.genes,
        truth=truth,
        model=model,
        true_means=read_true_means(adata, where),
        log_normalized_from=log_normalized_from,
        baselines=baselines,
        baselines_from=baselines_from,
        overlap=_read_overlap(adata, trained, called, names, layer, opened, where, whole=whole),
        labels=None if label_codes is None else label_codes[where.rows],
        cell_types=read_cell_types(adata, predicted, names, labels_key, notes),
        neighbors=read_neighbors(adata, where, notes),
        maps=read_maps(adata, opened, where, seed),
        about_model={
            "name": str(parameters.get("model", key)),
            "preset": str(parameters.get("preset", "unknown")),
            "likelihood": str(parameters.get("likelihood", "unknown")),
            "library_size": str(parameters.get("library_size", "unknown")),
            "key": key,
            "predicted_by_evaluate": made_now,
            "variance_explained": parameters.get("variance_explained"),
        },
        about_data={
            "observation": observation,
            "n_spots": len(where.rows),
            "n_spots_left_out": adata.n_obs - len(where.rows),
            "n_genes": len(where.genes),
            "layer": "X" if layer is None else layer,
            "library_key": library_key,
            "seed": seed,
        },
        notes=notes,
    )


def _check_before(
    adata: AnnData,
    trained: TrainedModel,
    called: list[str],
    names: keys.OutputKeys,
    layer: str | None,
    labels_key: str | None,
) -> None:
    """Refuse counts and labels that cannot be scored, before anything is predicted for them."""
    counted = [gene for gene in called if gene in adata.var_names]
    if not counted:
        raise _no_common_gene(adata, called)
    read_counts(adata, counted, layer, whole=trained.module.target != "log_counts")
    if trained.classes:
        read_label_codes(adata, labels_key, trained, adata, names)


def _observation(adata: AnnData, trained: TrainedModel | None, names: keys.OutputKeys) -> str:
    """Return what a row is, `"slide"` or `"spot"`: as the data, the prediction or the model say."""
    predicted_for = adata.uns.get(names.parameters, {}).get("observation", "spot")
    model_reads = "spot" if trained is None else trained.module.observation
    return "slide" if pooled(adata) or "slide" in (predicted_for, model_reads) else "spot"


def _read_truth(
    adata: AnnData,
    genes: list[str],
    layer: str | None,
    opened: OpenedSections,
    here: NDArray[np.bool_],
    notes: Notes,
    *,
    whole: bool,
) -> tuple[Expression, Where]:
    """Return the counts of the predicted spots that have any, sorted by section, and which spots these are."""
    counts = read_counts(adata, genes, layer, whole=whole)
    if not here.all():
        notes.remarks.append(f"{int((~here).sum())} rows that `predict` left out are not scored.")
    has_counts = (np.asarray(counts.sum(axis=1)).ravel() > 0) | ~here
    n_scored = int((has_counts & here).sum())
    if n_scored < FEWEST_SPOTS:
        raise ValueError(
            f"Too few spots to score: {n_scored} of {adata.n_obs} have a count in the {len(genes)} scored genes, and "
            f"{FEWEST_SPOTS} are needed. Look at layer= and at adata.var_names."
        )
    if not has_counts.all():
        notes.remarks.append(f"{int((~has_counts).sum())} spots without counts in the scored genes were left out.")
    rows = np.flatnonzero(has_counts & here)
    rows = rows[np.argsort(opened.codes[rows], kind="stable")]
    present, codes = np.unique(opened.codes[rows], return_inverse=True)
    sections = Sections(tuple(opened.names[i] for i in present), codes.astype(np.int64))
    return Expression(counts[rows], sections), Where(genes, rows, sections)


def _common_genes(adata: AnnData, predicted: AnnData, names: keys.OutputKeys) -> list[str]:
    """Return the genes that are predicted and counted."""
    modeled = predicted.var_names
    if names.modeled in predicted.var:
        modeled = modeled[predicted.var[names.modeled].to_numpy(dtype=bool)]
    common = adata.var_names[adata.var_names.isin(modeled)]
    if len(modeled) == 0:
        raise ValueError(
            f"adata.var[{names.modeled!r}] marks no gene as predicted. Predict again: tl.predict(adata, model)."
        )
    if len(common) == 0:
        raise _no_common_gene(adata, list(modeled))
    return choose_genes(adata, common)


def _no_common_gene(adata: AnnData, modeled: Sequence[str]) -> ValueError:
    if adata.n_vars == 0:
        return ValueError(
            "adata has no genes, so there is nothing to score a prediction against. evaluate needs measured counts, in "
            "adata.X or a layer."
        )
    return ValueError(
        f"None of the {len(modeled)} predicted genes is in adata.var_names, which begins with "
        f"{list(adata.var_names[:3])}; predicted are for example {list(modeled[:3])}.{hint_of_names(adata, modeled)}"
    )


def _read_overlap(
    adata: AnnData,
    trained: TrainedModel | None,
    called: list[str],
    names: keys.OutputKeys,
    layer: str | None,
    opened: OpenedSections,
    where: Where,
    *,
    whole: bool,
) -> TrainingOverlap:
    """Return which of the scored spots were trained on, by their counts, and which sections, by their names."""
    # Without a name of its own a section is called as any other.
    have_names = opened.source.library_key is not None or len(adata.uns.get(keys.SPATIAL, {})) > 0
    if trained is None:
        trained_on = [str(s) for s in adata.uns.get(names.parameters, {}).get("trained_on", [])]
        return TrainingOverlap(trained_on, have_names, None, "no model was given")
    trained_on = [str(s) for s in trained.training["sections"]]
    if not set(called) <= set(adata.var_names):
        return TrainingOverlap(trained_on, have_names, None, "genes of the model are missing here")
    seen = trained.has_seen(read_counts(adata, called, layer, whole=whole))[where.rows]
    return TrainingOverlap(trained_on, have_names, seen)


def choose_baselines(
    trained: TrainedModel | None, called: list[str], truth: Expression, genes: list[str]
) -> tuple[Baselines, dict[str, str]]:
    """Return the baselines of the training if they are of the scored genes, else those of the scored spots."""
    if trained is not None and set(called) == set(genes):
        place = {gene: i for i, gene in enumerate(called)}
        baselines = trained.baselines.take(np.array([place[gene] for gene in genes]))
        return baselines, {"fitted_on": "training", "statement": "fitted on the training spots of the model."}
    reason = (
        "no model was given"
        if trained is None
        else f"only {len(genes)} of the {len(trained.genes)} genes of the model are here"
    )
    statement = f"fitted on the scored spots themselves, which flatters them ({reason})."
    return Baselines.fit(truth.values), {"fitted_on": "scored spots", "statement": statement}
