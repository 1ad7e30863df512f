"""What a model attends to, on the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from hist2scrna import keys
from hist2scrna.pl._figure import Size, finish
from hist2scrna.pl._section import Section, find_section, section_axes
from hist2scrna.pl._tissue import Tissue, color_bar, draw_spots, limits
from hist2scrna.pl._token_map import draw_tokens, token_place
from hist2scrna.spots.window import window_corners

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

Kind = Literal["neighbors", "patch", "saliency"]


def attention(
    adata: AnnData,
    *,
    kind: Kind = "neighbors",
    spot: str | None = None,
    gene: str | None = None,
    key: str = keys.KEY_ADDED,
    library: str | None = None,
    library_key: str | None = None,
    spatial_key: str = keys.SPATIAL,
    img_key: str | None = None,
    cmap: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    save: str | Path | None = None,
    show: bool = False,
) -> Axes:
    """Draw attention or saliency of one spot or of a whole section, as :func:`hist2scrna.tl.attention` wrote it.

    Parameters
    ----------
    adata
        Annotated data after :func:`hist2scrna.tl.attention`.
    kind
        `"neighbors"`: weights between spots. For one spot, the spot and its neighbors are colored by their weights and
        joined by lines of that width. For a section, each spot is colored by the total weight that it gives to its
        neighbors (the rest goes to the spot itself), and neighbors are joined by lines as wide as the mean of both
        directions; weights below equal attention are left out.
        `"patch"`: attention rollout over the tokens of the patch, as a multiple of an even share.
        `"saliency"`: gradient times input of the tokens for `gene`, red where they raise the prediction and blue where
        they lower it. For a section, tokens of overlapping patches are averaged.
    spot
        Name of a spot in `.obs_names`, which is drawn close up; None: the whole section.
    gene
        Gene of the saliency.
    key
        Prefix of the slots, `key_added` of :func:`hist2scrna.tl.attention`.
    library
        Which section; None: that of `spot`, or the only one.
    library_key
        Column of `.obs` with the section of each spot. None: `"library_id"` if it is there and names libraries of
        `.uns["spatial"]`, else one section.
    spatial_key
        Key of `.obsm` with the coordinates.
    img_key
        Which image of `.uns["spatial"][library]["images"]` to draw on; None: the finest available.
    cmap
        Name of a Matplotlib color map; None: `"viridis"`, for saliency a diverging one.
    ax
        Axes to draw in; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: what suits the plot.
    save
        Path of a file to write the figure to; its suffix selects the format. None: it is not written.
    show
        Show the figure at once. A notebook shows it at the end of the cell in any case.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If a spot, section or slot is missing.
    ValueError
        If `kind` is not known, `gene` is given without saliency or the other way round, `library` is needed, or the
        values have no place on the tissue (features).

    Examples
    --------
    >>> network = h2s.tl.fit(train, model="hist2scrna", preset="tiny", training={"max_epochs": 1}, progress=False)
    >>> test = h2s.tl.attention(test, network, progress=False)
    >>> ax = h2s.pl.attention(test, spot=test.obs_names[0])
    """
    if kind not in get_args(Kind):
        raise ValueError(f"Expected `kind` to be one of {list(get_args(Kind))}, found {kind!r}.")
    if (gene is None) == (kind == "saliency"):
        raise ValueError(f"`gene` goes with kind='saliency', found kind={kind!r} and gene={gene!r}.")
    section = find_section(adata, spot, library, library_key, spatial_key, img_key)
    names = keys.OutputKeys(key)
    if kind == "neighbors":
        weights = sparse.csr_array(_slot(adata.obsp, names.attention, "obsp"))[section.spots][:, section.spots]
        draw = _one_neighborhood if spot is not None else _all_neighborhoods
        ax = draw(section, sparse.csr_array(weights), cmap or "viridis", ax, figsize)
    else:
        slot = names.attention_patch if gene is None else names.saliency(gene)
        side, grid = token_place(section, _slot(adata.uns, names.attention, "uns"))
        values = np.asarray(_slot(adata.obsm, slot, "obsm"), dtype=np.float64)[section.spots]
        ax = draw_tokens(section, values, side, grid, gene, cmap, ax, figsize)
    finish(ax, save, show)
    return ax


def _slot(holder: Any, slot: str, where: str) -> Any:
    if slot not in holder:
        raise KeyError(
            f"Key {slot!r} not found in adata.{where}. Available keys: {list(holder)}. Call tl.attention(adata, model) "
            "first (with genes= for saliency), or pass key=."
        )
    return holder[slot]


def _one_neighborhood(
    section: Section, weights: sparse.csr_array, cmap: str, ax: Axes | None, figsize: Size | None
) -> Axes:
    """Draw a spot close up, with its neighbors."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    chosen = section.chosen
    assert chosen is not None
    row = weights[[chosen], :].tocoo()
    xy, center, shares = section.xy[row.coords[1]], section.xy[chosen], row.data.astype(np.float64)
    reach = 1.25 * np.abs(xy - center).max() + section.diameter
    low, high = center - reach, center + reach
    tissue = section.tissue(low, high)
    ax = section_axes(ax, figsize, 1.0)
    near = Tissue(xy, section.diameter, tissue.image, tissue.extent)
    dots = draw_spots(ax, near, shares, (0.0, float(shares.max())), cmap)
    # Rings, so that the tissue in the spots is seen.
    dots.set(facecolor="none", edgecolor=None, linewidth=3.5)
    away = np.linalg.norm(xy - center, axis=1)
    apart = away > section.diameter
    rim = (xy - center)[apart] / away[apart, None] * section.diameter / 2
    lines = LineCollection(
        list(np.stack([center + rim, xy[apart] - rim], axis=1)),
        linewidths=1 + 9 * shares[apart] / shares.max(),
        cmap=dots.cmap,
        norm=dots.norm,
        array=shares[apart],
    )
    ax.add_collection(lines, autolim=False)
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))
    for (x, y), weight in zip(xy, shares, strict=True):
        label = ax.text(x, y, f"{weight:.2f}", ha="center", va="center", fontsize=10)
        label.set_path_effects([withStroke(linewidth=3, foreground="white")])
    ax.set_title(f"{section.title}: attention to neighbors", fontsize=10)
    color_bar(dots, ax, "weight")
    return ax


def _all_neighborhoods(
    section: Section, weights: sparse.csr_array, cmap: str, ax: Axes | None, figsize: Size | None
) -> Axes:
    """Draw how much every spot of a section attends to its neighbors, and the edges that weigh more than evenly."""
    from matplotlib.collections import LineCollection

    tissue = section.tissue(*window_corners(section.xy, section.diameter))
    ax = section_axes(ax, figsize, tissue.aspect)
    to_itself = weights.diagonal().astype(np.float64)
    even = 1 / np.maximum(np.diff(weights.indptr), 1)
    relative = weights.multiply(1 / even[:, None]).tocsr()
    both = sparse.triu((relative + relative.T) / 2, k=1).tocoo()
    strong = both.data > 1
    ends = section.xy[np.stack([both.row[strong], both.col[strong]], axis=1)]
    wide = 0.2 + 4 * (both.data[strong] - 1)
    ax.add_collection(LineCollection(list(ends), linewidths=wide, colors="0.15"), autolim=False)
    dots = draw_spots(ax, tissue, 1 - to_itself, limits(1 - to_itself), cmap, outline="0.15")
    ax.set_title(f"{section.title}: attention to neighbors", fontsize=10)
    color_bar(dots, ax, "weight of all neighbors (rest: itself)")
    return ax
