"""Score predictions against counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hist2scrna import keys
from hist2scrna.evaluation.evaluate import evaluate as evaluate_predictions
from hist2scrna.messages import arguments_known

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from hist2scrna.evaluation.result import Evaluation
    from hist2scrna.trained.model import TrainedModel


@arguments_known
def evaluate(
    adata: AnnData,
    model: TrainedModel | str | Path | None = None,
    *,
    key: str = keys.KEY_ADDED,
    layer: str | None = None,
    labels_key: str | None = None,
    library_key: str | None = None,
    nuclei: Any = None,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Score a prediction against counts, next to the baselines and the noise ceiling. `adata` is not changed.

    Expression is compared on three scales: counts; log(1 + 1e4 x / total over the scored genes), which the headline
    uses; and analytic Pearson residuals, which do not depend on sequencing depth. For the residuals, predicted means
    are transformed as the counts are, with their own totals; for log-normalized expression see Notes. Scores of genes
    are computed over the spots of a section, then averaged over genes, then over sections.

    Parameters
    ----------
    adata
        Annotated data with counts in `.X` or `layer`, and predictions as :func:`hist2scrna.tl.predict` writes them; or
        with what `model` needs to predict.
    model
        The model that predicted, or its folder. It provides the baselines of its training data, tells whether it has
        seen these spots, and predicts, on a copy, if predictions or parts of their distribution are missing, which a
        line of the log says. None: the baselines are fitted on the scored spots themselves.
    key
        Prefix of the predictions, `key_added` of `predict`. Only genes marked in `.var["{key}_modeled"]` are scored.
    layer
        Layer with raw counts; None: `.X`.
    labels_key
        Column of `.obs` with true cell types; None: cell types are not scored. Spots without a label (NaN) are left
        out. Leiden clusters are compared with these labels, too.
    library_key
        Column of `.obs` with the section of each spot. None: `"library_id"` if it is there and names libraries of
        `.uns["spatial"]`, else one section.
    nuclei
        For models on tiles, where the nuclei are, as in :func:`hist2scrna.tl.predict`; read where `model` predicts.
    seed
        Seed of binomial thinning, of the randomized probability integral transform, and of the draws of spots for
        scores that do not use all spots of a large table.
    progress
        Show progress bars.

    Returns
    -------
    :class:`~hist2scrna.evaluation.Evaluation`.

    Raises
    ------
    KeyError
        If a key is missing, or there is neither a prediction nor a model.
    ValueError
        If counts are negative or not whole, predictions are not finite, no gene or spot is left to score, or a label is
        not among the classes of the model: rename it, or set it to NaN so that its spots are left out.

    Warns
    -----
    UserWarning
        If the model was fitted on these spots, or on other spots of these sections.

    Notes
    -----
    The expectation of log(1 + 1e4 x / total) is not the logarithm of the expected count, which lies higher (Jensen).
    Most measured counts are zero or small, and the logarithm of the mean makes deep and shallow spots look alike where
    the measured ones do not. On the log-normalized scale, a prediction is therefore taken from the first of these that
    is available, which `results["log_normalized_from"]` tells:

    1. layer `"{key}_log_normalized"`, which `predict` writes by default;
    2. the expectation under the predicted distribution, scaled by the sum of the predicted means over the scored genes
       (it needs the layers of the distribution, which `model` predicts if they are missing);
    3. the log-normalized mean. Its errors are not comparable with those of other models; its correlations only with
       those of other log-normalized means.

    For simulated data, the true means are read in the same way, from the true distribution if its layers are there.

    Examples
    --------
    >>> evaluation = h2s.tl.evaluate(test, model, labels_key="cell_type", progress=False)
    >>> sorted(evaluation.headline)[:3]
    ['beats_depth_baseline', 'beats_mean_baseline', 'collapsed']
    >>> list(evaluation.genes.columns[:4])
    ['level', 'truth_mean', 'pearson', 'spearman']
    """
    return evaluate_predictions(
        adata,
        model,
        key=key,
        layer=layer,
        labels_key=labels_key,
        library_key=library_key,
        nuclei=nuclei,
        seed=seed,
        progress=progress,
    )
