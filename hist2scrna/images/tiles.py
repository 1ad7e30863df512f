"""Images in files, read tile by tile; recently decoded tiles are kept in a cache of bounded size."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from abc import abstractmethod
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.images.base import SectionImage
from hist2scrna.images.pixels import check_size

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

CACHE_BYTES = 512 * 2**20


class TileCache:
    """Decoded tiles of all images, those used last, in at most `limit` bytes (or the last one, if it is larger).

    There is one in each process, and a worker begins with none. Threads share it; of several that miss the same tile,
    one decodes it, and the others wait for that.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.nbytes = 0
        self._tiles: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding: dict[Hashable, threading.Lock] = {}
        # Another thread of the parent may hold the lock at the very moment of the fork.
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._decoding = {}
        self.clear()

    def get(self, key: Hashable, decode: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the tile `key`, read-only; `decode` makes it where it is not kept."""
        with self._lock:
            if (tile := self._kept(key)) is not None:
                return tile
            alone = self._decoding.setdefault(key, threading.Lock())
        with alone:
            with self._lock:
                if (tile := self._kept(key)) is not None:
                    return tile
            try:
                tile = np.ascontiguousarray(decode())
                tile.flags.writeable = False
                self._keep(key, tile)
            finally:
                with self._lock:
                    self._decoding.pop(key, None)
        return tile

    def _kept(self, key: Hashable) -> NDArray[np.uint8] | None:
        tile = self._tiles.get(key)
        if tile is not None:
            self._tiles.move_to_end(key)
        return tile

    def _keep(self, key: Hashable, tile: NDArray[np.uint8]) -> None:
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self.nbytes += tile.nbytes
            while self.nbytes > self.limit and len(self._tiles) > 1:
                self.nbytes -= self._tiles.popitem(last=False)[1].nbytes

    def holds(self, key: Hashable) -> bool:
        """Whether a tile is at hand."""
        return key in self._tiles

    def forget(self, image: Hashable) -> None:
        """Drop the tiles whose key begins with `image`."""
        with self._lock:
            for key in [key for key in self._tiles if isinstance(key, tuple) and key[0] == image]:
                self.nbytes -= self._tiles.pop(key).nbytes

    def clear(self) -> None:
        """Drop all."""
        with self._lock:
            self._tiles.clear()
            self.nbytes = 0


CACHE = TileCache()


class TiledImage(SectionImage):
    """An image in a file, on a grid of tiles at each level. Subclasses say what the grid is and decode a tile.

    No file is held open, so that images can be handed to other processes; a copy opens the file anew.

    Attributes
    ----------
    path
        The file or folder.
    """

    path: Path

    def _lay_out(
        self,
        path: Path,
        scale: float,
        sizes: Sequence[tuple[int, int]],
        tiles: Sequence[tuple[int, int]],
        mpp: float | None = None,
    ) -> list[int]:
        """Take over the (width, height) of each level and of its tiles; return which levels are used, finest first.

        Raises
        ------
        ImageError
            If an image is beyond any sane size, or a tile too large to decode.
        """
        check_size(str(path), *sizes[0], tiles[0])
        kept = fitting_levels(sizes)
        if len(kept) < len(sizes):
            log.info(
                "%s: levels of %s left out: not the same image",
                path,
                [sizes[i] for i in set(range(len(sizes))) - set(kept)],
            )
        for level in kept[1:]:
            check_size(str(path), *sizes[level], tiles[level])
        self.path = path
        self.origin = str(path)
        self.mpp = mpp
        self.scales = tuple(scale * level_scale(sizes[kept[0]], sizes[level]) for level in kept)
        self._sizes = [sizes[level] for level in kept]
        self._tiles = [tiles[level] for level in kept]
        # Two readers of a file cut it into other tiles.
        self._key = (type(self).__name__, self.origin, path.stat().st_mtime_ns)
        self.in_one_piece = all(edge <= tile for edge, tile in zip(self._sizes[0], self._tiles[0], strict=True))
        return kept

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.scale)

    @abstractmethod
    def _decode(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        """Return a tile as RGB, `(height, width, 3)`, cut off where the level ends.

        Raises
        ------
        ImageError
            If it is damaged.
        """

    def size(self, level: int = 0) -> tuple[int, int]:
        """Width and height of a level."""
        return self._sizes[level]

    def fingerprint(self) -> str:
        """Return the path, and size and time of change of the file, or of all files of the folder."""
        files = [self.path] if self.path.is_file() else sorted(f for f in self.path.rglob("*") if f.is_file())
        digest = hashlib.sha256(f"{type(self).__name__} {self.path.resolve()}".encode())
        for file in files:
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def release(self) -> None:
        """Forget the decoded tiles of this image."""
        CACHE.forget(self._key)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a window, decoding only the tiles under it that are not held."""
        window = np.empty((height, width, 3), dtype=np.uint8)
        tile_width, tile_height = self._tiles[level]
        for row in range(y // tile_height, -(-(y + height) // tile_height)):
            for column in range(x // tile_width, -(-(x + width) // tile_width)):
                tile = CACHE.get(
                    (self._key, level, row, column),
                    lambda row=row, column=column: self._decode(level, row, column),  # type: ignore[misc]
                )
                top, left = row * tile_height, column * tile_width
                y0, y1 = max(y, top), min(y + height, top + tile.shape[0])
                x0, x1 = max(x, left), min(x + width, left + tile.shape[1])
                window[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return window

    def extent(self, level: int, row: int, column: int) -> tuple[int, int, int, int]:
        """Return the left, top, width and height of a tile, cut off where the level ends."""
        (tile_width, tile_height), (width, height) = self._tiles[level], self._sizes[level]
        left, top = column * tile_width, row * tile_height
        return left, top, min(tile_width, width - left), min(tile_height, height - top)


def fitting_levels(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Return the levels that are the first one made smaller, each smaller than the one before.

    Both sides must have shrunk alike, give or take a pixel: some scanners pad coarse levels to whole tiles, and a label
    or another crop is no level at all.
    """
    kept = [0]
    for level in range(1, len(sizes)):
        sides = list(zip(sizes[level], sizes[0], strict=True))
        most, least = min((s + 1) / f for s, f in sides), max((s - 1) / f for s, f in sides)
        if least <= most and 0 < max(sizes[level]) < max(sizes[kept[-1]]):
            kept.append(level)
    return kept


def level_scale(full: tuple[int, int], size: tuple[int, int]) -> float:
    """Return pixels of a level per pixel of the finest, from their sizes.

    Writers that shrink by a whole number drop, or fill up, the last row and column where it does not divide the size:
    then it is exactly that number. Else it is the ratio of the longer sides.
    """
    whole = max(1, round(max(full) / max(size)))
    if all(side in (edge // whole, -(-edge // whole)) for side, edge in zip(size, full, strict=True)):
        return 1.0 / whole
    return max(size) / max(full)
