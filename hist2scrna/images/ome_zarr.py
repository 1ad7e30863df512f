"""OME-Zarr: NGFF 0.4 (Zarr 2) and 0.5 (Zarr 3)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.images.pixels import ImageError, as_rgb, is_eight_or_sixteen_bit, reading
from hist2scrna.images.resolution import ngff_mpp
from hist2scrna.images.tiles import TiledImage
from hist2scrna.messages import log_once, warn_user

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MULTISCALES, BIOFORMATS = "multiscales", "bioformats2raw.layout"
MOST_LISTED = 10
# Before NGFF 0.4 axes have no types, before 0.3 no names.
OLD_AXES = "tczyx"


class OmeZarrImage(TiledImage):
    """The multiscale image in a Zarr group, read chunk by chunk. Of several that Bio-Formats wrote, the largest.

    Parameters
    ----------
    path
        The folder of the group.
    scale
        Image pixels per full-resolution pixel.

    Raises
    ------
    ValueError
        If it is no Zarr group with `multiscales`, is damaged, or holds no RGB or gray image of 8 or 16 bits.
    """

    def __init__(self, path: Path, scale: float = 1.0) -> None:
        import zarr

        with reading(
            f"Folder '{path}' is not an OME-Zarr that can be read", "Give the folder that has .zattrs or zarr.json."
        ):
            root = zarr.open(path, mode="r")
            if isinstance(root, zarr.Array):
                raise ImageError(
                    f"'{path}' is a Zarr array, not an OME-Zarr: it has no 'multiscales'. Pass the array itself: "
                    "image=zarr.open_array(...), height x width x RGB."
                )
            group, multiscales = _image(root, path)
            axes = [axis["name"] if isinstance(axis, dict) else axis for axis in multiscales.get("axes") or OLD_AXES]
            arrays = [group[dataset["path"]] for dataset in multiscales["datasets"]]
            self._axes = {name: position for position, name in enumerate(axes)}
            for array in arrays:
                self._check(array, path)
            mpp = ngff_mpp(multiscales, multiscales["datasets"][0], str(path))
            x, y = self._axes["x"], self._axes["y"]
            sizes = [(int(array.shape[x]), int(array.shape[y])) for array in arrays]
            chunks = [(int(array.chunks[x]), int(array.chunks[y])) for array in arrays]
        kept = self._lay_out(path, scale, sizes, chunks, mpp)
        self._arrays = [arrays[level] for level in kept]
        _warn_of_gaps(arrays[0], path)

    def _check(self, array: Any, path: Path) -> None:
        shape = dict(zip(self._axes, array.shape, strict=True))
        channels = shape.get("c", 1)
        others = {name: length for name, length in shape.items() if name not in "cyx" and length > 1}
        if "y" not in shape or "x" not in shape or others or channels not in (1, 3, 4):
            raise ImageError(
                f"Expected '{path}' to hold an RGB or gray image (axes c, y and x; 1, 3 or 4 channels), found axes "
                f"{''.join(self._axes)} with shape {tuple(array.shape)}. Save one plane of the H&E image alone."
            )
        if not is_eight_or_sixteen_bit(array.dtype):
            raise ImageError(f"Expected '{path}' to hold pixels of 8 or 16 bits, found {array.dtype}.")

    def _decode(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        left, top, width, height = self.extent(level, row, column)
        window = {"y": slice(top, top + height), "x": slice(left, left + width), "c": slice(None)}
        with reading(f"Image '{self.path}' is damaged in row {row}, column {column} of its chunks of level {level}"):
            tile = np.asarray(self._arrays[level][tuple(window.get(name, 0) for name in self._axes)])
        kept = [name for name in self._axes if name in window]
        return as_rgb(tile.transpose([kept.index(name) for name in "yxc" if name in kept]))


def _warn_of_gaps(array: Any, path: Path) -> None:
    """Warn of chunks that are not stored, unless white stands for them: background may be left out, tissue is lost."""
    white = np.iinfo(array.dtype).max
    missing = int(array.nchunks - array.nchunks_initialized)
    if missing > 0 and array.fill_value != white:
        warn_user(
            f"{missing} of {array.nchunks} chunks of '{path}' are not there, and are read as pixels of "
            f"{array.fill_value or 0} (white is {white}). If tissue lies there, copy or download the folder again."
        )


def _metadata(group: Any) -> Mapping[str, Any]:
    """Return the NGFF metadata of a group: under "ome" since version 0.5, at the top level before."""
    attributes = dict(group.attrs)
    return attributes.get("ome") or attributes


def _image(root: Any, path: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return the group of the image, and its `multiscales`."""
    metadata = _metadata(root)
    if metadata.get(MULTISCALES):
        return root, metadata[MULTISCALES][0]
    # Zarr lists the members of a group in any order.
    members = sorted(_groups(root), key=lambda member: member[0])
    inside = {name: group for name, group in members if _metadata(group).get(MULTISCALES)}
    if not inside or BIOFORMATS not in metadata:
        hint = (
            f"Groups in it that have: {list(inside)[:MOST_LISTED]}. Give the path of one."
            if inside
            else "Give an OME-Zarr."
        )
        raise ImageError(f"'{path}' is a Zarr group without 'multiscales' in its attributes. {hint}")

    def area(name: str) -> int:
        first = _metadata(inside[name])[MULTISCALES][0]["datasets"][0]["path"]
        return int(np.prod(inside[name][first].shape[-2:]))

    largest = max(inside, key=area)
    log_once(log, "%s: reading the largest of the images %s: %s", path, list(inside), largest)
    return inside[largest], _metadata(inside[largest])[MULTISCALES][0]


def _groups(root: Any) -> list[tuple[str, Any]]:
    """Return the groups in a group and in these, by path."""
    first = list(root.groups())
    return first + [(f"{name}/{inner}", group) for name, outer in first for inner, group in outer.groups()]
