"""The rows of features as they come: in memory, or in a folder from which an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hist2scrna.spots.read import Spots

FORMAT_VERSION = 1
MANIFEST, FEATURES = "manifest.json", "features.npy"
SAMPLED = 32


class FeatureStore:
    """Rows of float32, NaN until they are written: a finished row is finite, for no other is let in.

    Parameters
    ----------
    n
        Number of rows.
    folder
        Where to keep them; None: in memory.
    manifest
        What must be the same for an interrupted run to go on; plain values.

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
                f"'{self.folder}' exists and holds no {MANIFEST}: it is no store of features, and is left as it is."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".{MANIFEST}"
        scratch.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        os.replace(scratch, self.folder / MANIFEST)

    def _compare(self, manifest: dict[str, Any]) -> None:
        assert self.folder is not None
        try:
            held = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"'{self.folder / MANIFEST}' is damaged: {error}. Delete the folder.") from error
        differing = [name for name in manifest if held.get(name) != manifest[name]]
        if differing:
            found = "; ".join(f"{name} {held.get(name)!r} there, {manifest[name]!r} here" for name in differing)
            raise ValueError(
                f"The store '{self.folder}' was begun with other settings, and cannot be gone on with: {found}. Pass "
                "the same settings, or another store=."
            )

    def _open(self) -> None:
        assert self.folder is not None
        file = self.folder / FEATURES
        if not file.is_file():
            return
        try:
            rows = np.load(file, mmap_mode="r+")
        except (ValueError, OSError) as error:
            raise ValueError(f"'{file}' is damaged: {error}. Delete the folder '{self.folder}'.") from error
        if rows.ndim != 2 or len(rows) != self.n or rows.dtype != np.float32:
            raise ValueError(
                f"Expected '{file}' to be ({self.n}, d) float32, found {rows.shape} {rows.dtype}. Delete the folder "
                f"'{self.folder}'."
            )
        self.rows = rows

    @property
    def finished(self) -> NDArray[np.bool_]:
        """`(n,)`, which rows are there."""
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
        scratch = self.folder / f".{FEATURES}"
        rows = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float32, shape=(self.n, width))
        rows[:] = np.nan
        rows.flush()
        del rows
        os.replace(scratch, self.folder / FEATURES)
        return np.load(self.folder / FEATURES, mmap_mode="r+")

    def flush(self) -> None:
        """Let what was written reach the disk."""
        if isinstance(self.rows, np.memmap):
            self.rows.flush()

    def array(self) -> NDArray[np.float32]:
        """Return all rows, in memory."""
        assert self.rows is not None
        return np.array(self.rows) if isinstance(self.rows, np.memmap) else self.rows


def spots_identity(spots: Spots) -> dict[str, Any]:
    """Tell spots and their pictures from others: by coordinates, sections, and some patches all over the tissue."""
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
