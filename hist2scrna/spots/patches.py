"""The patches of all spots, from the images of their sections or from files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna.images.patches import PatchGeometry, PatchSource
from hist2scrna.images.placement import check_placement, is_blank, is_gray
from hist2scrna.messages import listed, warn_user
from hist2scrna.spots.patch_files import open_patch_files
from hist2scrna.spots.scale import LARGEST_MPP, PATCH_PER_SPOT, default_patch_um
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hist2scrna.encoders import Encoder
    from hist2scrna.spots.sections import OpenedSections, Section

log = logging.getLogger(__name__)

# Few pixels a spot are no fault of the image where the spots are small: bins, cells, a fine lattice.
FINE_ENOUGH_PX = 32
COARSEST_UM = 1.2
LEAST_ON_TISSUE = 0.3
# Pixels as much wider than those of the training show less than the model has learned to read.
MOST_COARSER = 1.5
# Fields of view may reach beyond a small image, but not by far.
MOST_IMAGES_WIDE = 4
# Two millimeters at a quarter of a micron a pixel; more, by the dozen, would fill the memory.
MOST_PX = 8192


@dataclass(frozen=True)
class PatchSize:
    """How large a patch a model is given.

    Attributes
    ----------
    px
        Side in pixels, as the model sees it; or a function that returns it from the side in microns.
    um
        Side in microns; None: `widest` times `per_spot` spot diameters.
    finest_um
        Finest pixels, in microns, that a model was trained on: finer images are brought to these; None: they are not.
    per_spot
        Side in spot diameters, of the narrowest field of view where there are several.
    widest
        How many times as wide as the narrowest field of view it is.
    """

    px: int | Callable[[float], int]
    um: float | None = None
    per_spot: float = PATCH_PER_SPOT
    widest: int = 1
    finest_um: float | None = None

    def pixels(self, um: float) -> int:
        """Return the side in pixels of a patch that is `um` microns wide."""
        return self.px(um) if callable(self.px) else self.px


def encoder_patch_size(encoder: Encoder, *, patch_um: float | None = None, patch_px: int | None = None) -> PatchSize:
    """Return how large the patches are that an encoder is given: as wide as its widest field of view.

    Parameters
    ----------
    encoder
        The encoder.
    patch_um
        Side of its narrowest field of view in microns; None: its own, else one and a half spot diameters.
    patch_px
        Side of the whole patch in pixels; None: its own.

    Raises
    ------
    ValueError
        If the encoder cannot be given so many pixels, or the side in microns is not positive.
    """
    if patch_um is not None and not (np.isfinite(patch_um) and patch_um > 0):
        raise ValueError(f"Expected `patch_um` to be a positive number, found {patch_um}.")
    if patch_px is not None:
        encoder.check_side(patch_px)
    um = encoder.um if patch_um is None else patch_um * encoder.widest
    return PatchSize(encoder.side if patch_px is None else patch_px, um, widest=encoder.widest)


def open_patches(opened: OpenedSections, xy: NDArray[np.float64], size: PatchSize) -> tuple[PatchSource, PatchGeometry]:
    """Return the patches of all spots, and what a patch means; coordinates are checked against the images.

    Parameters
    ----------
    opened
        The sections.
    xy
        `(n, 2)` coordinates in full-resolution pixels.
    size
        How large a patch is.

    Raises
    ------
    KeyError, FileNotFoundError, ImportError, ValueError
        If an image or its scale is missing or wrong, or spots do not lie on it.
    """
    if opened.patches_are_files:
        return open_patch_files(opened, xy, size.pixels, size.um)
    where = f"adata.obsm[{opened.source.spatial_key!r}]"
    on_tissue = {}
    for section in opened.members:
        names, spot_px = opened.adata.obs_names[section.rows], section.scale.spot_px
        on_tissue[section.name] = check_placement(section.name, names, xy[section.rows], section.image, spot_px, where)
    _warn_of_images(opened, on_tissue, where)
    channels = {section.name: section.image.channels for section in opened.members}
    if len(set(channels.values())) > 1:
        raise ValueError(f"The sections have images of different numbers of channels: {channels}. Give each the same.")
    scales = [section.scale for section in opened.members]
    for section in opened.members:
        _check_image(section)
    um = size.widest * default_patch_um(scales, size.per_spot) if size.um is None else float(size.um)
    for section in opened.members:
        longest = max(section.image.size()) / section.image.scale * section.scale.mpp
        if um > MOST_IMAGES_WIDE * longest:
            raise ValueError(
                f"A patch of {um:g} um is wider than {MOST_IMAGES_WIDE} times the image of section {section.name!r} "
                f"({section.image.origin}), which is {longest:.4g} um wide at {section.scale.mpp:g} um a pixel. Pass a "
                "smaller patch_um=, or the right mpp=."
            )
    px = size.pixels(um)
    if px > MOST_PX:
        raise ValueError(
            f"A patch of {um:g} um would be {px:,} pixels wide, more than {MOST_PX:,}. Pass a smaller patch_um= or "
            "patch_px=, or the right mpp=."
        )
    log.log(HINT, "patches: %g um, %d px", um, px)
    images = [section.image for section in opened.members]
    first = [first_pixels(section, um, px, size.finest_um) for section in opened.members]
    patches = PatchSource(images, [um / scale.mpp for scale in scales], xy, opened.codes, px, first)
    return patches, PatchGeometry(um, px, scales[0].known_from)


def _check_image(section: Section) -> None:
    """Refuse an image in which nothing can be seen: of one color, or of pixels wider than any tissue."""
    where = f"The image of section {section.name!r} ({section.image.origin})"
    if pixel_um(section) > LARGEST_MPP:
        raise ValueError(
            f"{where} would have pixels of {pixel_um(section):.3g} um: it has {section.image.scale:.3g} pixels per "
            "full-resolution pixel. Correct scalefactors['tissue_..._scalef'], or pass the right mpp=."
        )
    if is_blank(section.image):
        raise ValueError(f"{where} is of one color throughout: nothing can be read from it. Pass image= or img_key=.")


def pixel_um(section: Section) -> float:
    """Return the side of a pixel of the image of a section, in microns."""
    return section.scale.mpp / section.image.scale


def first_pixels(section: Section, um: float, px: int, finest_um: float | None) -> int:
    """Return how many pixels wide a patch is cut before it is enlarged to `px`: as many as the training had."""
    if finest_um is None or finest_um <= MOST_COARSER * max(pixel_um(section), um / px):
        return px
    log.info(
        "section %s: the image has pixels of %.2g um, those of the training had %.2g: patches are brought to these",
        *(section.name, pixel_um(section), finest_um),
    )
    return max(1, round(um / finest_um))


def _warn_of_images(opened: OpenedSections, on_tissue: dict[str, float], where: str) -> None:
    """Warn of images that lack what a model reads, each time once, with all the sections that it holds for."""
    few, gray, empty = [], [], [name for name, share in on_tissue.items() if share < LEAST_ON_TISSUE]
    for section in opened.members:
        spot_px, scale = section.scale.spot_px, section.image.scale
        if spot_px is not None and spot_px * scale < FINE_ENOUGH_PX and pixel_um(section) > COARSEST_UM:
            few.append(section)
        if is_gray(section.image):
            gray.append(section.name)
    if few:
        first, others = few[0], [section.name for section in few[1:]]
        warn_user(
            f"A spot of section {first.name!r}{_also(others)} covers only "
            f"{(first.scale.spot_px or 0) * first.image.scale:.0f} px of the image ({first.image.origin}), of "
            f"{pixel_um(first):.2g} um each: nuclei can hardly be seen. Pass image= with the full-resolution file, if "
            "there is one."
        )
    if gray:
        warn_user(
            f"The image of section {gray[0]!r}{_also(gray[1:])} is gray, and is read as if it were stained with H&E: "
            "models and encoders of H&E read colors. Pass image= with the H&E image, or img_key=, its name in .uns."
        )
    if empty:
        warn_user(
            f"Only {on_tissue[empty[0]]:.0%} of the spots of section {empty[0]!r}{_also(empty[1:])} lie on tissue in "
            f"the image. Check that {where} and the image belong together."
        )


def _also(others: list[str]) -> str:
    return f" (as of {len(others)} more: {listed(others)})" if others else ""
