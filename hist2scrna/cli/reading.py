"""Data of any form that has a command of its own, as one AnnData; and AnnData as a file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hist2scrna import keys
from hist2scrna.files import require_writable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

PATCH_FOLDER = ("patches", "spatial_coordinates.csv")
STORES = (".h5ad", ".zarr")


def read_data(
    paths: Sequence[Path], *, image: str | None = None, table: str | None = None, region: str | None = None
) -> AnnData:
    """Read data sets and put them side by side as sections.

    Parameters
    ----------
    paths
        Each a `.h5ad`, a `.zarr` of AnnData or SpatialData, a patch folder, or a folder of any of these.
    image, table, region
        Names of the elements of a SpatialData store, where it has several.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it is none of these.
    """
    from hist2scrna import io

    parts = [read_one(path, image=image, table=table, region=region) for given in paths for path in _members(given)]
    return parts[0] if len(parts) == 1 else io.concat(parts)


def _members(path: Path) -> list[Path]:
    """Return the data sets of a folder, sorted by name; or the path itself if it is one."""
    if not path.exists():
        raise FileNotFoundError(f"No data at '{path}'.")
    if path.is_file() or path.suffix == ".zarr" or is_patch_folder(path):
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix in STORES or (p.is_dir() and is_patch_folder(p)))
    if not found:
        raise ValueError(
            f"'{path}' holds no data: expected .h5ad or .zarr in it, or a patch folder "
            f"({', '.join(PATCH_FOLDER)}, and gene_expression.csv)."
        )
    return found


def is_patch_folder(path: Path) -> bool:
    """Tell whether a folder has the files of a patch folder."""
    return path.is_dir() and any((path / name).exists() for name in PATCH_FOLDER)


def read_one(path: Path, *, image: str | None = None, table: str | None = None, region: str | None = None) -> AnnData:
    """Read one data set; see :func:`read_data`."""
    import anndata as ad

    from hist2scrna import io

    if path.is_dir() and path.suffix != ".zarr":
        return io.read_patch_folder(path)
    if path.suffix == ".h5ad":
        return _named(ad.read_h5ad(path), path)
    if path.suffix == ".zarr":
        import zarr

        kind = zarr.open_group(path, mode="r").attrs.asdict()
        if "spatialdata_attrs" in kind or not str(kind.get("encoding-type", "")).startswith("anndata"):
            import spatialdata

            sdata = spatialdata.read_zarr(path)
            if image is None and len(sdata.images) != 1:
                raise ValueError(
                    f"'{path}' holds {len(sdata.images)} images: {list(sdata.images)}. Take one section out first: "
                    "hist2scrna convert --image NAME --table NAME --region NAME --out section.h5ad."
                )
            return io.from_spatialdata(sdata, image=image or next(iter(sdata.images)), table=table, region=region)
        return _named(ad.read_zarr(path), path)
    raise ValueError(
        f"'{path}' is no data set: expected .h5ad, .zarr or a patch folder. Images without an assay are read by "
        "predict and pool."
    )


def _named(adata: AnnData, path: Path) -> AnnData:
    """Name the section after its library, or after its file, where nothing names it; slides have names of their own."""
    if keys.LIBRARY not in adata.obs and keys.POOLED not in adata.uns:
        libraries = list(adata.uns.get(keys.SPATIAL, {}))
        adata.obs[keys.LIBRARY] = libraries[0] if len(libraries) == 1 else path.stem
        adata.obs[keys.LIBRARY] = adata.obs[keys.LIBRARY].astype("category")
    return adata


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a path to which no AnnData can be written, before the work is done.

    Raises
    ------
    FileExistsError
        If something is there and `overwrite` is false.
    ValueError
        If the path ends otherwise than AnnData do.
    OSError
        If nothing can be written there.
    """
    if path.suffix not in STORES:
        raise ValueError(f"Expected the output to end in one of {list(STORES)}, found '{path}'.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"'{path}' exists already. Pass --overwrite to replace it, or another --out.")
    require_writable(path)


def write_one(adata: AnnData, path: Path, *, overwrite: bool = False) -> Path:
    """Write an AnnData to a `.h5ad` or `.zarr`, which appears only once it is complete.

    Raises
    ------
    FileExistsError
        If something is there and `overwrite` is false.
    ValueError
        If the path ends otherwise.
    """
    check_output(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        if path.suffix == ".h5ad":
            adata.write_h5ad(scratch / path.name)
        else:
            adata.write_zarr(scratch / path.name)
        if path.is_dir():
            shutil.rmtree(path)
        (scratch / path.name).replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    typer.echo(f"Wrote {path}")
    return path


def label_key(adata: AnnData, given: str | None) -> str | None:
    """Return the column of cell types: the given one; `cell_type` where it is there; none for an empty name."""
    if given is not None:
        return given or None
    return keys.CELL_TYPE if keys.CELL_TYPE in adata.obs else None
