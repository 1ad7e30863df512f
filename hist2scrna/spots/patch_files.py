"""Patches stored as one file per spot, read when they are needed."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hist2scrna import keys
from hist2scrna.images.patches import PatchGeometry, PatchSource
from hist2scrna.messages import require_key, warn_user
from hist2scrna.spots.scale import PATCH_UM_WITHOUT_SPOT
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from hist2scrna.spots.sections import OpenedSections

log = logging.getLogger(__name__)

PNG_END = b"IEND\xaeB`\x82"
MODES = ("RGB", "RGBA", "L", "LA", "P", "1")
# Patches are small: a file that claims more is damaged or no patch.
LARGEST_SIDE = 4096
# Sides that differ by less than a thousandth are the same.
SAME = 1e-3


def png_side(path: Path) -> int:
    """Return the side of a square PNG in pixels, from its header; nothing is decoded.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no complete PNG of 8 bits a channel, not square, or larger than 4,096 pixels a side.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise FileNotFoundError(f"No patch at '{path}'.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as image:
                (width, height), mode = image.size, image.mode
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, OSError) as error:
        raise ValueError(f"Patch '{path}' is not a PNG that can be read: {error}. Write it again.") from error
    if width != height or width > LARGEST_SIDE or mode not in MODES:
        raise ValueError(
            f"Expected patch '{path}' to be a square RGB image of at most {LARGEST_SIDE} x {LARGEST_SIDE} px, found "
            f"{width} x {height} px in mode {mode}."
        )
    with path.open("rb") as file:
        file.seek(-len(PNG_END), 2)
        if file.read() != PNG_END:
            raise ValueError(f"Patch '{path}' is truncated: its end is missing. Copy or write it again.")
    return width


def read_png(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of a patch, `(side, side, 3)` uint8; transparency is laid on white.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`png_side`, and if the pixels are damaged.
    """
    from PIL import Image

    png_side(path)
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode == "RGB" and "transparency" not in image.info:
                return np.asarray(image)
            layer = image.convert("RGBA")
    except (SyntaxError, ValueError, OSError) as error:
        raise ValueError(f"Patch '{path}' is damaged: {error}. Copy or write it again.") from error
    ground = Image.new("RGBA", layer.size, "white")
    return np.asarray(Image.alpha_composite(ground, layer).convert("RGB"))


class PatchFiles(PatchSource):
    """The patches of all spots, read from their files: cut to the middle, and brought to the size that is asked for.

    Shrunk by averaging over areas, enlarged bilinearly; a file of the right size is given pixel for pixel.

    Parameters
    ----------
    files
        One PNG a spot.
    part
        Which part of its side is kept, around the middle, for each section: 1 for all.
    xy
        `(n, 2)` coordinates of the spots.
    section
        `(n,)` number of the section of each spot.
    px
        Side of a patch in pixels.
    """

    def __init__(
        self,
        files: Sequence[Path],
        part: Sequence[float],
        xy: NDArray[np.float64],
        section: NDArray[np.int64],
        px: int,
    ) -> None:
        super().__init__([], [], xy, section, px)
        self.files = files
        self.part = part

    def of_section(self, code: int, index: NDArray[np.int64]) -> PatchFiles:
        """Return the patches of the spots `index` of one section by themselves."""
        files, section = [self.files[spot] for spot in index], np.zeros(len(index), dtype=np.int64)
        return PatchFiles(files, [self.part[code]], self.xy[index], section, self.px)

    def fingerprint(self, index: NDArray[np.int64]) -> str:
        """Return what the patches of the spots `index` depend on: paths, sizes and times of change of their files."""
        digest = hashlib.sha256(f"{self.px} ".encode())
        for spot in index:
            stat = self.files[spot].stat()
            about = f"{self.files[spot].resolve()} {stat.st_size} {stat.st_mtime_ns} {self.part[self.section[spot]]!r}"
            digest.update(f"{about}\n".encode())
        return digest.hexdigest()

    def cut(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the patches of the spots `index`, from their files."""
        patches = np.empty((len(index), 3, self.px, self.px), dtype=np.uint8)
        for i, spot in enumerate(index):
            pixels = read_png(self.files[spot])
            patches[i] = _resize(pixels, self.part[self.section[spot]], self.px).transpose(2, 0, 1)
        return patches


def _resize(pixels: NDArray[np.uint8], part: float, px: int) -> NDArray[np.uint8]:
    from PIL import Image

    side = len(pixels)
    if part == 1 and side == px:
        return pixels
    rim = side * (1 - part) / 2
    how = Image.Resampling.BOX if side * part >= px else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize((px, px), how, box=(rim, rim, side - rim, side - rim)))


def open_patch_files(
    opened: OpenedSections, xy: NDArray[np.float64], pixels: Callable[[float], int], patch_um: float | None
) -> tuple[PatchFiles, PatchGeometry]:
    """Return the patches that lie in the folders named in `.uns["spatial"]`, and what they mean.

    Parameters
    ----------
    opened
        The sections; `.obs["patch_file"]` names the file of each spot.
    xy
        `(n, 2)` coordinates of the spots.
    pixels
        Returns the side of a patch in pixels, as the model sees it, from its side in microns.
    patch_um
        Side of a patch in microns: the middle of wider patches is taken. None: that of the narrowest folder.

    Raises
    ------
    KeyError
        If `.obs["patch_file"]` is missing.
    FileNotFoundError
        If a folder is missing.
    ValueError
        If patches show less than `patch_um`.
    """
    obs = opened.adata.obs
    require_key(
        obs,
        keys.PATCH_FILE,
        "adata.obs",
        f"It names the patch of each spot in adata.uns['{keys.SPATIAL}'][library]['{keys.METADATA}']"
        f"['{keys.PATCH_FOLDER}']. Read the folder with io.read_patch_folder, or pass image=.",
    )
    if patch_um is not None and not (np.isfinite(patch_um) and patch_um > 0):
        raise ValueError(f"Expected `patch_um` to be a positive number, found {patch_um}.")
    folders, sides = [], []
    for section in opened.members:
        folder = Path(str(section.entry[keys.METADATA][keys.PATCH_FOLDER]))
        if not folder.is_dir():
            raise FileNotFoundError(
                f"No folder '{folder}', where the patches of section {section.name!r} should lie. Read it again with "
                "io.read_patch_folder where it is now."
            )
        folders.append(folder)
        side = section.entry[keys.METADATA].get(keys.PATCH_SIDE_UM)
        sides.append(None if side is None else float(side))
    known = [side for side in sides if side is not None]
    um = float(patch_um) if patch_um is not None else min(known, default=PATCH_UM_WITHOUT_SPOT)
    unknown = [name for name, side in zip(opened.names, sides, strict=True) if side is None]
    if unknown:
        more = f", as of {len(unknown) - 1} more," if len(unknown) > 1 else ""
        warn_user(
            f"How much tissue the patches of section {unknown[0]!r} show{more} is not known: they are taken as {um:g} "
            "um wide. Pass patch_um= to io.read_patch_folder."
        )
    for name, side in zip(opened.names, sides, strict=True):
        if side is not None and side < um * (1 - SAME):
            raise ValueError(
                f"The patches of section {name!r} show {side:g} um of tissue, and {um:g} um are needed here. Write "
                f"them from the image with io.write_patch_folder(..., patch_um={um:g}), or pass image=."
            )
    part = [1.0 if side is None or side < um * (1 + SAME) else um / side for side in sides]
    files = [folders[code] / str(file) for code, file in zip(opened.codes, obs[keys.PATCH_FILE], strict=True)]
    px = pixels(um)
    log.log(HINT, "patches: files, %g um, %d px", um, px)
    origin = "metadata" if known else "argument"
    return PatchFiles(files, part, xy, opened.codes, px), PatchGeometry(um, px, origin)
