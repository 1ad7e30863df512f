"""Write the spots of AnnData as a folder of patches and tables."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

import hist2scrna
from hist2scrna import keys
from hist2scrna.files import replaced_whole, require_own
from hist2scrna.io import patch_layout as layout
from hist2scrna.messages import sections_counted, warn_user
from hist2scrna.spots.counts import choose_genes, read_counts
from hist2scrna.spots.labels import read_labels
from hist2scrna.spots.patch_files import PatchFiles, png_side
from hist2scrna.spots.patches import PatchSize
from hist2scrna.spots.read import read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData

    from hist2scrna.spots.read import Spots

log = logging.getLogger(__name__)

PATCH_PX = 224
ROWS_AT_ONCE = 256
# Of zlib: three times as fast as its default, on files 8 % larger.
COMPRESSION = 1
# Of this machine, or of this folder.
LEFT_OUT = (keys.SOURCE_IMAGE_PATH, keys.PATCH_FOLDER, keys.PATCH_SIDE_UM)


@sections_counted
def write_patch_folder(
    adata: AnnData,
    folder: str | Path,
    *,
    layer: str | None = None,
    labels_key: str | None = None,
    library_key: str | None = None,
    spatial_key: str = keys.SPATIAL,
    img_key: str | None = None,
    image: Any = None,
    patch_px: int | None = None,
    patch_um: float | None = None,
    mpp: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write spots as a folder of patches and tables, which :func:`read_patch_folder` reads without loss.

    The folder holds

    - `patches/{spot}.png`: the patch of each spot, RGB; characters that file systems dislike are percent-encoded.
    - `gene_expression.csv`: `spot_id`, then a column a gene: counts, as whole numbers.
    - `spatial_coordinates.csv`: `spot_id,x,y`, and `library_id` if `library_key` is given or there are several
      sections; all digits are kept.
    - `spatial_edges.csv`: `source,target`, numbers of the rows of `spatial_coordinates.csv`, from 0. The entries of
      `.obsp["spatial_connectivities"]`; without these, the neighbors that :func:`hist2scrna.tl.fit` would find.
    - `cell_types.csv`: `spot_id,cell_type`; empty where a spot has no label.
    - `metadata.json`: numbers of spots and genes, side of a patch in pixels and in microns, all cell types, scale
      factors and metadata of each section (without the path of the image), and what was in the `metadata.json` that
      `adata` was read from.

    Without counts or `labels_key`, there is no such table. `adata` is not changed.

    Parameters
    ----------
    adata
        Annotated data.
    folder
        Where to; it appears only once it is complete.
    layer
        Layer with counts; None: `.X`.
    labels_key
        Column of `.obs` with cell types; None: none are written.
    library_key
        Column of `.obs` with the section of each spot, as named in `.uns["spatial"]`; None: `"library_id"` if it is
        there and names libraries of `.uns["spatial"]`, else one section.
    spatial_key
        Slot of `.obsm` with the coordinates.
    img_key, image
        Which image to cut from, as in :func:`hist2scrna.tl.fit`.
    patch_px
        Side of a patch in pixels; None: 224, or that of the files if the patches of `adata` lie in a folder.
    patch_um
        Side of a patch in microns; None: one and a half spot diameters, or that of the files.
    mpp
        Microns per full-resolution pixel, where the metadata do not tell.
    overwrite
        Replace a folder of patches that is there. A folder that holds anything else as well is never replaced.

    Returns
    -------
    The folder.

    Raises
    ------
    FileExistsError
        If something is there already.
    KeyError
        If a slot is missing.
    ValueError
        If counts are not whole, or names cannot be written: empty, repeated, unprintable, too long, or different in
        case alone.

    Examples
    --------
    >>> import os
    >>> h2s.io.write_patch_folder(test, "section", labels_key="cell_type", patch_px=32, overwrite=True)
    PosixPath('section')
    >>> sorted(os.listdir("section"))[:2]
    ['cell_types.csv', 'gene_expression.csv']
    """
    folder = Path(folder)
    _check_target(folder, overwrite)
    if patch_px is not None and not 1 <= patch_px <= 4096:
        raise ValueError(f"Expected `patch_px` to be between 1 and 4096, found {patch_px}.")
    names = layout.check_names(adata.obs_names, "adata.obs_names")
    files = layout.patch_names(names)
    counts = _counts(adata, layer)
    labels = None if labels_key is None else _labels(adata, labels_key)
    opened = open_sections(adata, Source(library_key, spatial_key, img_key, image, mpp=mpp))
    spots = read_spots(opened, patch=PatchSize(patch_px or PATCH_PX, patch_um))
    if patch_px is None and isinstance(spots.patches, PatchFiles):
        stored = spots.patches
        px = round(png_side(stored.files[0]) * stored.part[stored.section[0]])
        spots.patches = PatchFiles(stored.files, stored.part, stored.xy, stored.section, px)

    with replaced_whole(folder, folder=True) as scratch:
        _write_patches(spots, files, scratch / layout.PATCHES)
        sections = spots.sections if library_key is not None or len(spots.sections) > 1 else None
        _write_coordinates(spots, names, sections, scratch / layout.COORDINATES)
        _write_table(scratch / layout.EDGES, layout.EDGE_HEADER, _edges(adata, spots).tolist())
        if counts is not None:
            _write_counts(scratch / layout.EXPRESSION, names, adata.var_names, counts)
        if labels is not None:
            _write_table(scratch / layout.LABELS, layout.LABEL_HEADER, zip(names, labels[1], strict=True))
        known_um = patch_um is not None or spots.geometry is None or not _side_is_assumed(spots)
        metadata = _metadata(adata, spots, 0 if counts is None else adata.n_vars, labels and labels[0], known_um)
        (scratch / layout.METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    log.info("%d spots written to %s", len(names), folder)
    return folder


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(f"'{folder}' exists already. Pass overwrite=True to replace the patches there.")
    ours = (folder / layout.COORDINATES).is_file() and (folder / layout.PATCHES).is_dir()
    if not ours and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"'{folder}' exists and is no folder of patches: it is left as it is.")
    if not ours:
        return
    require_own(folder, layout.FILES, "a folder of patches")
    spots = [row[0] for _, row in layout.table_rows(folder / layout.COORDINATES)][1:]
    patches = folder / layout.PATCHES
    require_own(patches, {layout.find_patch(patches, spot) or "" for spot in spots}, "a folder of patches")


def _counts(adata: AnnData, layer: str | None) -> Any:
    """Return the matrix of counts, checked; None if there is none."""
    if layer is None and (adata.X is None or adata.n_vars == 0):
        return None
    read_counts(adata, choose_genes(adata, None), layer)
    genes = layout.check_names(adata.var_names, "adata.var_names")
    if layout.SPOT in genes:
        raise ValueError(f"A gene cannot be called {layout.SPOT!r}, as the column of the spots is. Rename it.")
    return adata.X if layer is None else adata.layers[layer]


def _labels(adata: AnnData, labels_key: str) -> tuple[list[str], list[str]]:
    """Return all cell types, and that of each spot, empty where there is none."""
    present, codes = read_labels(adata, labels_key)
    types = [str(c) for c in adata.obs[labels_key].astype("category").cat.categories]
    layout.check_names(types, f"adata.obs[{labels_key!r}]")
    return types, [present[code] if code >= 0 else "" for code in codes]


def _write_patches(spots: Spots, files: Sequence[str], folder: Path) -> None:
    from PIL import Image

    assert spots.patches is not None
    folder.mkdir()
    for start in range(0, len(files), ROWS_AT_ONCE):
        chunk = np.arange(start, min(start + ROWS_AT_ONCE, len(files)))
        for file, patch in zip(files[start:], spots.patches.read(chunk), strict=False):
            Image.fromarray(np.ascontiguousarray(patch.transpose(1, 2, 0))).save(
                folder / file, "PNG", compress_level=COMPRESSION
            )


def _write_coordinates(spots: Spots, names: Sequence[str], sections: Sequence[str] | None, path: Path) -> None:
    rows = zip(names, *spots.xy.T.tolist(), strict=True)
    if sections is None:
        _write_table(path, layout.COORDINATE_HEADER, rows)
        return
    layout.check_names(sections, "The column of the sections")
    header = [*layout.COORDINATE_HEADER, keys.LIBRARY]
    _write_table(path, header, ((*row, sections[code]) for row, code in zip(rows, spots.section, strict=True)))


def _write_counts(path: Path, names: Sequence[str], genes: pd.Index, counts: Any) -> None:
    def rows() -> Iterable[list[Any]]:
        for start in range(0, len(names), ROWS_AT_ONCE):
            block = counts[start : start + ROWS_AT_ONCE]
            block = block.to_memory() if hasattr(block, "to_memory") else block
            block = block.toarray() if sparse.issparse(block) else np.asarray(block)
            for name, row in zip(names[start:], block.astype(np.int64).tolist(), strict=False):
                yield [name, *row]

    _write_table(path, [layout.SPOT, *genes], rows())


def _edges(adata: AnnData, spots: Spots) -> np.ndarray:
    """Return `(e, 2)` source and target: as given, else as found."""
    stored = keys.CONNECTIVITIES in adata.obsp
    matrix = sparse.coo_array(sparse.csr_array(adata.obsp[keys.CONNECTIVITIES] if stored else spots.graph.adjacency))
    kept = matrix.data != 0
    if (matrix.data[kept] != 1).any():
        warn_user(
            f"The weights in adata.obsp['{keys.CONNECTIVITIES}'] are not written: edges have none in this format."
        )
    return np.stack([matrix.row[kept], matrix.col[kept]], axis=1)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _side_is_assumed(spots: Spots) -> bool:
    assert spots.geometry is not None
    return isinstance(spots.patches, PatchFiles) and spots.geometry.scale_from == "argument"


def _metadata(
    adata: AnnData, spots: Spots, n_genes: int, cell_types: list[str] | None, known_um: bool
) -> dict[str, Any]:
    assert spots.patches is not None
    assert spots.geometry is not None
    entries = adata.uns.get(keys.SPATIAL, {})
    libraries = {
        name: {key: _plain(entries.get(name, {}).get(key) or {}) for key in (keys.SCALEFACTORS, keys.METADATA)}
        for name in spots.sections
    }
    return {
        **json.loads(adata.uns.get(keys.FOLDER_METADATA, "{}")),
        layout.N_SPOTS: len(spots),
        layout.N_GENES: n_genes,
        layout.SIDE_PX: spots.patches.px,
        **({layout.SIDE_UM: spots.geometry.um} if known_um else {}),
        layout.OWN: {
            "format_version": layout.FORMAT_VERSION,
            "version": hist2scrna.__version__,
            "cell_types": cell_types or [],
            "libraries": libraries,
        },
    }


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers and texts of an entry."""
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in entry.items()}
    return {k: v for k, v in values.items() if isinstance(v, str | int | float) and k not in LEFT_OUT}
