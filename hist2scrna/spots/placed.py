"""Which rows of AnnData are spots with a place: those off the tissue, and a few off the image, are left out."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.images.placement import off_image
from hist2scrna.messages import warn_user
from hist2scrna.spots.coordinates import as_coordinates
from hist2scrna.spots.features import as_features, not_finite

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hist2scrna.spots.sections import OpenedSections, Section

log = logging.getLogger(__name__)

# Of the spots of a section: more of them are no accident of its rim, but a wrong scale or a wrong image.
MOST_AWAY = 0.05


def placed_spots(opened: OpenedSections) -> OpenedSections:
    """Return the sections with the rows that are spots on the tissue and can be read.

    Positions of an array that are not under tissue (0 in `.obs["in_tissue"]`) are no spots, and left out. So are up to
    5 % of the spots of a section that have no coordinates, no features, or a center off the image; where there are
    more, all are kept, and reading them raises the error that says what is wrong.

    Parameters
    ----------
    opened
        The sections, and where to read.

    Warns
    -----
    UserWarning
        If spots were left out for want of a place.

    Raises
    ------
    KeyError
        If the coordinates, or the features, are missing.
    ValueError
        If these are no numbers of the right shape, or no position is under tissue.
    """
    adata, source = opened.adata, opened.source
    tissue = _under_tissue(adata)
    xy = as_coordinates(adata, source.spatial_key)
    away: NDArray[np.bool_] = np.array(~np.isfinite(xy).all(axis=1))
    if source.features_key is not None:
        away |= not_finite(as_features(adata, source.features_key))
    elif not opened.patches_are_files:
        for section in opened.members:
            away[section.rows] |= _off_its_image(section, xy[section.rows])
    away &= tissue
    for section in opened.members:
        n_spots = int(tissue[section.rows].sum())
        if away[section.rows].sum() > MOST_AWAY * n_spots:
            away[section.rows] = False
    if away.any():
        lack = "no features" if source.features_key is not None else "lie off the image"
        warn_user(
            f"{int(away.sum())} of {int(tissue.sum())} spots have no coordinates or {lack} (the first is "
            f"{adata.obs_names[away][0]!r}): they are left out, and what is written for them is NaN."
        )
    return restricted(opened, np.flatnonzero(tissue & ~away))


def restricted(opened: OpenedSections, rows: NDArray[np.int64]) -> OpenedSections:
    """Return the sections with these rows alone; images that are open stay so, and sections without a row go."""
    if len(rows) == len(opened.codes):
        return opened
    present, codes = np.unique(opened.codes[rows], return_inverse=True)
    members = []
    for code, old in enumerate(present):
        section = copy.copy(opened.members[old])
        section.rows = np.flatnonzero(codes == code)
        members.append(section)
    codes = codes.astype(np.int64)
    return replace(opened, adata=opened.adata[rows], members=tuple(members), codes=codes, rows=opened.rows[rows])


def spread(values: NDArray[Any], rows: NDArray[np.int64], n: int) -> NDArray[Any]:
    """Return values of some rows as those of all `n`, NaN in the others."""
    if len(rows) == n:
        return values
    whole = np.full((n, *values.shape[1:]), np.nan, dtype=values.dtype)
    whole[rows] = values
    return whole


def _under_tissue(adata: AnnData) -> NDArray[np.bool_]:
    """Return which rows are spots; all, where nothing tells positions off the tissue apart."""
    everywhere = np.ones(adata.n_obs, dtype=bool)
    if keys.IN_TISSUE not in adata.obs:
        return everywhere
    column = adata.obs[keys.IN_TISSUE].astype(str).replace({"True": "1", "False": "0"})
    off = (pd.to_numeric(column, errors="coerce") == 0).to_numpy()
    if off.all():
        raise ValueError(
            f"adata.obs['{keys.IN_TISSUE}'] is 0 in all {len(off)} rows: no position is under tissue. Give the "
            f"filtered counts, or drop this column to use every position: del adata.obs['{keys.IN_TISSUE}']."
        )
    if off.any():
        log.info(
            "%d of %d rows are positions off the tissue (adata.obs[%r] is 0): they are no spots, and left out",
            *(int(off.sum()), len(off), keys.IN_TISSUE),
        )
    return everywhere & ~off


def _off_its_image(section: Section, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which spots lie off the image; none where x and y exchanged would bring them onto it."""
    here = np.isfinite(xy).all(axis=1)
    away = np.zeros(len(xy), dtype=bool)
    away[here] = off_image(xy[here], section.image, section.scale.spot_px)
    exchanged = off_image(xy[here][:, ::-1], section.image, section.scale.spot_px)
    return away if exchanged.any() else np.zeros(len(xy), dtype=bool)
