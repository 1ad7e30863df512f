"""A lattice of spots over the tissue of an image."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from hist2scrna import keys
from hist2scrna.images.tissue import lattice_points, tissue_mask
from hist2scrna.messages import arguments_known
from hist2scrna.pp._image import library_entry, open_scaled, positive

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# At 2 um apart, a square of 2 cm of tissue is twice as many bins.
MOST_POINTS = 5e7

Lattice = Literal["hexagonal", "square"]


@arguments_known
def tissue_grid(
    image: Any,
    *,
    spacing_um: float = 100.0,
    spot_um: float | None = None,
    lattice: Lattice = "hexagonal",
    mpp: float | None = None,
    library_id: str = "section",
    min_tissue: float = 0.5,
) -> AnnData:
    """Lay a lattice of spots over the tissue of an image, for prediction where there is no assay.

    Tissue is found on a thumbnail, so that whole-slide images are never decoded: it is where the optical density in
    green, relative to the glass, exceeds half of Otsu's threshold, without dust and ink; see
    `hist2scrna.images.tissue.stained_ground`.

    A spacing smaller than in training gives a map with more spots than any assay measures: each is still predicted from
    a patch of the size that the model was trained on. Models that read neighbors take a lattice that is finer by more
    than a factor of 1.5 apart, into interleaved lattices at the pitch of the training, so that each spot sees its
    neighbors from as far as in training: where the pitch of the training is a whole multiple of `spacing_um`, what is
    predicted at a place is the same on the coarse and on the fine lattice. Models that read the patch alone predict the
    same for a spot on any lattice.

    Parameters
    ----------
    image
        The H&E image: a path (JPEG, PNG, TIFF, SVS, ...), or an array (height, width, 3), uint8, uint16 or float in
        0..1. Its pixels are the full-resolution pixels.
    spacing_um
        Distance between the centers of neighboring spots in microns. 100 um, as on Visium.
    spot_um
        Diameter of a spot in microns, in which the tissue fraction is measured and with which plots draw it; None:
        `spacing_um`.
    lattice
        `"hexagonal"` (six neighbors, as Visium) or `"square"` (four, as Spatial Transcriptomics).
    mpp
        Microns per pixel; None: from the metadata of the file.
    library_id
        Name of the section.
    min_tissue
        Spots with a smaller fraction of tissue are left out; 0 keeps all centers on the image.

    Returns
    -------
    AnnData without genes (`X` None, `n_vars` 0), ready for :func:`hist2scrna.tl.predict`.

    `.obsm["spatial"]` : float64 (n_obs, 2)
        Centers in full-resolution pixels, x right, y down.
    `.obs["array_col"]`, `.obs["array_row"]` : int
        Position on the lattice; on a hexagonal one, columns count half steps, as on Visium.
    `.obs["tissue_fraction"]` : float32
        Fraction of the spot that is tissue.
    `.obs["library_id"]` : categorical
        `library_id`.
    `.uns["spatial"][library_id]` : dict
        `images` (for a path: previews `hires` and `lowres` of 2,000 and 600 pixels; for an array: itself, as `hires`),
        `scalefactors` (`tissue_hires_scalef`, `spot_diameter_fullres`, `mpp`) and `metadata` (`source_image_path`).

    Raises
    ------
    TypeError
        If `image` is neither a path nor an array.
    FileNotFoundError
        If there is no such file.
    ValueError
        If an argument is out of range, the array is not an RGB image, nothing tells the microns per pixel, or there is
        no tissue.

    Examples
    --------
    >>> slide = h2s.pp.tissue_grid(picture, spacing_um=100, mpp=1.0)
    >>> slide = h2s.tl.predict(slide, model, progress=False)
    >>> slide.n_vars
    12
    """
    spacing = positive(spacing_um, "spacing_um")
    diameter = spacing if spot_um is None else positive(spot_um, "spot_um")
    if lattice not in get_args(Lattice):
        raise ValueError(f"Expected `lattice` to be one of {list(get_args(Lattice))}, found {lattice!r}.")
    if not 0 <= min_tissue <= 1:
        raise ValueError(f"Expected `min_tissue` to be within 0 and 1, found {min_tissue!r}.")
    opened, scale = open_scaled(image, mpp)
    mask = tissue_mask(opened, scale)
    width, height = (edge / opened.scale for edge in opened.size())
    if (n_points := width * height * (scale / spacing) ** 2) > MOST_POINTS:
        raise ValueError(
            f"Spots spacing_um={spacing:g} apart would be some {n_points:.2g} on an image of {width * scale:.4g} x "
            f"{height * scale:.4g} um; {MOST_POINTS:.0e} are the most. Pass a larger spacing_um=, or the right mpp= "
            f"(here {scale:g})."
        )
    xy, place = lattice_points(width, height, spacing / scale, lattice)
    fraction = mask.fraction(xy, diameter / scale)
    kept = fraction >= min_tissue
    if not kept.any():
        raise ValueError(
            f"None of {len(xy)} spots {spacing:g} um apart has min_tissue={min_tissue:g} of tissue: the most is "
            f"{fraction.max(initial=0):.2f}. Lower spacing_um=, spot_um= or min_tissue=, or check mpp= "
            f"(here {scale:g})."
        )
    log.info("%d of %d spots lie on tissue", kept.sum(), len(xy))
    return AnnData(
        obs=_observations(place[kept], fraction[kept], library_id),
        obsm={keys.SPATIAL: xy[kept]},
        uns={keys.SPATIAL: {library_id: library_entry(image, opened, scale, diameter / scale)}},
    )


def _observations(place: NDArray[np.int64], fraction: NDArray[np.float32], library_id: str) -> pd.DataFrame:
    column, row = keys.ARRAY_COORDINATES
    return pd.DataFrame(
        {
            keys.LIBRARY: pd.Categorical([library_id] * len(place)),
            column: place[:, 0],
            row: place[:, 1],
            keys.TISSUE_FRACTION: fraction,
        },
        index=[f"{library_id}_{x}x{y}" for x, y in place],
    )
