"""Read what the Xenium Analyzer writes, with an H&E image of the same section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hist2scrna import keys
from hist2scrna.io._space_ranger import existing, existing_image, read_10x
from hist2scrna.io.affine import invert, magnification, transform

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray

COUNTS = "cell_feature_matrix.h5"
CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
EXPERIMENT = "experiment.xenium"
CELL_ID, AREA = "cell_id", "cell_area"
CENTROID = ["x_centroid", "y_centroid"]


def read_xenium(
    path: str | Path,
    *,
    library_id: str | None = None,
    source_image_path: str | Path | None = None,
    alignment: str | Path | ArrayLike | None = None,
) -> AnnData:
    """Read the cells of a Xenium section, placed on its H&E image.

    Centroids are in microns; divided by the pixel size they are pixels of the morphology image. The alignment that
    Xenium Explorer exports maps pixels of the H&E image to those, so its inverse takes the cells to the H&E image,
    whatever its scale, turn, mirror or shear.

    Parameters
    ----------
    path
        Output folder, with `cell_feature_matrix.h5`, `cells.parquet` (or `cells.csv.gz`) and `experiment.xenium`.
    library_id
        Name of the section; None: the region and run that `experiment.xenium` names, else the name of the folder.
    source_image_path
        The H&E image. None: coordinates are pixels of the morphology image, and there is no image.
    alignment
        `(3, 3)` affine matrix from pixels of the image to pixels of the morphology image, or the CSV file
        (`..._imagealignment.csv`) that holds it; for an image that was saved pixel on pixel, `numpy.eye(3)`. Needed
        with `source_image_path`.

    Returns
    -------
    AnnData, cells x genes:

    - `.X`: counts, CSR float32, without controls.
    - `.obs["library_id"]`: categorical; the other columns of the table of cells.
    - `.obsm["spatial"]`: float64, pixels of the image, x to the right, y down.
    - `.uns["spatial"][library]`: `scalefactors["mpp"]`, microns per pixel of the image (the root of the area that a
      pixel covers), and `["spot_diameter_fullres"]`, the diameter of a circle of the median area of a cell, if known:
      a patch is one and a half of it wide unless `patch_um` is given; `metadata["source_image_path"]`, and
      `metadata["pixels_from_um"]`, by which boundaries in microns are placed (`nuclei=` of :func:`hist2scrna.tl.fit`).

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If an image comes without alignment, the matrix is not affine or cannot be inverted, or a file is damaged.

    Examples
    --------
    >>> cells = h2s.io.read_xenium(  # doctest: +SKIP
    ...     "outs/", source_image_path="he.ome.tif", alignment="he_imagealignment.csv"
    ... )
    """
    path = Path(path).expanduser().resolve()
    if (source_image_path is None) != (alignment is None):
        raise ValueError(
            "Pass `source_image_path` and `alignment` together: the H&E image, and the matrix that maps its pixels "
            "to those of the morphology image (numpy.eye(3) if they are the same)."
        )
    experiment = _read_experiment(existing(path / EXPERIMENT))
    pixel_um = float(experiment["pixel_size"])
    source = None if source_image_path is None else existing_image(source_image_path)
    to_morphology = np.eye(3) if alignment is None else _read_alignment(alignment)
    adata = read_10x(path / COUNTS)
    cells = _read_cells(path)
    lacking = adata.obs_names.difference(cells.index)
    if len(lacking):
        raise ValueError(
            f"{len(lacking)} of {adata.n_obs} cells in '{path / COUNTS}' are not in the table of cells: the first is "
            f"{lacking[0]!r}. Do the files belong to the same run?"
        )
    cells = cells.loc[adata.obs_names]
    names = [experiment.get("region_name"), experiment.get("run_name")]
    library = library_id or "_".join(str(name) for name in names if name) or path.name
    mpp = pixel_um * magnification(to_morphology)
    factors = {keys.MPP: mpp}
    if AREA in cells:
        factors[keys.SPOT_DIAMETER] = 2 * float(np.sqrt(cells[AREA].median() / np.pi)) / mpp
    adata.obs = cells.drop(columns=CENTROID)
    adata.obs[keys.LIBRARY] = pd.Categorical([library] * adata.n_obs)
    microns = cells[CENTROID].to_numpy(dtype=np.float64)
    from_microns = invert(to_morphology, "`alignment`") @ np.diag([1 / pixel_um, 1 / pixel_um, 1.0])
    adata.obsm[keys.SPATIAL] = transform(from_microns, microns)
    metadata: dict[str, Any] = {keys.PIXELS_FROM_UM: from_microns}
    if source is not None:
        metadata[keys.SOURCE_IMAGE_PATH] = source
    adata.uns[keys.SPATIAL] = {library: {keys.IMAGES: {}, keys.SCALEFACTORS: factors, keys.METADATA: metadata}}
    return adata


def _read_experiment(path: Path) -> dict[str, Any]:
    try:
        experiment = json.loads(path.read_text(encoding="utf-8"))
        pixel_size = float(experiment["pixel_size"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"'{path}' does not tell the size of a pixel: {error!r}.") from error
    if not np.isfinite(pixel_size) or pixel_size <= 0:
        raise ValueError(f"Expected the size of a pixel in '{path}' to be positive, found {pixel_size}.")
    return experiment


def _read_alignment(alignment: str | Path | ArrayLike) -> NDArray[np.float64]:
    what = "`alignment`"
    try:
        if isinstance(alignment, str | Path):
            what = f"'{alignment}'"
            alignment = np.loadtxt(existing(Path(alignment).expanduser()), delimiter=",", ndmin=2)
        matrix = np.asarray(alignment, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what} is no matrix of numbers: {error}.") from error
    if matrix.shape != (3, 3) or not np.allclose(matrix[2], [0, 0, 1]):
        raise ValueError(f"Expected {what} to be a 3 x 3 matrix with the last row 0, 0, 1, found {matrix.tolist()}.")
    invert(matrix, what)
    return matrix


def _read_cells(folder: Path) -> pd.DataFrame:
    path = next((folder / name for name in CELLS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"No table of cells in '{folder}': expected one of {list(CELLS)}.")
    try:
        cells = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' is no table that can be read: {error}.") from error
    if not {CELL_ID, *CENTROID} <= set(cells.columns):
        raise ValueError(f"Expected the columns {[CELL_ID, *CENTROID]} in '{path}', found {list(cells.columns)}.")
    names = cells.pop(CELL_ID).map(lambda name: name.decode() if isinstance(name, bytes) else str(name))
    cells.index = pd.Index(names, name=None)
    if not cells.index.is_unique:
        raise ValueError(f"'{path}' has cell {cells.index[cells.index.duplicated()][0]!r} more than once.")
    return cells
