"""Read a folder of patches and tables."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from hist2scrna import keys
from hist2scrna.io import patch_layout as layout
from hist2scrna.messages import warn_user
from hist2scrna.spots.patch_files import png_side
from hist2scrna.verbosity import HINT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# Above, float32 does not hold every whole number.
EXACT_IN_FLOAT32 = 2**24


def read_patch_folder(folder: str | Path, *, patch_um: float | None = None, counts: bool = True) -> ad.AnnData:
    """Read a folder with a patch, counts, coordinates, edges and a label for each spot.

    The patches stay files, and are read when they are needed: `folder` must stay where it is. What the folder holds is
    described in :func:`write_patch_folder`. `gene_expression.csv`, `spatial_edges.csv`, `cell_types.csv` and
    `metadata.json` may be missing. Spots have the order of `spatial_coordinates.csv`; the other tables are matched by
    `spot_id`.

    Parameters
    ----------
    folder
        The folder, with `patches/` and `spatial_coordinates.csv` in it.
    patch_um
        Side of a patch in microns, needed if `metadata.json` has no `"patch_um"`. If it is unknown, training warns and
        assumes its own `patch_um`, or 112; prediction assumes that of the model.
    counts
        Refuse expression that is not whole numbers. False reads it as it is: it can be looked at, but no model of
        counts can be trained on it.

    Returns
    -------
    AnnData, spots x genes:

    - `.X`: counts, CSR float32 (float64 if one exceeds 2^24); None without `gene_expression.csv`, which also leaves no
      genes.
    - `.obs["library_id"]`: categorical, the section: from `spatial_coordinates.csv`, else the one that `metadata.json`
      names, else the name of the folder; `.obs["cell_type"]`: categorical; `.obs["patch_file"]`: name of the patch.
    - `.obsm["spatial"]`: float64, `x` and `y`.
    - `.obsp["spatial_connectivities"]`: CSR float64, one for each edge, from row (source) to column (target) as listed;
      the models make it symmetric.
    - `.uns["spatial"][library]`: `metadata["patch_folder"]`, where the patches are, and `metadata["patch_side_um"]`, if
      known; `scalefactors` and `metadata` of `metadata.json`; no images.
    - `.uns["folder_metadata"]`: what else is in `metadata.json`, as JSON text.

    Raises
    ------
    FileNotFoundError
        If the folder, `spatial_coordinates.csv` or a patch is missing.
    ValueError
        If a file is damaged or does not fit the others; the message names file and line.

    Examples
    --------
    >>> h2s.io.write_patch_folder(test, "section", labels_key="cell_type", patch_px=32, overwrite=True)
    PosixPath('section')
    >>> h2s.io.read_patch_folder("section").shape
    (30, 12)
    """
    folder = Path(folder).expanduser()
    for needed in (folder, folder / layout.PATCHES, folder / layout.COORDINATES):
        if not needed.exists():
            raise FileNotFoundError(f"No '{needed}'. A folder of patches has patches/ and {layout.COORDINATES} in it.")
    metadata = _read_metadata(folder / layout.METADATA)
    side_um = _side_um(folder, metadata, patch_um)
    names, xy, libraries = _read_coordinates(folder / layout.COORDINATES)
    position = {name: i for i, name in enumerate(names)}
    files = _find_patches(folder, names)
    if libraries is None:
        library = next(iter(metadata.libraries)) if len(metadata.libraries) == 1 else folder.resolve().name
        libraries = [library] * len(names)
    present = dict.fromkeys([*[name for name in metadata.libraries if name in set(libraries)], *libraries])
    obs = pd.DataFrame(
        {keys.LIBRARY: pd.Categorical(libraries, categories=list(present)), keys.PATCH_FILE: files},
        index=pd.Index(names, dtype=object),
    )
    if (folder / layout.LABELS).is_file():
        obs[keys.CELL_TYPE] = _read_labels(folder / layout.LABELS, position, metadata.cell_types)
    genes: list[str] = []
    matrix = None
    if (folder / layout.EXPRESSION).is_file():
        genes, matrix = _read_expression(folder / layout.EXPRESSION, position, counts)
    adata = ad.AnnData(
        X=matrix, obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=object)), obsm={keys.SPATIAL: xy}
    )
    if (folder / layout.EDGES).is_file():
        adata.obsp[keys.CONNECTIVITIES] = _read_edges(folder / layout.EDGES, len(names))
    where: dict[str, str | float] = {keys.PATCH_FOLDER: str((folder / layout.PATCHES).resolve())}
    if side_um is not None:
        where[keys.PATCH_SIDE_UM] = side_um
    adata.uns[keys.SPATIAL] = {
        name: {
            keys.IMAGES: {},
            keys.SCALEFACTORS: dict(metadata.libraries.get(name, {}).get(keys.SCALEFACTORS, {})),
            keys.METADATA: {**metadata.libraries.get(name, {}).get(keys.METADATA, {}), **where},
        }
        for name in present
    }
    if metadata.other:
        adata.uns[keys.FOLDER_METADATA] = json.dumps(metadata.other)
    return adata


def _read_metadata(path: Path) -> layout.FolderMetadata:
    if not path.is_file():
        return layout.FolderMetadata()
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is no JSON that can be read: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected '{path}' to hold an object of names and values, found {type(content).__name__}.")
    ours = content.get(layout.OWN, {})
    try:
        if ours.get("format_version", 0) > layout.FORMAT_VERSION:
            raise ValueError(f"it is of format {ours['format_version']}: install a newer hist2scrna")
        side = content.get(layout.SIDE_UM)
        side = None if side is None else float(side)
        if side is not None and not (math.isfinite(side) and side > 0):
            raise ValueError(f"expected {layout.SIDE_UM!r} to be positive, found {side}")
        cell_types = [str(name) for name in ours.get("cell_types", [])]
        libraries = {
            str(name): {k: dict(v) for k, v in entry.items()} for name, entry in ours.get("libraries", {}).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}': {error}.") from error
    other = {key: value for key, value in content.items() if key not in layout.OWN_KEYS}
    return layout.FolderMetadata(side, cell_types, libraries, other)


def _side_um(folder: Path, metadata: layout.FolderMetadata, patch_um: float | None) -> float | None:
    if patch_um is None:
        return metadata.side_um
    if not (math.isfinite(patch_um) and patch_um > 0):
        raise ValueError(f"Expected `patch_um` to be a positive number, found {patch_um}.")
    if metadata.side_um is not None and not math.isclose(metadata.side_um, patch_um, rel_tol=1e-3):
        raise ValueError(
            f"`patch_um` is {patch_um:g}, but '{folder / layout.METADATA}' says that the patches are "
            f"{metadata.side_um:g} um wide. Leave patch_um out, or correct the file."
        )
    return float(patch_um)


def _read_coordinates(path: Path) -> tuple[list[str], NDArray[np.float64], list[str] | None]:
    rows = layout.table_rows(path)
    header = next(rows)[1]
    sections: list[str] | None = [] if header == [*layout.COORDINATE_HEADER, keys.LIBRARY] else None
    if sections is None:
        layout.check_header(path, header, layout.COORDINATE_HEADER)
    lines: dict[str, int] = {}
    xy = []
    for line, (name, x, y, *rest) in rows:
        if not name or name in lines:
            what = f"{layout.SPOT} is empty" if not name else f"spot {name!r} is already in line {lines[name]}"
            raise ValueError(f"'{path}', line {line}: {what}.")
        lines[name] = line
        xy.append((_number(x, path, line, "x"), _number(y, path, line, "y")))
        if sections is not None:
            if not rest[0]:
                raise ValueError(f"'{path}', line {line}: {keys.LIBRARY} is empty. Name the section of each spot.")
            sections.append(rest[0])
    if not lines:
        raise ValueError(f"'{path}' holds no spot.")
    return list(lines), np.array(xy, dtype=np.float64), sections


def _number(text: str, path: Path, line: int, column: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{path}', line {line}: expected a finite number in column {column!r}, found {text!r}.")
    return number


def _find_patches(folder: Path, names: Sequence[str]) -> list[str]:
    patches = folder / layout.PATCHES
    existing = [layout.find_patch(patches, name) for name in names]
    missing = [name for name, file in zip(names, existing, strict=True) if file is None]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} spots in '{folder / layout.COORDINATES}' have no patch in '{patches}': "
            f"the first is {missing[0]!r}, whose file would be '{layout.patch_name(missing[0])}'."
        )
    files = [file for file in existing if file is not None]
    sides = [png_side(patches / file) for file in files]
    odd = next((i for i, side in enumerate(sides) if side != sides[0]), None)
    if odd is not None:
        raise ValueError(
            f"Patches in '{patches}' differ in size: '{files[0]}' is {sides[0]} px wide, '{files[odd]}' {sides[odd]} "
            "px. All must show the same width of tissue with as many pixels."
        )
    log.log(HINT, "%d patches of %d px in %s", len(files), sides[0], patches)
    return files


def _row_of(name: str, position: Mapping[str, int], seen: Mapping[int, int], path: Path, line: int) -> int:
    if name not in position:
        raise ValueError(f"'{path}', line {line}: spot {name!r} is not in {layout.COORDINATES}.")
    row = position[name]
    if row in seen:
        raise ValueError(f"'{path}', line {line}: spot {name!r} is already in line {seen[row]}.")
    return row


def _read_expression(path: Path, position: Mapping[str, int], whole: bool) -> tuple[list[str], sparse.csr_matrix]:
    rows = layout.table_rows(path)
    _, (first, *genes) = next(rows)
    layout.check_header(path, [first], [layout.SPOT])
    layout.check_names(genes, f"The header of '{path}'")
    seen: dict[int, int] = {}
    parts = []
    for line, (name, *cells) in rows:
        seen[_row_of(name, position, seen, path, line)] = line
        try:
            values = np.array(cells, dtype=np.float64)
        except ValueError:
            values = np.array([_number(cell, path, line, gene) for cell, gene in zip(cells, genes, strict=True)])
        wrong = ~np.isfinite(values) | (values < 0) | (whole & (values != np.round(values)))
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            way_out = " Pass counts=False to read values that are no counts." if whole else ""
            expected = "a count" if whole else "a finite number of at least 0"
            raise ValueError(
                f"'{path}', line {line} (spot {name!r}): expected {expected} of {genes[at]!r}, found {cells[at]!r}."
                f"{way_out}"
            )
        parts.append(sparse.csr_array(values[None]))
    absent = next((name for name, row in position.items() if row not in seen), None)
    if absent is not None:
        raise ValueError(f"'{path}' has no row for {len(position) - len(seen)} spots: the first is {absent!r}.")
    matrix = sparse.csr_matrix(sparse.vstack(parts, format="csr")[np.argsort(list(seen))])
    largest = matrix.data.max(initial=0)
    return genes, matrix.astype(np.float32 if whole and largest <= EXACT_IN_FLOAT32 else np.float64)


def _read_labels(path: Path, position: Mapping[str, int], cell_types: Sequence[str]) -> pd.Categorical:
    rows = layout.table_rows(path)
    layout.check_header(path, next(rows)[1], layout.LABEL_HEADER)
    seen: dict[int, int] = {}
    labels: list[str | None] = [None] * len(position)
    for line, (name, label) in rows:
        row = _row_of(name, position, seen, path, line)
        seen[row] = line
        labels[row] = label or None
    if len(seen) < len(position):
        absent = next(name for name, row in position.items() if row not in seen)
        warn_user(
            f"'{path}' has no row for {len(position) - len(seen)} of {len(position)} spots (the first is {absent!r}): "
            "these are left without a label."
        )
    present = {label for label in labels if label is not None}
    in_order = sorted(present, key=lambda label: (0, int(label), label) if label.isdecimal() else (1, 0, label))
    return pd.Categorical(labels, categories=list(cell_types) if present <= set(cell_types) else in_order)


def _read_edges(path: Path, n: int) -> sparse.csr_matrix:
    rows = layout.table_rows(path)
    layout.check_header(path, next(rows)[1], layout.EDGE_HEADER)
    edges = []
    for line, row in rows:
        if not all(cell.isdecimal() and int(cell) < n for cell in row):
            raise ValueError(
                f"'{path}', line {line}: expected two numbers of spots from 0 to {n - 1} (rows of "
                f"{layout.COORDINATES}), found {','.join(row)!r}."
            )
        edges.append((int(row[0]), int(row[1])))
    source, target = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    matrix = sparse.csr_matrix((np.ones(len(edges)), (source, target)), shape=(n, n))
    matrix.data[:] = 1
    return matrix
