"""What a patch means, and the patches of all spots, cut when they are needed."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.images.base import cut_patches, enlarged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hist2scrna.images.base import SectionImage

CACHE_BYTES = 2 * 2**30
AHEAD = 256


@dataclass(frozen=True)
class PatchGeometry:
    """What a patch means: `um` microns of tissue, seen by the model as `px` x `px` pixels, centered on the spot.

    `scale_from` says how microns were known in training: `"argument"`, `"metadata"` (of AnnData), `"image file"` or
    `"spot diameter"`.
    """

    um: float
    px: int
    scale_from: str


class PatchSource:
    """The patches of all spots; each is cut once, and kept while all of them fit in 2 GiB.

    Then an image is forgotten once all patches of its section are cut. One that is decoded whole (a JPEG, say) gives
    all of them at the first call, so that one such image is in memory at a time.

    Parameters
    ----------
    images
        Image of each section.
    side
        Side of a patch in full-resolution pixels, for each section.
    xy
        `(n, 2)` centers in full-resolution pixels.
    section
        `(n,)` number of the section of each spot.
    px
        Side of a patch in pixels.
    first_px
        Side in pixels at which the patches of each section are cut before they are enlarged to `px`; none: at `px`.
    """

    def __init__(
        self,
        images: Sequence[SectionImage],
        side: Sequence[float],
        xy: NDArray[np.float64],
        section: NDArray[np.int64],
        px: int,
        first_px: Sequence[int] = (),
    ) -> None:
        self.images = images
        self.side = side
        self.xy = xy
        self.section = section
        self.px = px
        self.first_px = tuple(first_px)
        self.channels = images[0].channels if images else 3
        self._empty()

    def _empty(self) -> None:
        shape = (len(self.xy), self.channels, self.px, self.px)
        self._cache = np.empty(shape, dtype=np.uint8) if math.prod(shape) <= CACHE_BYTES else None
        self._cut = np.zeros(len(self.xy), dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        # Another process cuts its own.
        return {name: value for name, value in vars(self).items() if name not in ("_cache", "_cut")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._empty()

    def read(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the patches of the spots `index`, `(len(index), channels, px, px)` uint8."""
        if self._cache is None:
            return self.cut(index)
        missing = np.unique(index[~self._cut[index]])
        if len(missing):
            ahead = [code for code in np.unique(self.section[missing]) if self._in_one_piece(code)]
            missing = np.union1d(missing, np.flatnonzero(np.isin(self.section, ahead) & ~self._cut))
            missing = missing[np.argsort(self.section[missing], kind="stable")]
            for start in range(0, len(missing), AHEAD):
                chunk = missing[start : start + AHEAD]
                self._cache[chunk] = self.cut(chunk)
                self._cut[chunk] = True
                self._release(np.unique(self.section[chunk]))
        return self._cache[index]

    def _in_one_piece(self, code: int) -> bool:
        return code < len(self.images) and self.images[code].in_one_piece

    def _release(self, codes: NDArray[np.int64]) -> None:
        for code in codes:
            if code < len(self.images) and self._cut[self.section == code].all():
                self.images[code].release()

    def release(self, code: int) -> None:
        """Forget what was decoded of the image of a section."""
        if code < len(self.images):
            self.images[code].release()

    def of_section(self, code: int, index: NDArray[np.int64]) -> PatchSource:
        """Return the patches of the spots `index` of one section by themselves; what has been cut is cut again."""
        first, section = self.first_px[code : code + 1], np.zeros(len(index), dtype=np.int64)
        return PatchSource([self.images[code]], [self.side[code]], self.xy[index], section, self.px, first)

    def fingerprint(self, index: NDArray[np.int64]) -> str:
        """Return what the patches of the spots `index`, of one section, depend on: the image, and where they are cut.

        An image in a file is told by path, size and time of change, another by its pixels.
        """
        code = int(self.section[index[0]])
        first = self.first_px[code] if self.first_px else self.px
        digest = hashlib.sha256(f"{self.images[code].fingerprint()} {self.images[code].scales} ".encode())
        digest.update(f"{self.side[code]!r} {first} {self.px} ".encode())
        digest.update(np.ascontiguousarray(self.xy[index]).data)
        return digest.hexdigest()

    def window(self, code: int, middle: NDArray[np.float64], side: float, px: int) -> NDArray[np.uint8]:
        """Return a square of the image of a section, `(channels, px, px)` uint8, from no finer pixels than its patches.

        Parameters
        ----------
        code
            Number of the section.
        middle
            `(2,)` its middle in full-resolution pixels, x and y.
        side, px
            Its side in full-resolution pixels, and in pixels.
        """
        first = self.first_px[code] if self.first_px else self.px
        at_first = min(px, max(1, round(side * first / self.side[code]))) if first < self.px else px
        cut = cut_patches(self.images[code], middle[None], side, at_first)
        return (cut if at_first == px else enlarged(cut, px))[0]

    def cut(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the patches of the spots `index` as :meth:`read` does, and keep none; threads may call it at once."""
        patches = np.empty((len(index), self.channels, self.px, self.px), dtype=np.uint8)
        for code in np.unique(self.section[index]):
            within = self.section[index] == code
            px = self.first_px[code] if self.first_px else self.px
            cut = cut_patches(self.images[code], self.xy[index[within]], self.side[code], px)
            patches[within] = cut if px == self.px else enlarged(cut, self.px)
        return patches
