"""Features as they are computed: in memory, or in a folder from which an interrupted run continues."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hist2scrna.files import clear_scratch, replaced_whole
from hist2scrna.fitting.identity import differences

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FORMAT_VERSION = 2
MANIFEST, FEATURES, CHECKSUMS = "manifest.json", "features.npy", "checksums.npy"
# Batches of another size change the last bits, and bfloat16 has few; another encoder changes all.
SAME_ENCODER, ROUNDING = 0.05, 1e-6
ROWS_AT_ONCE = 4096


class FeatureStore:
    """Rows of float32, each with a checksum: a row that is not there yet, cut off or altered has another one.

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
        self.checksums: NDArray[np.uint32] | None = None
        if self.folder is None:
            return
        manifest = json.loads(json.dumps({"format_version": FORMAT_VERSION, **manifest}))
        for name in (MANIFEST, FEATURES, CHECKSUMS):
            clear_scratch(self.folder / name)
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
        if differing := differences(stored, manifest):
            raise ValueError(
                f"The store '{self.folder}' was begun with other settings, so the run cannot continue: "
                f"{'; '.join(differing)}. Pass the same settings, or another store=, or delete the folder."
            )

    def _open(self) -> None:
        assert self.folder is not None
        # They are created in this order.
        if (self.folder / FEATURES).is_file():
            self.checksums = self._mapped(CHECKSUMS, (self.n,), np.uint32)
            self.rows = self._mapped(FEATURES, (self.n, None), np.float32)

    def _mapped(self, name: str, shape: tuple[int | None, ...], dtype: type) -> NDArray[Any]:
        assert self.folder is not None
        file = self.folder / name
        try:
            array = np.load(file, mmap_mode="r+")
        except Exception as error:
            # A damaged header is parsed as Python is, and what that raises is passed on.
            raise ValueError(f"'{file}' is damaged: {error}. Delete the folder '{self.folder}'.") from error
        fits = array.ndim == len(shape) and all(e in (None, found) for e, found in zip(shape, array.shape, strict=True))
        if not fits or array.dtype != dtype:
            expected = "(" + ", ".join("d" if edge is None else str(edge) for edge in shape) + ")"
            raise ValueError(
                f"Expected '{file}' to be {expected} {np.dtype(dtype)}, found {array.shape} {array.dtype}. Delete the "
                f"folder '{self.folder}'."
            )
        return array

    @property
    def finished(self) -> NDArray[np.bool_]:
        """`(n,)`, which rows have been written, and are as they were."""
        if self.rows is None or self.checksums is None:
            return np.zeros(self.n, dtype=bool)
        return np.array([_checksum(row) for row in self.rows], dtype=np.uint32) == self.checksums

    def write(self, index: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Put the rows `values` at `index`."""
        if self.rows is None:
            self._create(values.shape[1])
        assert self.rows is not None
        if values.shape[1] != self.rows.shape[1]:
            raise ValueError(
                f"The encoder returned {values.shape[1]} numbers a patch, and {self.rows.shape[1]} for patches before."
            )
        self.rows[index] = values
        if self.checksums is not None:
            self.checksums[index] = [_checksum(row) for row in self.rows[index]]

    def _create(self, width: int) -> None:
        if self.folder is None:
            self.rows = np.full((self.n, width), np.nan, dtype=np.float32)
            return
        empty = np.full((1, width), np.nan, dtype=np.float32)
        never = np.array([_checksum(empty[0]) ^ 1], dtype=np.uint32)
        for name, row in ((CHECKSUMS, never), (FEATURES, empty)):
            with replaced_whole(self.folder / name) as file, file.open("wb") as out:
                shape = (self.n, *row.shape[1:])
                header = {"descr": np.lib.format.dtype_to_descr(row.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(out, header)
                # Written, not mapped: where the disk is full, the write fails, and the mapping would end the process.
                for start in range(0, self.n, ROWS_AT_ONCE):
                    out.write(np.repeat(row, min(ROWS_AT_ONCE, self.n - start), axis=0).tobytes())
        self._open()

    def check_encoder(
        self, finished: NDArray[np.bool_], encode: Callable[[NDArray[np.int64]], Any], names: Any
    ) -> None:
        """Encode one finished row again: that the encoder is the same cannot be read off a function.

        Raises
        ------
        ValueError
            If it differs by more than rounding.
        """
        if self.rows is None or not finished.any():
            return
        first = np.flatnonzero(finished)[:1]
        stored, now = self.rows[first], np.asarray(encode(first))
        distance = np.inf if now.shape != stored.shape else float(np.linalg.norm(now - stored))
        if not distance <= SAME_ENCODER * float(np.linalg.norm(stored)) + ROUNDING:
            raise ValueError(
                f"The store '{self.folder}' was begun with another encoder or image: spot {names[first][0]!r} has "
                f"other features there, of shape {stored.shape[1:]}, than now, {now.shape[1:]}. Pass the same, or "
                "another store=."
            )

    def flush(self) -> None:
        """Write to disk what is still in memory."""
        for array in (self.rows, self.checksums):
            if isinstance(array, np.memmap):
                array.flush()

    def array(self) -> NDArray[np.float32]:
        """Return all rows, in memory."""
        assert self.rows is not None
        return np.array(self.rows) if isinstance(self.rows, np.memmap) else self.rows


def _checksum(row: NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(row).data)
