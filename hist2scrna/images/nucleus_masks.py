"""Which pixels of an image belong to which nucleus: read from a label image, or drawn as ellipses; window by window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sides of a label image may be rounded when it is made smaller, by so many of its own pixels.
ROUNDED_PX = 1.0


class NucleusMask(Protocol):
    """The nuclei of one section on the pixels of its tiles."""

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.int64]:
        """Return a window, `(height, width)`: at each pixel 0, or 1 + the number of the nucleus."""


class LabelMask:
    """Nuclei from a label image.

    Parameters
    ----------
    labels
        `(h, w)` whole numbers, 0 outside of nuclei; read by window where the array is lazy.
    step
        Pixels of the label image per pixel wanted.
    nuclei
        `(m,)` label of each nucleus, each once.
    numbers
        `(m,)` number of each nucleus.
    """

    def __init__(self, labels: Any, step: float, nuclei: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        order = np.argsort(nuclei)
        self.labels = labels
        self.step = step
        self.nuclei = nuclei[order]
        self.numbers = numbers[order]

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.int64]:
        """Return a window; what lies beyond the label image is outside of nuclei, as are labels of no nucleus."""
        result = np.zeros((height, width), dtype=np.int64)
        columns, rows = (
            np.floor((np.arange(first, first + number) + 0.5) * self.step).astype(np.int64)
            for first, number in ((x, width), (y, height))
        )
        high, wide = self.labels.shape
        across, down = (columns >= 0) & (columns < wide), (rows >= 0) & (rows < high)
        columns, rows = columns[across], rows[down]
        if not (len(columns) and len(rows) and len(self.nuclei)):
            return result
        window = np.asarray(self.labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        seen = window[np.ix_(rows - rows[0], columns - columns[0])].astype(np.int64)
        place = np.searchsorted(self.nuclei, seen).clip(max=len(self.nuclei) - 1)
        known = (self.nuclei[place] == seen) & (seen != 0)
        result[np.ix_(down, across)] = np.where(known, self.numbers[place] + 1, 0)
        return result


class DrawnMask:
    """Nuclei drawn as ellipses; where two overlap, a pixel goes to the center that is nearer in units of the radius.

    Parameters
    ----------
    xy
        `(m, 2)` centers in pixels, x right, y down.
    axes
        `(m, 2)` lengths of the long and of the short axis, from rim to rim, in pixels.
    angle
        `(m,)` direction of the long axis in degrees, clockwise from the right.
    numbers
        `(m,)` number of each nucleus.
    """

    def __init__(
        self,
        xy: NDArray[np.float64],
        axes: NDArray[np.float64],
        angle: NDArray[np.float64],
        numbers: NDArray[np.int64],
    ) -> None:
        self.xy = xy
        # A nucleus shows in one pixel at least.
        self.radii = np.maximum(axes, 1.5) / 2
        self.turn = np.stack([np.cos(np.radians(angle)), np.sin(np.radians(angle))], axis=1)
        self.numbers = numbers
        self.reach = float(self.radii.max(initial=0))
        self.tree = cKDTree(xy)

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.int64]:
        """Return a window."""
        result = np.zeros((height, width), dtype=np.int64)
        nearest = np.ones((height, width))
        center, half = (x + width / 2, y + height / 2), max(width, height) / 2 + self.reach
        for i in sorted(self.tree.query_ball_point(center, half, p=np.inf)):
            radius = self.radii[i].max()
            left, top = (max(0, int(np.floor(self.xy[i, k] - radius)) - (x, y)[k]) for k in (0, 1))
            right, bottom = (int(np.ceil(self.xy[i, k] + radius)) - (x, y)[k] for k in (0, 1))
            if right <= 0 or bottom <= 0 or left >= width or top >= height:
                continue
            box = np.s_[top:bottom, left:right]
            part = nearest[box]
            dx = x + left + np.arange(part.shape[1]) + 0.5 - self.xy[i, 0]
            dy = (y + top + np.arange(part.shape[0]) + 0.5 - self.xy[i, 1])[:, None]
            cos, sin = self.turn[i]
            long, short = self.radii[i]
            distance = np.hypot((dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short)
            closer = distance < part
            part[closer] = distance[closer]
            result[box][closer] = self.numbers[i] + 1
        return result


def open_labels(labels: Any) -> Any:
    """Return a label image as an array that is read by window: an array as it is, the finest level of a TIFF or Zarr.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it does not have two dimensions, or holds other than whole numbers.
    """
    origin = "`nuclei`"
    labels = finest_scale(labels)
    if isinstance(labels, str | Path):
        origin = f"'{labels}'"
        labels = _opened(Path(labels))
    if len(labels.shape) != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Expected the label image in {origin} to be (height, width) whole numbers, 0 outside of nuclei; found "
            f"{labels.dtype} of shape {tuple(labels.shape)}."
        )
    return labels


def finest_scale(labels: Any) -> Any:
    """Return the finest scale of labels of SpatialData that have several; all else as it is."""
    if type(labels).__name__ != "DataTree":
        return labels
    return next(iter(labels["scale0"].data_vars.values()))


def _opened(path: Path) -> Any:
    import zarr

    if not path.exists():
        raise FileNotFoundError(f"No label image at '{path}'.")
    if path.is_dir():
        opened: Any = zarr.open(path, mode="r")
    elif path.suffix.lower() in (".tif", ".tiff", ".btf"):
        import tifffile

        opened = zarr.open(tifffile.imread(path, aszarr=True), mode="r")
    else:
        raise ValueError(
            "Expected `nuclei` to be a label image (TIFF or Zarr folder) or polygons (GeoJSON or Parquet), found "
            f"'{path}'."
        )
    return opened["0"] if isinstance(opened, zarr.Group) else opened


def labels_per_pixel(labels: Any, size: tuple[int, int]) -> float:
    """Return the pixels of a label image per pixel of the image that it belongs to.

    Parameters
    ----------
    labels
        The label image.
    size
        Width and height of the image.

    Raises
    ------
    ValueError
        If it is of another shape, or larger.
    """
    height, width = labels.shape
    scale = width / size[0]
    if scale > 1 or abs(height - scale * size[1]) > ROUNDED_PX:
        raise ValueError(
            f"The label image is {width} x {height} px, the image {size[0]} x {size[1]} px. Give nuclei= on the pixels "
            "of the image, or on whole fractions of these."
        )
    return float(scale)
