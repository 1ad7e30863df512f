"""Simulated sections whose expression can be predicted from the image, with known truth."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from hist2scrna import keys
from hist2scrna.datasets.histology import draw
from hist2scrna.datasets.simulated_genes import Genes, draw_genes
from hist2scrna.datasets.tissue import MORPHOLOGIES, Domains, place_nuclei

Preset = Literal["small", "medium"]
Level = Literal["spot", "cell"]

PRESETS = {"small": (50, 500), "medium": (200, 2000)}
SIMULATION = "simulation"
N_NEIGHBORS = 6
MAX_PIXELS = 2**26


@dataclass(frozen=True)
class _Scale:
    """What differs between spots and cells; lengths in micrometers."""

    pitch: float
    diameter: float
    margin: float
    domain: float  # smoothing length of the domains
    reach: float  # largest distance of a neighbor
    vicinity: float  # radius within which nuclei make the library size
    depth: float  # counts per gene of a typical observation


_SCALES: dict[str, _Scale] = {
    "spot": _Scale(pitch=100.0, diameter=55.0, margin=125.0, domain=55.0, reach=110.0, vicinity=27.5, depth=2.2),
    "cell": _Scale(pitch=11.0, diameter=10.0, margin=45.0, domain=10.0, reach=np.inf, vicinity=20.0, depth=1.2),
}


@dataclass(frozen=True)
class _Parameters:
    """What a section is made by; kept in `.uns`."""

    seed: int
    n_spots: int
    n_genes: int
    n_types: int
    level: str
    neighbor_effect: float
    mpp: float


def simulate(
    preset: Preset = "small",
    *,
    n_sections: int = 1,
    seed: int = 0,
    n_spots: int | None = None,
    n_genes: int | None = None,
    n_types: int = 4,
    level: Level = "spot",
    neighbor_effect: float = 1.0,
    mpp: float = 1.0,
) -> list[ad.AnnData]:
    r"""Simulate sections with an H&E image, and ZINB counts that can be predicted from it.

    Cell types occupy smooth domains (at each place, the type whose Gaussian random field is largest). Density, size,
    shape and color of the nuclei depend on the type; the image is drawn by the Beer-Lambert law, with stain
    vectors, stain amounts and background varying between sections. For observation :math:`i` of type :math:`t_i`
    and gene :math:`g`,

    .. math::

        \log r_{ig} = b_g + O_{t_i g} + c \sum_t f_{it} N_{tg}, \qquad \mu_{ig} = \ell_i r_{ig}, \qquad
        x_{ig} \sim \mathrm{ZINB}(\mu_{ig}, \theta_g, \pi_g),

    where :math:`f_i` is the fraction of each type among the neighbors (on the lattice at most six; for cells the six
    nearest) and :math:`c` is `neighbor_effect`. :math:`N` is non-zero for half of the genes, and for these
    :math:`O` is small: what they do cannot be known from the observation's own type. The library size :math:`\ell_i`
    grows with the density of nuclei that the image shows, times log-normal noise of standard deviation 0.2.

    Parameters
    ----------
    preset
        `"small"` (50 observations x 500 genes) or `"medium"` (200 x 2,000).
    n_sections
        Number of sections: different tissue, same genes. Section `i` does not depend on how many there are.
    seed
        Seed of all randomness, a non-negative integer. The gene parameters depend on `seed`, `n_genes` and `n_types`
        alone.
    n_spots
        Observations a section, exactly, instead of the preset's.
    n_genes
        Genes, instead of the preset's.
    n_types
        Number of cell types, 2 to 8. Each section has all of them if it has observations enough.
    level
        `"spot"`: spots of 55 um on the hexagonal lattice of Visium, 100 um apart. `"cell"`: each observation is a
        nucleus, its diameter taken as 10 um, with fewer counts.
    neighbor_effect
        Factor of the neighbors' effect; 0 leaves the image as it is and makes the counts depend on the own type.
        A patch wider than the pitch shows the neighbors too.
    mpp
        Micrometers per pixel of the image.

    Returns
    -------
    One AnnData a section:

    - `.X`: counts, CSR float32 (observations x genes).
    - `.layers["true_mu"]`, `["true_dispersion"]`, `["true_dropout"]`, `["true_mean"]`: :math:`\mu`, :math:`\theta`,
      :math:`\pi` and :math:`(1 - \pi) \mu`, dense float32.
    - `.obs["library_id"]`: categorical, `"section_0"`, ...; `.obs["cell_type"]`: categorical, the same categories in
      all sections; `.obs["array_row"]`, `.obs["array_col"]`: int, lattice position with an even sum (`level="spot"`).
    - `.obsm["spatial"]`: float64, pixels of the image, x to the right and y down.
    - `.uns["spatial"][library]`: the image as `images["hires"]`, uint8 (H, W, 3), with
      `scalefactors` `tissue_hires_scalef` (1), `spot_diameter_fullres` (pixels) and `mpp`.
    - `.uns["simulation"]`: the arguments, the names of the genes that respond to neighbors (`"neighbor_genes"`), and
      the stain of the section (`"stain"`, by library).
    - `level="cell"`: `.uns["simulation"]["nuclei"]`, by library: the nuclei that were drawn as a label image, int32
      (H, W); `.obs["nucleus"]`: the label of each observation. Nuclei around the observations have labels too.

    `anndata.concat(sections, uns_merge="unique")` keeps all images.

    Raises
    ------
    ValueError
        If an argument is out of range, or the image would exceed 2^26 pixels.

    Examples
    --------
    >>> train, test = h2s.datasets.simulate("small", n_sections=2, n_spots=30, n_genes=12)
    >>> train.shape
    (30, 12)
    """
    for name, value, choices in (("preset", preset, tuple(PRESETS)), ("level", level, get_args(Level))):
        if value not in choices:
            raise ValueError(f"Expected `{name}` to be one of {list(choices)}, found {value!r}.")
    preset_spots, preset_genes = PRESETS[preset]
    n_spots = preset_spots if n_spots is None else n_spots
    n_genes = preset_genes if n_genes is None else n_genes
    at_least = {"n_sections": (n_sections, 1), "seed": (seed, 0), "n_spots": (n_spots, 1), "n_genes": (n_genes, 1)}
    for name, (number, low) in (at_least | {"n_types": (n_types, 2)}).items():
        if not isinstance(number, int | np.integer) or number < low:
            raise ValueError(f"Expected `{name}` to be an integer of at least {low}, found {number!r}.")
    if n_types > len(MORPHOLOGIES):
        raise ValueError(f"Expected `n_types` to be at most {len(MORPHOLOGIES)}, found {n_types!r}.")
    if not math.isfinite(neighbor_effect):
        raise ValueError(f"Expected `neighbor_effect` to be finite, found {neighbor_effect!r}.")
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"Expected `mpp` (micrometers per pixel) to be positive, found {mpp!r}.")

    sizes = int(seed), int(n_spots), int(n_genes), int(n_types)
    parameters = _Parameters(*sizes, level, float(neighbor_effect), float(mpp))
    genes = draw_genes(np.random.default_rng([seed, 0]), parameters.n_genes, parameters.n_types)
    return [
        _simulate_section(np.random.default_rng([seed, 1, i]), f"section_{i}", genes, parameters)
        for i in range(n_sections)
    ]


def _simulate_section(rng: np.random.Generator, library: str, genes: Genes, parameters: _Parameters) -> ad.AnnData:
    n_spots, n_types, level, mpp = parameters.n_spots, parameters.n_types, parameters.level, parameters.mpp
    scale = _SCALES[level]
    # Tissue, counts and image draw from streams of their own: the counts do not depend on the resolution, nor the
    # tissue on the genes.
    tissue_rng, count_rng, image_rng = rng.spawn(3)
    obs = pd.DataFrame(index=[f"{library}_{level}_{i:0{max(3, len(str(n_spots - 1)))}d}" for i in range(n_spots)])
    obs[keys.LIBRARY] = pd.Categorical([library] * n_spots)
    if level == "spot":
        array, xy, size = _lattice(n_spots, scale)
        _check_pixels(size, mpp)
        domains = Domains(tissue_rng, size, scale.domain, n_types)
        domains.include_all_types(xy, 0.3 * scale.pitch)
        nuclei = place_nuclei(tissue_rng, domains)
        obs[keys.ARRAY_COORDINATES[1]], obs[keys.ARRAY_COORDINATES[0]] = array.T
    else:
        domains, nuclei, chosen = _cells(tissue_rng, n_spots, n_types, scale, mpp)
        xy = nuclei[chosen]
        obs[keys.NUCLEUS] = chosen + 1

    types = domains.types_at(xy)
    obs[keys.CELL_TYPE] = pd.Categorical.from_codes(types, [m.name for m in MORPHOLOGIES[:n_types]])
    nucleus_types, margin = domains.types_at(nuclei), 0.95 * scale.margin
    image, stain, labels = draw(image_rng, domains, nuclei, nucleus_types, xy, margin=margin, mpp=mpp)
    own_type = np.eye(n_types)[types]
    composition = _neighbor_composition(xy, own_type, scale.reach)
    log_rate = genes.base + own_type @ genes.own + parameters.neighbor_effect * (composition @ genes.neighbor)
    density = 1.0 + cKDTree(nuclei).query_ball_point(xy, scale.vicinity, return_length=True)
    library_size = scale.depth * len(genes.base) * (density / density.mean()) ** 0.6
    mu = np.exp(log_rate) * (library_size * np.exp(count_rng.normal(0, 0.2, n_spots)))[:, None]
    counts = count_rng.poisson(count_rng.gamma(genes.theta, mu / genes.theta))
    counts[count_rng.random(mu.shape) < genes.dropout] = 0

    names = [f"gene_{g:0{max(4, len(str(len(genes.base) - 1)))}d}" for g in range(len(genes.base))]
    truth = {
        keys.TRUE_MU: mu,
        keys.TRUE_DISPERSION: np.broadcast_to(genes.theta, mu.shape),
        keys.TRUE_DROPOUT: np.broadcast_to(genes.dropout, mu.shape),
        keys.TRUE_MEAN: (1 - genes.dropout) * mu,
    }
    scalefactors = {keys.image_scale("hires"): 1.0, keys.SPOT_DIAMETER: scale.diameter / mpp, keys.MPP: mpp}
    entry = {keys.IMAGES: {"hires": image}, keys.SCALEFACTORS: scalefactors, keys.METADATA: {}}
    record = {"neighbor_genes": np.array(names)[genes.responds], "stain": {library: stain}}
    if level == "cell":
        record["nuclei"] = {library: labels}
    return ad.AnnData(
        X=csr_matrix(counts, dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=names),
        layers={name: layer.astype(np.float32) for name, layer in truth.items()},
        obsm={keys.SPATIAL: xy / mpp},
        uns={keys.SPATIAL: {library: entry}, SIMULATION: asdict(parameters) | record},
    )


def _neighbor_composition(xy: NDArray[np.float64], own_type: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Fraction of each type among the six nearest others within `reach`, (n, types); zero without neighbors."""
    nearest = cKDTree(xy).query(xy, k=range(2, 2 + N_NEIGHBORS), distance_upper_bound=reach)[1]
    # The tree answers n where there is no further neighbor.
    composition = np.vstack([own_type, np.zeros_like(own_type[:1])])[nearest].sum(axis=1)
    return composition / np.maximum(composition.sum(axis=1, keepdims=True), 1)


def _check_pixels(size: tuple[float, float], mpp: float) -> None:
    height, width = (round(extent / mpp) for extent in size)
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"An image of {height} x {width} pixels is too large to simulate (the limit is {MAX_PIXELS} pixels). "
            "Raise `mpp` or lower `n_spots`."
        )


def _lattice(n_spots: int, scale: _Scale) -> tuple[NDArray[np.int64], NDArray[np.float64], tuple[float, float]]:
    """Array positions (row, col), coordinates (x, y) and the size (height, width) of a landscape Visium lattice."""
    n_rows = max(1, round(math.sqrt(n_spots / 1.3)))
    per_row = math.ceil(n_spots / n_rows)
    row, place = np.divmod(np.arange(n_spots), per_row)
    column = 2 * place + row % 2
    step_x, step_y = scale.pitch / 2, scale.pitch * math.sqrt(3) / 2
    xy = np.column_stack([column * step_x, row * step_y]) + scale.margin
    height = row.max() * step_y + 2 * scale.margin
    width = column.max() * step_x + 2 * scale.margin
    return np.column_stack([row, column]), xy, (height, width)


def _cells(
    rng: np.random.Generator, n_cells: int, n_types: int, scale: _Scale, mpp: float
) -> tuple[Domains, NDArray[np.float64], NDArray[np.int64]]:
    """Tissue for `n_cells`: its domains, all its nuclei, and the numbers of the `n_cells` nearest to its center."""
    area = n_cells * float(np.mean([m.spacing for m in MORPHOLOGIES[:n_types]])) ** 2
    while True:
        inner = np.array([math.sqrt(1.4 * area), math.sqrt(area / 1.4)])
        width, height = inner + 2 * scale.margin
        _check_pixels((height, width), mpp)
        domains = Domains(rng, (height, width), scale.domain, n_types)
        nuclei = place_nuclei(rng, domains)
        off_center = np.abs(nuclei - (width / 2, height / 2)) / (inner / 2)
        order = off_center.max(axis=1).argsort(kind="stable")[:n_cells]
        if len(order) == n_cells and off_center[order].max() <= 1:
            chosen = np.sort(order)
            domains.include_all_types(nuclei[chosen], 0.3 * scale.pitch)
            return domains, nuclei, chosen
        area *= 1.3
