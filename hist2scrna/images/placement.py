"""Check that the spots lie on the image: scale, orientation and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.images.base import LONGEST_THUMBNAIL, thumbnail, thumbnail_grid, to_image_pixels
from hist2scrna.images.tissue import stained_ground
from hist2scrna.messages import warn_of_section

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from hist2scrna.images.base import SectionImage

THUMBNAIL_BUDGET = 2**27
FEWEST_TO_JUDGE = 10
RGB = 3
# JPEG rounds grays to a tint.
MOST_TINT = 6
# Of the spots: another placement is told where it has so many more of them on tissue.
MOST_OFF_TISSUE, CLEARLY = 0.9, 0.1


def off_image(xy: NDArray[np.float64], image: SectionImage, spot_px: float | None) -> NDArray[np.bool_]:
    """Return which centers `(n, 2)`, in full-resolution pixels, lie off the image by more than the radius of a spot."""
    width, height = (edge / image.scale for edge in image.size())
    slack = 0.0 if spot_px is None else spot_px / 2
    x, y = xy.T
    return (x < -slack) | (y < -slack) | (x > width + slack) | (y > height + slack)


def check_placement(
    name: str, names: pd.Index, xy: NDArray[np.float64], image: SectionImage, spot_px: float | None, where: str
) -> float:
    """Refuse coordinates that are not on the image, or on its tissue only when x and y are exchanged.

    Where they would lie on it with y turned over, it warns: y is taken to point up in many plots.

    Returns the fraction of spots on tissue, 1 where that is not judged.

    Parameters
    ----------
    name, names
        Name of the section and of its spots, for messages.
    xy
        `(n, 2)` full-resolution pixels, x right, y down.
    image
        The image of the section.
    spot_px
        Diameter of a spot in full-resolution pixels, if known.
    where
        The slot of the coordinates, for messages.

    Raises
    ------
    ValueError
        If a center lies off the image by more than the radius of a spot, or the tissue shows that the columns are
        exchanged.
    """
    width, height = (edge / image.scale for edge in image.size())
    away = off_image(xy, image, spot_px)
    swapped_fit = not off_image(xy[:, ::-1], image, spot_px).any()
    exchange = (
        f"With x and y exchanged they lie on it: {where} must be (x, y), x to the right. Exchange its columns: "
        f"{where} = {where}[:, ::-1]."
    )
    if away.any():
        way_out = (
            exchange
            if swapped_fit
            else "The coordinates must be in full-resolution pixels of this image: check "
            f"scalefactors['tissue_..._scalef'] (here {image.scale:.4g} pixels of the image are one of those), or "
            "pass img_key= or image=."
        )
        raise ValueError(
            f"{int(away.sum())} of {len(xy)} spots of section {name!r} lie outside the image: {where} reaches from "
            f"({_px(xy[:, 0].min())}, {_px(xy[:, 1].min())}) to ({_px(xy[:, 0].max())}, {_px(xy[:, 1].max())}), the "
            f"image ({image.origin}) to ({width:.0f}, {height:.0f}); the first is {names[away][0]!r}. {way_out}"
        )
    level, _ = thumbnail_grid(image, LONGEST_THUMBNAIL)
    too_large = np.prod(image.size(level), dtype=float) > THUMBNAIL_BUDGET
    if len(xy) < FEWEST_TO_JUDGE or too_large:
        return 1.0
    upside_down = np.stack([xy[:, 0], height - xy[:, 1]], axis=1)
    as_given, exchanged, turned = _fraction_on_tissue(image, (xy, xy[:, ::-1], upside_down), spot_px)
    only = f"Only {as_given:.0%} of the spots of section {name!r} lie on tissue in the image ({image.origin}), but "
    if swapped_fit and _clearly_better(exchanged, as_given):
        raise ValueError(f"{only}{exchanged:.0%} would with x and y exchanged. {exchange}")
    if _clearly_better(turned, as_given):
        warn_of_section(
            name,
            "coordinates that point up",
            f"{only}{turned:.0%} would with y turned over: y must point down, from the top of the image. If it points "
            f"up in {where}: {where}[:, 1] = {height:.0f} - {where}[:, 1].",
        )
    return as_given


def _clearly_better(other: float, as_given: float) -> bool:
    return as_given < MOST_OFF_TISSUE <= other and other - as_given >= CLEARLY


def _px(place: float) -> str:
    """Return a coordinate without its fraction, in powers of ten where it is no pixel of any image."""
    return f"{place:.0f}" if abs(place) < 1e9 else f"{place:.3g}"


def is_blank(image: SectionImage) -> bool:
    """Tell whether an image is of one color throughout; of one that is too large to look at nothing is told."""
    small = _looked_at(image)
    return small is not None and bool((np.ptp(small, axis=(0, 1)) == 0).all())


def _looked_at(image: SectionImage) -> NDArray[np.uint8] | None:
    """Return the thumbnail of one image of three channels; None of a stack, or where it would be too large."""
    level, _ = thumbnail_grid(image, LONGEST_THUMBNAIL)
    if image.parts or image.channels != RGB or np.prod(image.size(level), dtype=float) > THUMBNAIL_BUDGET:
        return None
    return thumbnail(image)[0]


def is_gray(image: SectionImage) -> bool:
    """Tell whether an image of three channels has no color at all; of one without a picture nothing is told."""
    small = _looked_at(image)
    if small is None:
        return False
    small = small.astype(int)
    return bool(np.ptp(small) > 0 and (small.max(axis=2) - small.min(axis=2)).max() <= MOST_TINT)


def _fraction_on_tissue(
    image: SectionImage, placements: Sequence[NDArray[np.float64]], spot_px: float | None
) -> list[float]:
    """Return the fraction of spots on stained ground of each of several placements of them.

    The rule is that of :func:`hist2scrna.images.tissue.stained_ground`, blurred to the size of a spot. On the sections
    of HER2ST and of the mouse olfactory bulb it finds 96 to 100 % of the spots. An image of one color, or of
    grays, cannot be judged: all spots are taken to be right.
    """
    small, scale = thumbnail(image)
    if np.ptp(small.max(axis=2) - small.min(axis=2)) == 0:
        return [1.0] * len(placements)
    stained = stained_ground(small, max(1.0, (spot_px or 0.0) * scale / 2))

    def fraction(points: NDArray[np.float64]) -> float:
        column, row = np.floor(to_image_pixels(points, scale)).astype(int).T
        return float(stained[row.clip(0, stained.shape[0] - 1), column.clip(0, stained.shape[1] - 1)].mean())

    return [fraction(xy) for xy in placements]
