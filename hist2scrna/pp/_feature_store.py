"""Features as they are computed: in memory, or in a folder from which an interrupted run continues."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.files import replaced_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

FORMAT_VERSION = 1
MANIFEST, FEATURES = "manifest.json", "features.npy"
SAMPLED = 32


class FeatureStore:
    """Rows of float32, NaN until they are written; only finite rows are accepted, so a finite row is a finished one.

    Parameters
    ----------
    n
        Number of rows.
    folder
        Where to keep them; None: in memory.
    manifest
        What must be the same for an interrupted run to continue; plain values.

    Raises
    ------
    FileExistsError
        If the folder holds something else.
    ValueError
        If it holds the features of another run, or is damaged.
    """

    def __init__(self, n: int, folder: str | Path | None, manifest: dict[str, Any]) -> None:
        self.n = n
        self.folder = None if folder is None else Path(folder)
        self.rows: NDArray[np.float32] | None = None
        if self.folder is None:
            return
        manifest = json.loads(json.dumps({"format_version": FORMAT_VERSION, **manifest}))
        if (self.folder / MANIFEST).is_file():
            self._compare(manifest)
            self._open()
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise FileExistsError(
                f"'{self.folder}' exists and holds no {MANIFEST}: it is not a store of features, and was left as it is."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with replaced_whole(self.folder / MANIFEST) as file:
            file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

    def _compare(self, manifest: dict[str, Any]) -> None:
        assert self.folder is not None
        try:
            stored = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"'{self.folder / MANIFEST}' is damaged: {error}. Delete the folder.") from error
        differing = [name for name in manifest if stored.get(name) != manifest[name]]
        if differing:
            settings = "; ".join(f"{name} {stored.get(name)!r} there, {manifest[name]!r} here" for name in differing)
            raise ValueError(
                f"The store '{self.folder}' was begun with other settings, so the run cannot continue: {settings}. "
                "Pass the same settings, or another store=."
            )

    def _open(self) -> None:
        assert self.folder is not None
        file = self.folder / FEATURES
        if not file.is_file():
            return
        try:
            rows = np.load(file, mmap_mode="r+")
        except Exception as error:
            raise ValueError(f"'{file}' is damaged: {error}. Delete the folder '{self.folder}'.") from error
        if rows.ndim != 2 or len(rows) != self.n or rows.dtype != np.float32:
            raise ValueError(
                f"Expected '{file}' to be ({self.n}, d) float32, found {rows.shape} {rows.dtype}. Delete the folder "
                f"'{self.folder}'."
            )
        self.rows = rows

    @property
    def finished(self) -> NDArray[np.bool_]:
        """`(n,)`, which rows have been written."""
        if self.rows is None:
            return np.zeros(self.n, dtype=bool)
        step = 4096
        return np.concatenate([np.isfinite(self.rows[i : i + step]).all(axis=1) for i in range(0, self.n, step)])

    def write(self, index: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Put the finite rows `values` at `index`."""
        if self.rows is None:
            self.rows = self._create(values.shape[1])
        self.rows[index] = values

    def _create(self, width: int) -> NDArray[np.float32]:
        if self.folder is None:
            return np.full((self.n, width), np.nan, dtype=np.float32)
        with replaced_whole(self.folder / FEATURES) as file:
            rows = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(self.n, width))
            rows[:] = np.nan
            rows.flush()
            del rows
        return np.load(self.folder / FEATURES, mmap_mode="r+")

    def flush(self) -> None:
        """Write to disk what is still in memory."""
        if isinstance(self.rows, np.memmap):
            self.rows.flush()

    def array(self) -> NDArray[np.float32]:
        """Return all rows, in memory."""
        assert self.rows is not None
        return np.array(self.rows) if isinstance(self.rows, np.memmap) else self.rows


def spots_identity(spots: Spots) -> dict[str, Any]:
    """Return what tells spots and their images from others: coordinates, sections, and patches all over the tissue."""
    assert spots.patches is not None
    digest = hashlib.sha256(spots.xy.tobytes())
    digest.update(spots.section.tobytes())
    some = np.unique(np.linspace(0, len(spots) - 1, SAMPLED).astype(np.int64))
    return {
        "n_spots": len(spots),
        "sections": list(spots.sections),
        "coordinates": digest.hexdigest(),
        "patches": hashlib.sha256(spots.patches.read(some).tobytes()).hexdigest(),
    }
