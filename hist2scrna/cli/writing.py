"""AnnData and SpatialData as files, which appear once they are complete and replace nothing but their own kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hist2scrna.files import replaced_whole, require_own, require_room, require_writable
from hist2scrna.stored import STORES

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# What tells a Zarr store, of versions 3 and 2, and all that AnnData and SpatialData put into theirs.
STORE_FILES = ("zarr.json", ".zgroup")
ZARR = (*STORE_FILES, ".zattrs", ".zmetadata")
ANNDATA = (*ZARR, "X", "layers", "obs", "obsm", "obsp", "raw", "uns", "var", "varm", "varp")
SPATIALDATA = (*ZARR, "images", "labels", "points", "shapes", "table", "tables")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a path to which no AnnData can be written, before the work is done.

    Raises
    ------
    FileExistsError
        If something is there and `overwrite` is false, or it is no AnnData.
    ValueError
        If the path ends otherwise than AnnData do.
    OSError
        If nothing can be written there.
    """
    if path.suffix not in STORES:
        raise ValueError(f"Expected the output to end in one of {list(STORES)}, found '{path}'.")
    _check_replaceable(path, overwrite, is_folder=path.suffix == ".zarr", names=ANNDATA, what="an AnnData")


def check_spatialdata_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a path to which no SpatialData can be written; as :func:`check_output`."""
    _check_replaceable(path, overwrite, is_folder=True, names=SPATIALDATA, what="a SpatialData")


def _check_replaceable(path: Path, overwrite: bool, *, is_folder: bool, names: tuple[str, ...], what: str) -> None:
    if path.exists():
        if not overwrite:
            raise FileExistsError(f"'{path}' exists already. Pass --overwrite to replace it, or another --out.")
        if path.is_dir() != is_folder or (is_folder and not any((path / name).is_file() for name in STORE_FILES)):
            raise FileExistsError(f"'{path}' exists and is not {what}: it is left as it is. Pass another --out.")
        if is_folder:
            require_own(path, names, what)
    require_writable(path)


def write_one(adata: AnnData, path: Path, *, overwrite: bool = False) -> Path:
    """Write an AnnData to a `.h5ad` or `.zarr`, which appears only once it is complete.

    Raises
    ------
    FileExistsError, ValueError, OSError
        As :func:`check_output`, and if the disk has no room for it.
    """
    check_output(path, overwrite=overwrite)
    require_room(path, adata.__sizeof__())
    with replaced_whole(path) as scratch:
        if path.suffix == ".h5ad":
            adata.write_h5ad(scratch)
        else:
            adata.write_zarr(scratch)
    typer.echo(f"Wrote {path}")
    return path


def write_spatialdata(sdata: SpatialData, path: Path, *, overwrite: bool = False) -> Path:
    """Write a SpatialData to a folder, which appears only once it is complete; as :func:`write_one`."""
    check_spatialdata_output(path, overwrite=overwrite)
    with replaced_whole(path) as scratch:
        sdata.write(scratch)
    typer.echo(f"Wrote {path}")
    return path
