"""What is drawn around spots: their size, the window that holds them, and a small image of the tissue in it."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna import keys
from hist2scrna.images.base import thumbnail_grid
from hist2scrna.spots.library import image_scale, libraries, library_entry, open_image

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

LONGEST, QUALITY = 600, 80
# Twice as fine before it is shrunk, so that shrinking smooths.
FINER = 2
MARGIN = 0.03
# Pixels that are decoded for one image at most.
BUDGET = 2**28


def spot_diameter(adata: AnnData, library: str | None, xy: NDArray[np.float64]) -> float:
    """Return the diameter of a spot in full-resolution pixels.

    That of the library, or of the first for None; where it is not told, the median distance to the nearest other spot.
    """
    from scipy.spatial import cKDTree

    known = libraries(adata)
    entry = known.get(library, {}) if library is not None else next(iter(known.values()), {})
    told = (entry.get(keys.SCALEFACTORS) or {}).get(keys.SPOT_DIAMETER)
    if told is not None:
        return float(told)
    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1])) if len(xy) > 1 else 1.0


def corners(xy: NDArray[np.float64], diameter: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the top left and bottom right corner, `(2,)` each, of the window around spots `(n, 2)`, with a margin."""
    margin = max(diameter, MARGIN * float(np.ptp(xy, axis=0).max()))
    return xy.min(axis=0) - margin, xy.max(axis=0) + margin


def preview(
    adata: AnnData,
    library: str | None,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    longest: int = LONGEST,
) -> dict[str, Any] | None:
    """Return the image between two corners (x, y in full-resolution pixels), as far as it reaches.

    Returns
    -------
    `jpeg`, base64, no side longer than `longest`; `extent`, its left, right, bottom and top in full-resolution pixels;
    `scale`, its pixels per full-resolution pixel. None if there is no image, or none that can be read.
    """
    from PIL import Image

    span = float((high - low).max())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            image = open_image(adata, library, img_key=_coarse_enough(adata, library, longest / span))
            level, step = thumbnail_grid(image, max(1, int(longest * FINER * max(image.size()) / image.scale / span)))
            scale, size = image.scales[level] / step, -(-np.array(image.size(level)) // step)
            first = np.clip(np.floor(low * scale).astype(int), 0, size - 1)
            last = np.clip(np.ceil(high * scale).astype(int), first + 1, size)
            if np.prod((last - first) * step, dtype=float) > BUDGET:
                raise ValueError(f"no level of {image.origin} is coarse enough to be read for it")
            window = Image.fromarray(np.ascontiguousarray(image.strided(level, step, first, last)))
    except (KeyError, ValueError, OSError, ImportError) as error:
        log.info("no image of section %s for the maps: %s", library, error)
        return None
    left, top, right, bottom = (round(float(v), 2) for v in np.concatenate([first, last]) / scale)
    window.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    window.save(file, "JPEG", quality=QUALITY)
    return {
        "jpeg": base64.b64encode(file.getvalue()).decode("ascii"),
        "extent": [left, right, bottom, top],
        "scale": window.width / (right - left),
    }


def _coarse_enough(adata: AnnData, library: str | None, scale: float) -> str | None:
    """Return the smallest image in AnnData of at least this scale, else the finest; None if there is only a file."""
    name, entry = library_entry(adata, library)
    scales = {key: image_scale(entry, key, name) for key in entry.get(keys.IMAGES) or {}}
    fine = [key for key in scales if scales[key] >= scale]
    if fine:
        return min(fine, key=lambda key: scales[key])
    return max(scales, key=lambda key: scales[key]) if scales else None
