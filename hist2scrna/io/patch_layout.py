"""Layout of a patch folder: file names, table headers, and the file name of the patch of each spot."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hist2scrna import keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PATCHES = "patches"
EXPRESSION = "gene_expression.csv"
COORDINATES = "spatial_coordinates.csv"
EDGES = "spatial_edges.csv"
LABELS = "cell_types.csv"
METADATA = "metadata.json"
FILES = (PATCHES, EXPRESSION, COORDINATES, EDGES, LABELS, METADATA)

SPOT = "spot_id"
COORDINATE_HEADER = [SPOT, "x", "y"]
EDGE_HEADER = ["source", "target"]
LABEL_HEADER = [SPOT, keys.CELL_TYPE]

# Keys of metadata.json that are ours; all others are kept as they are.
N_SPOTS, N_GENES, SIDE_PX, SIDE_UM, OWN = "n_spots", "n_genes", "patch_px", "patch_um", "hist2scrna"
OWN_KEYS = (N_SPOTS, N_GENES, SIDE_PX, SIDE_UM, OWN)
FORMAT_VERSION = 1

# Characters that all file systems accept in a name; others are percent-encoded.
PLAIN = " !#$&'()+,;=@[]{}^`~"
LONGEST_NAME = 240


@dataclass(frozen=True)
class FolderMetadata:
    """Content of `metadata.json`.

    Attributes
    ----------
    side_um
        Side of a patch in microns; None if unknown.
    cell_types
        All cell types, in their order.
    libraries
        Scale factors and metadata by section.
    other
        All other entries.
    """

    side_um: float | None = None
    cell_types: list[str] = field(default_factory=list)
    libraries: dict[str, dict[str, Any]] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)


def patch_name(spot: str) -> str:
    """Return the file name of a spot's patch: its name and `.png`, unusual characters percent-encoded."""
    return quote(spot, safe=PLAIN) + ".png"


def find_patch(folder: Path, spot: str) -> str | None:
    """Return the file name of a spot's patch in `folder`; None if there is none."""
    literal = f"{spot}.png"
    names = [patch_name(spot), *([literal] if Path(literal).name == literal and "\0" not in literal else [])]
    return next((name for name in names if (folder / name).is_file()), None)


def check_names(names: Iterable[str], where: str) -> list[str]:
    """Return names that can be written to a table and are unique.

    Raises
    ------
    ValueError
        If a name is empty, repeats, or has control characters.
    """
    checked, seen = [str(name) for name in names], set()
    for name in checked:
        if not name or not name.isprintable():
            raise ValueError(f"{where} holds the name {name!r}: empty, or with characters that cannot be printed.")
        if name in seen:
            raise ValueError(f"{where} holds {name!r} more than once. Make the names unique first.")
        seen.add(name)
    return checked


def patch_names(spots: Sequence[str]) -> list[str]:
    """Return the file name of each spot's patch.

    Raises
    ------
    ValueError
        If a name is too long for a file, or two differ in case alone, which not all file systems tell apart.
    """
    names = [patch_name(spot) for spot in spots]
    folded: dict[str, str] = {}
    for spot, name in zip(spots, names, strict=True):
        if len(name) > LONGEST_NAME:
            raise ValueError(f"The name {spot!r} in adata.obs_names is too long to name a file. Shorten it.")
        other = folded.setdefault(name.lower(), spot)
        if other != spot:
            raise ValueError(
                f"The names {other!r} and {spot!r} in adata.obs_names differ in case alone, so that their patches "
                "would be one file on some systems. Rename one."
            )
    return names


def table_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each row of a CSV file, the header first; empty lines are left out.

    Raises
    ------
    ValueError
        If the file is empty, is not UTF-8, or a row has more or fewer cells than the header.
    """
    width = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if not row:
                    continue
                width = width or len(row)
                if len(row) != width:
                    raise ValueError(
                        f"'{path}', line {reader.line_num}: expected {width} cells as in the header, found {len(row)}."
                    )
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"'{path}', after line {reader.line_num}: no CSV that can be read: {error}.") from error
    if not width:
        raise ValueError(f"'{path}' is empty: expected a header.")


def check_header(path: Path, header: Sequence[str], expected: Sequence[str]) -> None:
    """Raise ValueError unless the header is as expected."""
    if list(header) != list(expected):
        raise ValueError(f"'{path}': expected the header {','.join(expected)!r}, found {','.join(header)!r}.")
