"""Maps of a predicted section, as images inside the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.pl._section import SIDE_INCHES, find_section
from hist2scrna.pl._tissue import UNIT, color_bar, draw_spots, limits
from hist2scrna.reporting.figures import embedded, own_figures
from hist2scrna.reporting.prediction import library_key_of
from hist2scrna.spots.window import window_corners

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hist2scrna.pl._tissue import Tissue
    from hist2scrna.reporting.prediction import PredictedSection

N_MAPS = 4
# Colors of cell types, where Scanpy has set none.
TYPE_COLORS = "tab20"

# Heading, how to read it, and what the color bar says, of each column that can be drawn.
COLUMNS = {
    "library_size": (
        "Library size",
        "Counts of all modeled genes that the means stand at. Its level cannot be read from an image of another donor; "
        "its pattern can.",
        "counts",
    ),
    "uncertainty": (
        "Uncertainty",
        "Predicted standard deviation of a count over its mean, the median of the genes. Spots with few counts are "
        "less certain. It holds for tissue like that of the training alone.",
        "standard deviation / mean",
    ),
    "tissue_distance": (
        "Distance from the training tissue",
        "Above 1 a spot is called unlike the training, and its prediction is extrapolation.",
        "1: the limit",
    ),
    "cell_type_confidence": (
        "Confidence in the cell type",
        "Probability of the type that is shown.",
        "probability",
    ),
}


def draw_maps(adata: AnnData, section: PredictedSection, about: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return what the page shows of a section: `name`, `heading`, `caption`, and `source` and `alt`, of each map.

    Parameters
    ----------
    adata
        The prediction.
    section
        The section; nothing can be drawn of slides, which have no coordinates.
    about
        What `.uns` says of the prediction.
    key
        Prefix of the prediction.
    """
    if about.get("observation") == "slide":
        return []
    spatial_key = about.get("params", {}).get("spatial_key", keys.SPATIAL)
    drawn = adata[section.rows]
    found = find_section(drawn, None, None, library_key_of(adata, about), spatial_key, None)
    tissue = found.tissue(*window_corners(found.xy, found.diameter))
    maps = []
    if section.cell_type is not None:
        maps.append(_type_map(adata, section, tissue, key))
    for name, values in section.columns.items():
        heading, caption, unit = COLUMNS[name]
        maps.append(_value_map(section, tissue, name, heading, caption, values, unit))
    names = keys.OutputKeys(key)
    on_logs = names.layer("log_normalized") in adata.layers
    layer = names.layer("log_normalized" if on_logs else "mean")
    unit = UNIT if on_logs or about.get("scale") == "log_normalized" else "count"
    for gene in section.genes.index[:N_MAPS]:
        values = _column(drawn, layer, gene)
        caption = f"Predicted {'log-normalized ' * on_logs}expression; one of the genes that vary most in this section."
        maps.append(_value_map(section, tissue, f"gene-{gene}", str(gene), caption, values, unit))
    return maps


def _column(adata: AnnData, layer: str, gene: str) -> NDArray[np.float64]:
    values = adata[:, [gene]].layers[layer]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64).ravel()


def _axes(tissue: Tissue) -> Axes:
    import matplotlib.pyplot as plt

    height = SIDE_INCHES * min(max(tissue.aspect, 0.3), 3.0) + 0.2
    return plt.subplots(figsize=(SIDE_INCHES + 1, height), layout="compressed")[1]


def _value_map(
    section: PredictedSection,
    tissue: Tissue,
    name: str,
    heading: str,
    caption: str,
    values: NDArray[np.float64],
    unit: str,
) -> dict[str, Any]:
    with own_figures() as close:
        ax = _axes(tissue)
        color_bar(draw_spots(ax, tissue, values, limits(values), "viridis"), ax, unit)
        figure = ax.get_figure(root=True)
        assert figure is not None
        source = embedded(figure)
        close(figure)
    low, middle, high = np.nanquantile(values, [0.0, 0.5, 1.0])
    alt = f"Map of section {section.name}: {heading}, from {low:.3g} to {high:.3g}, median {middle:.3g}."
    return {"name": name, "heading": heading, "caption": caption, "source": source, "alt": alt}


def _type_map(adata: AnnData, section: PredictedSection, tissue: Tissue, key: str) -> dict[str, Any]:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.lines import Line2D

    assert section.cell_type is not None
    column = keys.OutputKeys(key).cell_type
    types = list(adata.obs[column].astype("category").cat.categories)
    palette = colormaps[TYPE_COLORS]
    stored = adata.uns.get(f"{column}_colors", ())
    colors = list(stored) if len(stored) == len(types) else [palette(i % palette.N) for i in range(len(types))]
    codes = section.cell_type.cat.set_categories(types).cat.codes.to_numpy(dtype=np.float64)
    codes[codes < 0] = np.nan
    here = [i for i in range(len(types)) if (codes == i).any()]
    with own_figures() as close:
        ax = _axes(tissue)
        draw_spots(ax, tissue, codes, (-0.5, len(types) - 0.5), ListedColormap(colors))
        dots = [Line2D([], [], marker="o", ls="", color=colors[i], label=str(types[i])) for i in here]
        ax.legend(handles=dots, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        figure = ax.get_figure(root=True)
        assert figure is not None
        source = embedded(figure)
        close(figure)
    shares = section.cell_type.value_counts(normalize=True)
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares[shares > 0].items())
    return {
        "name": "cell_type",
        "heading": "Cell type",
        "caption": "The most probable type of each spot. A spot holds several cells: the probabilities are in .obsm.",
        "source": source,
        "alt": f"Map of section {section.name} by predicted cell type: {said}.",
    }
