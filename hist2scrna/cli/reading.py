"""Data of any form that has a command of its own, as one AnnData."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hist2scrna import keys
from hist2scrna.stored import STORES, damaged, read_anndata, require_sound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

PATCH_FOLDER = ("patches", "spatial_coordinates.csv")
# What tells the form of a folder, by its reader in `io`.
SECTION_FOLDERS = {
    "read_patch_folder": PATCH_FOLDER,
    "read_xenium": ("experiment.xenium",),
    "read_visium_hd": ("binned_outputs",),
    "read_visium": ("spatial", "filtered_feature_bc_matrix.h5"),
}
# Of a store of SpatialData; its images are read window by window, and much larger.
TABLES = "tables"


def read_data(
    paths: Sequence[Path], *, image: str | None = None, table: str | None = None, region: str | None = None
) -> AnnData:
    """Read data sets and put them side by side as sections.

    Parameters
    ----------
    paths
        Each a `.h5ad`, a `.zarr` of AnnData or SpatialData, a patch folder, the output of Space Ranger (of Visium HD,
        its bins of 8 um) or of a Xenium, or a folder of any of these.
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
    if path.is_file() or path.suffix == ".zarr" or is_section(path):
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix in STORES or is_section(p))
    if not found:
        raise ValueError(
            f"'{path}' holds no data: expected .h5ad or .zarr in it, a patch folder ({', '.join(PATCH_FOLDER)}, and "
            "gene_expression.csv), or what Space Ranger or a Xenium writes."
        )
    return found


def is_section(path: Path) -> bool:
    """Tell whether a folder is one section: a patch folder, or the output of Space Ranger or of a Xenium."""
    return path.is_dir() and any((path / name).exists() for names in SECTION_FOLDERS.values() for name in names)


def _read_folder(path: Path) -> AnnData:
    """Read a folder by the reader of its form; sections of several folders `outs` are told apart by their parents."""
    from hist2scrna import io

    reader = next(r for r, names in SECTION_FOLDERS.items() if any((path / name).exists() for name in names))
    if reader == "read_patch_folder":
        return io.read_patch_folder(path)
    name = path.resolve().parent.name if path.resolve().name == "outs" else None
    adata: AnnData = getattr(io, reader)(path, library_id=name)
    return adata


def read_one(path: Path, *, image: str | None = None, table: str | None = None, region: str | None = None) -> AnnData:
    """Read one data set; see :func:`read_data`."""
    if path.is_dir() and path.suffix != ".zarr":
        return _read_folder(path)
    if path.suffix == ".h5ad":
        return _named(read_anndata(path), path)
    if path.suffix == ".zarr":
        if _is_spatialdata(path):
            return _read_spatialdata(path, image=image, table=table, region=region)
        return _named(read_anndata(path), path)
    raise ValueError(
        f"'{path}' is no data set: expected .h5ad, .zarr, a patch folder or what Space Ranger writes. Images "
        "without an assay are read by predict and pool."
    )


def _is_spatialdata(path: Path) -> bool:
    """Tell a store of SpatialData, or of anything that is no AnnData, from one of AnnData."""
    import zarr

    try:
        kind = zarr.open_group(path, mode="r").attrs.asdict()
    except Exception as error:
        raise damaged(path, error) from error
    return "spatialdata_attrs" in kind or not str(kind.get("encoding-type", "")).startswith("anndata")


def _read_spatialdata(path: Path, *, image: str | None, table: str | None, region: str | None) -> AnnData:
    import spatialdata

    from hist2scrna import io

    if (path / TABLES).is_dir():
        require_sound(path / TABLES)
    try:
        sdata = spatialdata.read_zarr(path)
    except Exception as error:
        raise damaged(path, error) from error
    if image is None and len(sdata.images) != 1:
        raise ValueError(
            f"'{path}' holds {len(sdata.images)} images: {list(sdata.images)}. Take one section out first: "
            "hist2scrna convert --image NAME --table NAME --region NAME --out section.h5ad."
        )
    return io.from_spatialdata(sdata, image=image or next(iter(sdata.images)), table=table, region=region)


def _named(adata: AnnData, path: Path) -> AnnData:
    """Name the section after its library, or after its file, where nothing names it; slides have names of their own."""
    if keys.LIBRARY not in adata.obs and keys.POOLED not in adata.uns:
        libraries = list(adata.uns.get(keys.SPATIAL, {}))
        adata.obs[keys.LIBRARY] = libraries[0] if len(libraries) == 1 else path.stem
        adata.obs[keys.LIBRARY] = adata.obs[keys.LIBRARY].astype("category")
    return adata


def label_key(adata: AnnData, given: str | None) -> str | None:
    """Return the column of cell types: the given one; `cell_type` where it is there; none for an empty name."""
    if given is not None:
        return given or None
    return keys.CELL_TYPE if keys.CELL_TYPE in adata.obs else None
