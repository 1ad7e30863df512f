"""Read what Space Ranger writes: Visium and Visium HD."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.images.pixels import DAMAGE
from hist2scrna.spots.scale import VISIUM_SPOT_UM
from hist2scrna.stored import require_sound

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

COUNTS = "filtered_feature_bc_matrix.h5"
SCALEFACTORS = "scalefactors_json.json"
# As Space Ranger named them from version 1 to Visium HD; the second has no header.
POSITIONS = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
COLUMNS = ["barcode", keys.IN_TISSUE, "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
IMAGES = {"hires": "tissue_hires_image.png", "lowres": "tissue_lowres_image.png"}
BINNED = "binned_outputs"


def read_visium(
    path: str | Path,
    *,
    counts_file: str = COUNTS,
    library_id: str | None = None,
    source_image_path: str | Path | None = None,
) -> ad.AnnData:
    """Read a Visium section from the output folder of Space Ranger, of any version.

    Like :func:`squidpy.read.visium`, but positions are read by column name, from Parquet or from CSV with or without
    header, a missing image is not an error, and files that do not belong together are refused.

    Parameters
    ----------
    path
        The folder `outs`, with `filtered_feature_bc_matrix.h5` and `spatial/` in it.
    counts_file
        Counts, an HDF5 file of 10x Genomics or a folder with `matrix.mtx.gz`.
    library_id
        Name of the section; None: that in the counts file, else the name of the folder.
    source_image_path
        The full-resolution image that Space Ranger was given, which patches are then cut from. Without it they are
        cut from `tissue_hires_image.png`, which shows a spot with about 15 pixels.

    Returns
    -------
    AnnData, spots x genes:

    - `.X`: counts, CSR float32; `.var_names` unique, as :meth:`anndata.AnnData.var_names_make_unique` makes them.
    - `.obs["library_id"]`: categorical; `.obs["in_tissue"]`, `["array_row"]`, `["array_col"]`: int.
    - `.obsm["spatial"]`: float64, full-resolution pixels, x to the right, y down.
    - `.uns["spatial"][library]`: `images["hires"]`, `["lowres"]`, uint8 (height, width, 3); `scalefactors` as Space
      Ranger writes them, and `spot_diameter_um`, 65, the diameter in microns; `metadata` with
      `chemistry_description`, `software_version` and `source_image_path`, where known.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged, a spot has no position, or counts are not whole.

    Examples
    --------
    >>> section = h2s.io.read_visium("outs/", source_image_path="tissue.tif")  # doctest: +SKIP
    """
    path = _folder(path)
    adata = _read_section(path, counts_file, library_id, path.name, source_image_path)
    for entry in adata.uns[keys.SPATIAL].values():
        entry[keys.SCALEFACTORS].setdefault(keys.SPOT_DIAMETER_UM, VISIUM_SPOT_UM)
    return adata


def read_visium_hd(
    path: str | Path,
    *,
    bin_um: int = 8,
    counts_file: str = COUNTS,
    library_id: str | None = None,
    source_image_path: str | Path | None = None,
) -> ad.AnnData:
    """Read a Visium HD section, at one size of its bins, from the output folder of Space Ranger.

    Parameters
    ----------
    path
        The folder `outs`, with `binned_outputs/square_008um/` in it.
    bin_um
        Side of a bin in microns: 2, 8 or 16, or another that Space Ranger was asked for.
    counts_file, library_id, source_image_path
        As in :func:`read_visium`.

    Returns
    -------
    AnnData, bins x genes, with the slots of :func:`read_visium`. The scale is `scalefactors["microns_per_pixel"]`;
    `spot_diameter_fullres` is the side of a bin, so that a patch is 12 um wide unless `patch_um` is given.

    Raises
    ------
    FileNotFoundError
        If a file is missing, or there are no bins of this size.
    ValueError
        If a file is damaged, a bin has no position, or counts are not whole.

    Examples
    --------
    >>> section = h2s.io.read_visium_hd("outs/", bin_um=16, source_image_path="tissue.btf")  # doctest: +SKIP
    """
    path = _folder(path)
    binned = path / BINNED / f"square_{bin_um:03d}um"
    if not binned.is_dir():
        there = sorted(folder.name for folder in (path / BINNED).glob("square_*um"))
        raise FileNotFoundError(f"No folder '{binned}'. Sizes of bins that are there: {there}. Choose bin_um= of them.")
    return _read_section(binned, counts_file, library_id, path.name, source_image_path)


def _folder(path: str | Path) -> Path:
    path = Path(path).expanduser().resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"No folder '{path}'. Give the folder `outs` of Space Ranger.")
    return path


def existing(file: Path) -> Path:
    """Return the file, or raise FileNotFoundError with a list of the files next to it."""
    if not file.exists():
        there = sorted(f.name for f in file.parent.iterdir()) if file.parent.is_dir() else "nothing"
        raise FileNotFoundError(f"No file '{file}'. In that folder: {there}.")
    return file


def read_10x(path: Path) -> ad.AnnData:
    """Read a matrix of 10x Genomics, genes only, names made unique, checked to be counts.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it cannot be read, or values are not whole and non-negative.
    """
    import scanpy as sc

    if not existing(path).is_dir():
        require_sound(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Variable names are not unique", category=UserWarning)
            if not path.is_dir():
                _check_indices(path)
            adata = sc.read_10x_mtx(path) if path.is_dir() else sc.read_10x_h5(path)
    except Exception as error:
        # HDF5, SciPy and Scanpy raise whatever they meet in a damaged file.
        raise ValueError(f"'{path}' holds no matrix of 10x Genomics that can be read: {error}.") from error
    values = adata.X.data
    if not np.isfinite(values).all() or (values < 0).any() or (values != np.round(values)).any():
        raise ValueError(f"Expected counts in '{path}', found values that are negative or not whole.")
    if not adata.var_names.is_unique:
        log.info("%d gene names repeat and are numbered", int(adata.var_names.duplicated().sum()))
        adata.var_names_make_unique()
    return adata


def _check_indices(path: Path) -> None:
    """Refuse a compressed matrix whose indices point out of it: SciPy would take them for sizes, and allocate these."""
    import h5py

    with h5py.File(path, "r") as file:
        if "matrix" not in file:
            return
        group = file["matrix"]
        starts, indices = group["indptr"][:].astype(np.int64), group["indices"][:].astype(np.int64)
        n_rows, n_columns = (int(length) for length in group["shape"][:])
        whole = len(starts) == n_columns + 1 and starts[0] == 0 and starts[-1] == len(indices) == len(group["data"])
        inside = indices.size == 0 or (indices.min() >= 0 and indices.max() < n_rows)
        if not (whole and inside and (np.diff(starts) >= 0).all()):
            raise ValueError("its indices do not fit its shape")


def existing_image(path: str | Path) -> str:
    """Return the absolute path of an image that is there, else raise FileNotFoundError."""
    image = Path(path).expanduser().absolute()
    if not image.exists():
        raise FileNotFoundError(f"No image at '{image}', which `source_image_path` names.")
    return str(image)


def _read_section(
    folder: Path, counts_file: str, library_id: str | None, name: str, source_image_path: str | Path | None
) -> ad.AnnData:
    source = None if source_image_path is None else existing_image(source_image_path)
    adata = read_10x(folder / counts_file)
    attributes = _attributes(folder / counts_file)
    library = str(library_id or next(iter(attributes.get("library_ids", [])), name))
    positions = _read_positions(folder / "spatial")
    lacking = adata.obs_names.difference(positions.index)
    if len(lacking):
        raise ValueError(
            f"{len(lacking)} of {adata.n_obs} barcodes in '{folder / counts_file}' have no position in "
            f"'{folder / 'spatial'}': the first is {lacking[0]!r}. Do the files belong to the same run?"
        )
    positions = positions.loc[adata.obs_names]
    adata.obs[keys.LIBRARY] = pd.Categorical([library] * adata.n_obs)
    for column in COLUMNS[1:4]:
        adata.obs[column] = positions[column].to_numpy(dtype=np.int64)
    row, column = COLUMNS[4:]
    adata.obsm[keys.SPATIAL] = positions[[column, row]].to_numpy(dtype=np.float64)
    metadata = {key: attributes[key] for key in (keys.CHEMISTRY, "software_version") if key in attributes}
    if source is not None:
        metadata[keys.SOURCE_IMAGE_PATH] = source
    adata.uns[keys.SPATIAL] = {
        library: {
            keys.IMAGES: {
                key: _read_image(folder / "spatial" / file)
                for key, file in IMAGES.items()
                if (folder / "spatial" / file).is_file()
            },
            keys.SCALEFACTORS: _read_scalefactors(folder / "spatial" / SCALEFACTORS),
            keys.METADATA: metadata,
        }
    }
    return adata


def _attributes(path: Path) -> dict[str, Any]:
    import h5py

    if path.is_dir():
        return {}

    def text(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [text(item) for item in value]
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    try:
        with h5py.File(path, "r") as file:
            return {key: text(value) for key, value in file.attrs.items()}
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"'{path}' is damaged: {error}. Copy or download it again.") from error


def _read_positions(folder: Path) -> pd.DataFrame:
    """Return the positions by barcode, columns by name whatever their order."""
    path = next((folder / name for name in POSITIONS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"No positions in '{folder}': expected one of {list(POSITIONS)}.")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            with path.open(encoding="utf-8-sig") as file:
                has_header = COLUMNS[0] in file.readline().strip().split(",")
            table = pd.read_csv(path, header=0 if has_header else None, encoding="utf-8-sig")
    except Exception as error:
        raise ValueError(f"'{path}' is no table that can be read: {error}.") from error
    if path.suffix != ".parquet" and not has_header and len(table.columns) == len(COLUMNS):
        table.columns = pd.Index(COLUMNS)
    if not set(COLUMNS) <= set(table.columns):
        raise ValueError(f"Expected the columns {COLUMNS} in '{path}', found {list(table.columns)}.")
    table = table.set_index(table[COLUMNS[0]].astype(str))
    if not table.index.is_unique:
        raise ValueError(f"'{path}' has barcode {table.index[table.index.duplicated()][0]!r} more than once.")
    numbers = table[COLUMNS[1:]].apply(pd.to_numeric, errors="coerce")
    wrong = ~np.isfinite(numbers.to_numpy(dtype=np.float64)).all(axis=1)
    if wrong.any():
        row = table[wrong].iloc[0]
        raise ValueError(f"'{path}': expected numbers in the row of {row.name!r}, found {row.tolist()}.")
    return numbers


def _read_scalefactors(path: Path) -> dict[str, float]:
    try:
        factors = json.loads(existing(path).read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in factors.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"'{path}' holds no scale factors that can be read: {error}.") from error


def _read_image(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise ValueError(f"Image '{path}' is damaged: {error}. Copy or download it again.") from error
