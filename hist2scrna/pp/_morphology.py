"""Features by hand of the image around each spot."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import __version__, keys
from hist2scrna.encoders.morphology import morphology_encoder
from hist2scrna.encoders.patch_statistics import (
    CHUNK_PIXELS,
    FIELDS_OF_VIEW,
    feature_names,
    patch_statistics,
)
from hist2scrna.fitting.surroundings import in_own_torch
from hist2scrna.images.base import cut_patches
from hist2scrna.messages import sections_counted
from hist2scrna.spots.patches import encoder_patch_size
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)


@in_own_torch
@sections_counted
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

    These features are what every network must beat: pass `features_key="X_morphology"` to a model on features. Each of
    52 numbers is taken in two fields of view: the patch on the spot at 1 um a pixel, and one three times as wide at 3
    um a pixel. They are the same for every flip and quarter turn of the tissue. The numbers, and their sources, are
    those of `hist2scrna.encoders.patch_statistics`: mean, spread and quantiles of hematoxylin and eosin after color
    deconvolution; color in RGB and HSV; texture by band of size, by peaks of hematoxylin (about the nuclei)
    and by gray-level co-occurrence. Expression is never read.

    `fit(..., encoder="morphology")` and `extract_features(adata, "morphology")` take the same numbers from one patch,
    whose pixels they average for the wide field of view; here, each is cut from the image by itself.

    Parameters
    ----------
    adata
        Annotated data with an image and coordinates.
    key_added
        Key of `.obsm` and of `.uns` that is written; replaced if it is there.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`; None: `library_id` if it is there
        and names libraries of `.uns["spatial"]`, else all spots are one section.
    spatial_key
        Key of `.obsm` with the coordinates, full-resolution pixels, x right, y down.
    img_key
        Which image in `.uns["spatial"][library]["images"]`; None: the finest, be it there or in the file named in
        `metadata["source_image_path"]`.
    image
        A full-resolution image instead: a path, an array, or a dictionary of these by section.
    mpp
        Microns per full-resolution pixel; None: from the metadata, else from the spot diameter (65 um for Space Ranger
        data, else 100 um; logged).
    patch_um
        Side of the patch on the spot in microns; None: one and a half spot diameters. Below 32 um its pixels are finer
        than 1 um, so that there are 32.
    standardize
        Subtract the mean over its section from each number, and divide by the standard deviation there (a number that
        is constant in a section becomes 0). This removes the effect of stain and scanner; it needs sections of similar
        tissue, whole and not cropped, in training and prediction alike.
    progress
        Show a progress bar.
    copy
        Return a copy with the features, and leave `adata` unchanged.

    Returns
    -------
    None, or with `copy=True` a new AnnData. These fields are set, once all features are there:

    `.obsm[key_added]` : float32 (n_obs, 104)
        The features, the 52 of the spot first.
    `.uns[key_added]` : dict
        `encoder`, `encoder_version` and `license`; `names` of the features, in order; `views`, `patch_um` and
        `um_per_pixel`, one for each field of view; `standardized`; `version` of hist2scrna.

    Raises
    ------
    KeyError
        If a key, library, image or scale factor is missing.
    FileNotFoundError
        If the image is not there.
    ValueError
        If a value is wrong: coordinates that are NaN, swapped or off the image, a size that is not positive.

    Examples
    --------
    >>> h2s.pp.morphology_features(train, progress=False)
    >>> train.obsm["X_morphology"].shape
    (60, 104)
    """
    encoder = morphology_encoder()
    opened = open_sections(adata, Source(library_key, spatial_key, img_key, image, mpp=mpp))
    if opened.patches_are_files:
        raise ValueError(
            "Morphology also describes what lies around a patch, and patches in files do not show it. Pass image= with "
            "the image that they were cut from."
        )
    spots = read_spots(opened, patch=encoder_patch_size(encoder, patch_um=patch_um))
    assert spots.geometry is not None
    um = np.array([spots.geometry.um / encoder.widest * wider for wider in FIELDS_OF_VIEW.values()])
    px = spots.geometry.px // encoder.widest
    features = _describe(spots, px, progress)
    if standardize:
        _standardize(features, spots.section)
    log.info("%d features of %d spots, from %g um and %g um", features.shape[1], len(features), *um)
    target = adata.copy() if copy else adata
    target.obsm[key_added] = features
    target.uns[key_added] = {
        "encoder": encoder.name,
        "encoder_version": encoder.version,
        "license": encoder.license,
        "names": np.array(feature_names()),
        "views": np.array(list(FIELDS_OF_VIEW)),
        "patch_um": um,
        "um_per_pixel": um / px,
        "standardized": standardize,
        "version": __version__,
    }
    return target if copy else None


def _describe(spots: Spots, px: int, progress: bool) -> NDArray[np.float32]:
    """Cut each field of view by itself, `px` pixels wide, a few spots at a time, and describe them."""
    from tqdm.auto import tqdm

    assert spots.patches is not None
    size = max(1, CHUNK_PIXELS // px**2)
    widest = max(FIELDS_OF_VIEW.values())
    features = np.empty((len(spots), len(feature_names())), dtype=np.float32)
    with tqdm(total=len(spots), desc="describing", unit="spot", disable=not progress) as bar:
        for code, (image, side) in enumerate(zip(spots.patches.images, spots.patches.side, strict=True)):
            members = np.flatnonzero(spots.section == code)
            for start in range(0, len(members), size):
                chunk = members[start : start + size]
                columns = [
                    value
                    for wider in FIELDS_OF_VIEW.values()
                    for value in patch_statistics(
                        cut_patches(image, spots.xy[chunk], wider * side / widest, px)
                    ).values()
                ]
                features[chunk] = np.stack(columns, axis=1)
                bar.update(len(chunk))
    return features


def _standardize(features: NDArray[np.float32], section: NDArray[np.int64]) -> None:
    for code in np.unique(section):
        members = section == code
        values = features[members].astype(np.float64)
        values -= values.mean(axis=0)
        spread = values.std(axis=0)
        # What float32 cannot tell from a constant is one.
        constant = spread <= 1e-6 * np.abs(features[members]).max(axis=0)
        features[members] = np.where(constant, 0, values / np.where(constant, 1, spread))
