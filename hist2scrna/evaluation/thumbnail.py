"""The small image of a section on which the maps of an evaluation are drawn."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.images.base import thumbnail_grid
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.spots.sections import Section

log = logging.getLogger(__name__)

LONGEST, QUALITY = 600, 80
# Read at twice the size before it is shrunk, so that shrinking smooths.
FINER = 2
# Pixels that are decoded for one image at most.
BUDGET = 2**28


def thumbnail_jpeg(
    section: Section, low: NDArray[np.float64], high: NDArray[np.float64], longest: int = LONGEST
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
            image = section.coarse_image(longest / span)
            level, step = thumbnail_grid(image, max(1, int(longest * FINER * max(image.size()) / image.scale / span)))
            scale, size = image.scales[level] / step, -(-np.array(image.size(level)) // step)
            first = np.clip(np.floor(low * scale).astype(int), 0, size - 1)
            last = np.clip(np.ceil(high * scale).astype(int), first + 1, size)
            if np.prod((last - first) * step, dtype=float) > BUDGET:
                raise ValueError(f"no level of {image.origin} is coarse enough to be read for it")
            window = Image.fromarray(np.ascontiguousarray(image.strided(level, step, first, last)))
    except (KeyError, ValueError, OSError, ImportError) as error:
        log.log(HINT, "no image of section %s for the maps: %s", section.name, error)
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
