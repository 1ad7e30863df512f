"""Measured and predicted expression side by side, on the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.evaluation.notes import Notes
from hist2scrna.evaluation.predictors import HEADLINE, Sections
from hist2scrna.evaluation.read_prediction import Where, read_prediction
from hist2scrna.messages import require_key
from hist2scrna.metrics.correlation import pearson_by_gene
from hist2scrna.metrics.scales import log_normalize
from hist2scrna.pl._figure import Size, figure_size, finish
from hist2scrna.pl._section import find_section
from hist2scrna.pl._tissue import DIVERGING, UNIT, color_bar, draw_spots, even_limits, limits
from hist2scrna.spots.counts import read_counts
from hist2scrna.spots.window import window_corners

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

PANEL_INCHES = 2.9


def spatial_compare(
    adata: AnnData,
    genes: str | Sequence[str],
    *,
    key: str = keys.KEY_ADDED,
    layer: str | None = None,
    library: str | None = None,
    library_key: str | None = None,
    spatial_key: str = keys.SPATIAL,
    img_key: str | None = None,
    same_scale: bool = True,
    residual: bool = False,
    ncols: int = 1,
    cmap: str = "viridis",
    ax: Axes | Sequence[Axes] | NDArray[Any] | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> NDArray[Any]:
    """Draw measured and predicted expression of genes side by side, on the tissue of one section.

    Both are shown as log(1 + 1e4 x / total over the modeled genes); for a predicted distribution this is the
    expectation, as in :func:`hist2scrna.tl.evaluate`. Spots have their true diameter. The color scale ends at the 1st
    and 99th percentile; spots without counts are gray.

    Parameters
    ----------
    adata
        Annotated data with counts, and predictions as :func:`hist2scrna.tl.predict` writes them.
    genes
        Name of a gene, or several.
    key
        Prefix of the predictions.
    layer
        Layer with raw counts; None: `.X`.
    library
        Which section; None: the only one.
    library_key
        Column of `.obs` with the section of each spot. None: `"library_id"` if it is there and names libraries of
        `.uns["spatial"]`, else one section.
    spatial_key
        Key of `.obsm` with the coordinates.
    img_key
        Which image of `.uns["spatial"][library]["images"]` to draw under the spots; None: the finest available. Without
        an image, only the spots are drawn.
    same_scale
        Use one color scale for both panels of a gene, so that a prediction that varies less looks paler. False: each
        panel has its own scale and color bar, which makes patterns comparable.
    residual
        Add a third column with predicted minus measured expression: red where the prediction is too high, blue where it
        is too low, white at 0. The color scale ends at the 99th percentile of the absolute difference.
    ncols
        Number of genes next to each other in the new figure.
    cmap
        Name of a Matplotlib color map for both panels.
    ax
        Two axes per gene (measured, predicted), or three with `residual`, in any shape; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: what suits the plot.
    save
        Path of a file to write the figure to; its suffix selects the format. None: it is not written.
    show
        Show the figure at once. A notebook shows it at the end of the cell in any case.

    Returns
    -------
    Axes, an object array of shape (genes, 2), (genes, 3) with `residual`.

    Raises
    ------
    KeyError
        If a gene, slot or section is missing.
    ValueError
        If `library` is needed and not given, or `ax` holds the wrong number of axes.

    Examples
    --------
    >>> axes = h2s.pl.spatial_compare(test, ["gene_0000", "gene_0001"], residual=True)
    >>> axes.shape
    (2, 3)
    """
    names, genes = keys.OutputKeys(key), [genes] if isinstance(genes, str) else list(genes)
    section = find_section(adata, None, library, library_key, spatial_key, img_key)
    truth, predicted = _expression(adata, section.spots, names, layer, genes)
    tissue = section.tissue(*window_corners(section.xy, section.diameter))
    axes = _axes(ax, figsize, len(genes), 3 if residual else 2, ncols, tissue.aspect)
    scores = pearson_by_gene(np.nan_to_num(truth), np.nan_to_num(predicted))
    for row, gene, t, p, r in zip(axes, genes, truth.T, predicted.T, scores, strict=True):
        agreement = "measured is constant" if np.isnan(r) else f"r = {r:.2f}"
        shared = limits(np.concatenate([t, p])) if same_scale else None
        for one, values, title in zip(row[:2], (t, p), (f"{gene}, measured", f"predicted, {agreement}"), strict=True):
            dots = draw_spots(one, tissue, values, shared or limits(values), cmap)
            one.set_title(title, fontsize=10)
            if not same_scale or one is row[1]:
                color_bar(dots, list(row[:2]) if same_scale else one, UNIT)
        if residual:
            dots = draw_spots(row[2], tissue, p - t, even_limits(p - t), DIVERGING, outline="0.4")
            row[2].set_title("predicted - measured", fontsize=10)
            color_bar(dots, row[2], "difference")
    finish(axes[0, 0], save, show)
    return axes


def _expression(
    adata: AnnData, spots: NDArray[np.int64], names: keys.OutputKeys, layer: str | None, genes: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return measured and predicted log-normalized expression, `(spots, genes)`; NaN in spots without counts."""
    hint = "Call tl.predict(adata, model) first, or pass key=."
    require_key(adata.layers, names.layer("mean"), "adata.layers", hint)
    modeled = adata.var_names
    if names.modeled in adata.var:
        modeled = modeled[adata.var[names.modeled].to_numpy(dtype=bool)]
    missing = [gene for gene in genes if gene not in modeled]
    if missing:
        raise KeyError(f"Genes {missing} are not among the {len(modeled)} modeled, such as {list(modeled[:3])}.")
    wanted = modeled.get_indexer(genes)
    counts = read_counts(adata[spots], list(modeled), layer)
    truth = np.asarray(log_normalize(counts)[:, wanted].toarray(), dtype=np.float64)
    truth[np.asarray(counts.sum(axis=1)).ravel() == 0] = np.nan
    sections = Sections(("drawn",), np.zeros(len(spots), dtype=np.int64))
    prediction, _ = read_prediction(adata, names, Where(list(modeled), spots, sections), Notes())
    return truth, prediction.region(slice(None), wanted, HEADLINE)


def _axes(ax: Any, figsize: Size | None, n_genes: int, n_panels: int, ncols: int, aspect: float) -> NDArray[Any]:
    import matplotlib.pyplot as plt

    if ncols < 1:
        raise ValueError(f"Expected `ncols` to be at least 1, found {ncols}.")
    ncols = min(ncols, n_genes)
    nrows = -(-n_genes // ncols)
    height = PANEL_INCHES * min(max(aspect, 0.3), 3.0) + 0.35
    wide = (n_panels * PANEL_INCHES + 0.7 * (n_panels - 1)) * ncols
    size = figure_size(ax, figsize, (wide, height * nrows))
    if ax is not None:
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != n_panels * n_genes:
            word = {2: "two", 3: "three"}[n_panels]
            raise ValueError(f"Expected {word} axes for each of {n_genes} genes in `ax`, found {len(axes)}.")
        return axes.reshape(n_genes, n_panels)
    _, grid = plt.subplots(
        nrows,
        n_panels * ncols,
        figsize=size,
        squeeze=False,
        layout="compressed",
    )
    rows = grid.reshape(nrows * ncols, n_panels)
    for unused in rows[n_genes:].ravel():
        unused.set_axis_off()
    return rows[:n_genes]
