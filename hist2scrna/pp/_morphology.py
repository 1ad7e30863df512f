"""Hand-made features of the picture around each spot."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import __version__, keys
from hist2scrna.images.base import cut_patches
from hist2scrna.images.morphology import patch_statistics
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

# Nuclei are some 8 um wide: at 1 um a pixel their texture is seen, whatever the camera.
PIXEL_UM, FEWEST_PX = 1.0, 32
VIEWS = {"spot": 1.0, "wide": 3.0}
CHUNK_PIXELS = 2**20


def morphology_features(
    adata: AnnData,
    *,
    key_added: str = keys.MORPHOLOGY,
    library_key: str | None = None,
    spatial_key: str = keys.SPATIAL,
    img_key: str | None = None,
    image: Any = None,
    mpp: float | None = None,
    patch_um: float | None = None,
    standardize: bool = False,
    progress: bool = True,
    copy: bool = False,
) -> AnnData | None:
    """Describe the tissue around each spot by stain, color and texture, without any training.

    The features that every network must beat: pass `features_key="X_morphology"` to a model on features. Each of 52
    numbers is taken in two views: the patch on the spot at 1 um a pixel, and one three times as wide at 3 um a pixel.
    They are the same for every flip and quarter turn of the tissue. The numbers, and their sources, are those of
    `hist2scrna.images.morphology.patch_statistics`: mean, spread and quantiles of hematoxylin and eosin after color
    deconvolution; color in RGB and HSV; texture by band of size, by peaks of hematoxylin (about the nuclei) and by
    gray-level co-occurrence. Expression is never read.

    Parameters
    ----------
    adata
        Annotated data with a picture and coordinates.
    key_added
        Slot of `.obsm` and of `.uns` that is written; replaced if it is there.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`; None: one section.
    spatial_key
        Slot of `.obsm` with the coordinates, full-resolution pixels, x right, y down.
    img_key
        Which image in `.uns["spatial"][library]["images"]`; None: the finest, be it there or in the file named in
        `metadata["source_image_path"]`.
    image
        A full-resolution picture instead: a path, an array, or a dictionary of these by section.
    mpp
        Microns per full-resolution pixel; None: from the metadata, else from the spot diameter (65 um for Space Ranger
        data, else 100 um; logged).
    patch_um
        Side of the patch on the spot in microns; None: one and a half spot diameters. Below 32 um its pixels are finer
        than 1 um, so that there are 32.
    standardize
        Take the mean of its section off each number and divide by the standard deviation there (a number that is
        constant in a section becomes 0). This takes out stain and scanner; it needs sections of like tissue, whole and
        not cropped, in training and prediction alike.
    progress
        Show a bar.
    copy
        Return a copy with the features, and leave `adata` as it is.

    Returns
    -------
    None, or with `copy=True` a new AnnData. These fields are set, once all features are there:

    `.obsm[key_added]` : float32 (n_obs, 104)
        The features, the 52 of the spot first.
    `.uns[key_added]` : dict
        `names` of the features, in order; `views`, `patch_um` and `um_per_pixel`, one for each view; `standardized`;
        `version` of hist2scrna.

    Raises
    ------
    KeyError
        If a slot, library, image or scale factor is missing.
    FileNotFoundError
        If the image is not there.
    ValueError
        If a value is wrong: coordinates that are NaN, swapped or off the picture, a size that is not positive.

    Examples
    --------
    >>> hist2scrna.pp.morphology_features(adata, library_key="library_id")
    >>> model = hist2scrna.tl.fit(adata, model="ridge", features_key="X_morphology", library_key="library_id")
    """
    opened = open_sections(adata, Source(library_key, spatial_key, img_key, image, mpp=mpp))
    spots = read_spots(opened, patch=PatchSize(FEWEST_PX, patch_um))
    assert spots.geometry is not None and spots.patches is not None
    if not spots.patches.images:
        raise ValueError(
            "Morphology is also read from a wide view around each patch, and patches in files do not show it. Pass "
            "image= with the picture that they were cut from."
        )
    um = spots.geometry.um
    px = max(FEWEST_PX, round(um / PIXEL_UM))
    names, features = _describe(spots, px, progress)
    if standardize:
        _standardize(features, spots.section)
    log.info(
        "%d features of %d spots, from %g um and %g um", len(names), len(features), *(um * w for w in VIEWS.values())
    )
    target = adata.copy() if copy else adata
    target.obsm[key_added] = features
    target.uns[key_added] = {
        "names": np.array(names),
        "views": np.array(list(VIEWS)),
        "patch_um": np.array([um * wider for wider in VIEWS.values()]),
        "um_per_pixel": np.array([um * wider / px for wider in VIEWS.values()]),
        "standardized": standardize,
        "version": __version__,
    }
    return target if copy else None


def _describe(spots: Spots, px: int, progress: bool) -> tuple[list[str], NDArray[np.float32]]:
    """Cut the patches of each view, `px` pixels wide, by chunks that are forgotten at once, and describe them."""
    from tqdm.auto import tqdm

    assert spots.patches is not None
    size = max(1, CHUNK_PIXELS // px**2)
    names: list[str] = []
    features: NDArray[np.float32] | None = None
    with tqdm(total=len(spots), desc="describing", unit="spot", disable=not progress) as bar:
        for code, (picture, side) in enumerate(zip(spots.patches.images, spots.patches.side, strict=True)):
            own = np.flatnonzero(spots.section == code)
            for start in range(0, len(own), size):
                chunk = own[start : start + size]
                found = {
                    f"{view}_{name}": value
                    for view, wider in VIEWS.items()
                    for name, value in patch_statistics(cut_patches(picture, spots.xy[chunk], wider * side, px)).items()
                }
                if features is None:
                    names = list(found)
                    features = np.empty((len(spots), len(names)), dtype=np.float32)
                features[chunk] = np.stack(list(found.values()), axis=1)
                bar.update(len(chunk))
    assert features is not None
    return names, features


def _standardize(features: NDArray[np.float32], section: NDArray[np.int64]) -> None:
    for code in np.unique(section):
        own = section == code
        values = features[own].astype(np.float64)
        values -= values.mean(axis=0)
        spread = values.std(axis=0)
        # What float32 cannot tell from a constant is one.
        constant = spread <= 1e-6 * np.abs(features[own]).max(axis=0)
        features[own] = np.where(constant, 0, values / np.where(constant, 1, spread))
