"""AnnData in files of others: what is damaged may crash or stall HDF5 and Zarr, and is met in another process first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

REHEARSAL = Path(__file__).parent / "rehearsal.py"
STORES = (".h5ad", ".zarr")
# Processor time that reading may take: far more than a slow disk and a slow decoder do.
SECONDS, BYTES_A_SECOND = 10, 10**7
# A busy machine is no reason to give up.
WALL = 20
# How a program of Python ends: well, or by an exception, which whoever reads the file afterwards meets again.
ENDS = (0, 1)

# Files that were read through by this process, as they were.
_sound: set[tuple[str, int, int]] = set()


def read_anndata(path: Path) -> AnnData:
    """Read an `.h5ad` or a `.zarr` into memory.

    Raises
    ------
    ValueError
        If it is damaged, or holds no AnnData.
    """
    import anndata as ad

    require_sound(path)
    try:
        adata = ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)
        for where, matrix in _matrices(adata):
            require_sound_matrix(matrix, where)
    except Exception as error:
        raise damaged(path, error) from error
    return adata


def require_sound_matrix(matrix: Any, where: str) -> None:
    """Refuse a sparse matrix whose numbers of rows and columns point outside of it: SciPy would crash on it.

    Raises
    ------
    ValueError
        If it is one; `where` says which.
    """
    if not sparse.issparse(matrix) or matrix.format not in ("csr", "csc"):
        return
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(f"{where} is a damaged sparse matrix: {error}. Read or write it again.") from error


def _matrices(adata: AnnData) -> Iterator[tuple[str, Any]]:
    """Yield every matrix, and how the user writes its slot."""
    yield "adata.X", adata.X
    if adata.raw is not None:
        yield "adata.raw.X", adata.raw.X
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        for key, matrix in getattr(adata, slot).items():
            yield f"adata.{slot}[{key!r}]", matrix


def damaged(path: Path, error: Exception) -> ValueError:
    """Return what is said of a file, whatever the readers of AnnData and SpatialData make of it."""
    cause = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(f"'{path}' is damaged, or holds no AnnData: {cause}. Copy or write it again.")


def require_sound(path: Path) -> None:
    """Refuse a file of HDF5, or a folder of Zarr, that crashes or stalls the library that reads it.

    It is read from end to end in a process of its own, once as long as it does not change.

    Raises
    ------
    ValueError
        If that process crashes, or does not end.
    """
    state = _state_of(path)
    if state in _sound or not sys.executable:
        return
    seconds = SECONDS + state[1] // BYTES_A_SECOND
    # Without -P the modules of this package would be found in place of those of the standard library.
    command = [sys.executable, "-P", str(REHEARSAL), str(path.resolve()), str(seconds)]
    try:
        code = subprocess.run(command, capture_output=True, check=False, timeout=WALL * seconds).returncode
        how = "" if code in ENDS else f"crashed on it ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
    except subprocess.TimeoutExpired:
        how = "did not come to its end"
    if how:
        library = "Zarr" if path.is_dir() else "HDF5"
        raise ValueError(
            f"'{path}' is damaged: {library} {how}, in a process of its own, so that nothing here was harmed. Copy or "
            "write it again."
        )
    _sound.add(state)


def _state_of(path: Path) -> tuple[str, int, int]:
    """Return a path, the bytes that lie there, and when they were changed last."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    stats = [file.stat() for file in files]
    return str(path.resolve()), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
