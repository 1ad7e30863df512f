"""Stain normalization of a patch, by Macenko, as hist2RNA applies it before its encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHITE = 240
LEAST_DENSITY = 0.15
PERCENTILES = (1, 99)
# Hematoxylin and eosin of the reference, one column each, and the largest concentration of each.
REFERENCE = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
REFERENCE_MAXIMA = np.array([1.9705, 1.0308])
BRIGHTEST = 254
FEWEST_STAINED = 3
# Of optical density; below it is rounding.
LEAST_VARIANCE = 1e-9


def normalize_stain(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give an H&E patch the stains of a fixed reference.

    The two stains span the plane in which the optical densities of the stained pixels vary most; each pixel is the sum
    of the two in amounts found by least squares; the amounts are scaled to those of the reference, and the colors of
    the reference put in place. A patch in which no two stains can be told, such as a blank one, is returned as it is.

    Source: Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009, with the
    constants and the rounding of hist2RNA.

    Parameters
    ----------
    patch
        `(height, width, 3)` uint8, RGB.

    Returns
    -------
    A new array of the same shape and type.

    Raises
    ------
    ValueError
        If it is no RGB image of 8 bits.

    Examples
    --------
    >>> h2s.pp.normalize_stain(picture).shape == picture.shape
    True
    """
    patch = np.asarray(patch)
    if patch.ndim != 3 or patch.shape[2] != 3 or patch.dtype != np.uint8:
        raise ValueError(
            f"Expected an RGB image of shape (height, width, 3), uint8; found {patch.shape} {patch.dtype}."
        )
    density = -np.log10((patch.reshape(-1, 3).astype(np.float64) + 1) / WHITE)
    stained = density[(density >= LEAST_DENSITY).all(axis=1)]
    stains = _stains(stained)
    if stains is None:
        return patch.copy()
    amounts = np.linalg.lstsq(stains, density.T, rcond=None)[0]
    largest = np.percentile(amounts, PERCENTILES[1], axis=1)
    if not (largest > 0).all():
        return patch.copy()
    amounts *= (REFERENCE_MAXIMA / largest)[:, None]
    colors = WHITE * np.exp(-REFERENCE @ amounts)
    colors[colors > 255] = BRIGHTEST
    return colors.T.reshape(patch.shape).astype(np.uint8)


def _stains(density: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return hematoxylin and eosin as columns of optical density, None where two stains cannot be told."""
    if len(density) < FEWEST_STAINED:
        return None
    values, vectors = np.linalg.eigh(np.cov(density.T))
    if not np.isfinite(values).all() or values[1] <= LEAST_VARIANCE:
        return None
    plane = vectors[:, 1:]
    along = density @ plane
    angle = np.arctan2(along[:, 1], along[:, 0])
    first, second = (plane @ np.array([np.cos(a), np.sin(a)]) for a in np.percentile(angle, PERCENTILES))
    return np.column_stack([first, second] if first[0] > second[0] else [second, first])
