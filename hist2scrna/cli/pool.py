"""`hist2scrna pool`: slides from patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import Argument, arguments_of, given, with_options
from hist2scrna.cli.reading import STORES, is_patch_folder, read_data
from hist2scrna.cli.writing import check_output, write_one

if TYPE_CHECKING:
    from anndata import AnnData

IMAGES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".vms", ".bif", ".jpg", ".jpeg", ".png")
# What is written goes to --out; the bar always shows.
OTHERWISE = ("progress",)
POOL = [
    Argument("features_key", "str", "Key of .obsm with features, in place of --encoder."),
    *(a for a in arguments_of("pp._pool_patches", "pool_patches") if a.name not in OTHERWISE),
]


@with_options({"Pooling": POOL})
@in_one_line
def pool(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Whole-slide files or a folder of them, each a slide; or sections, as for predict.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="File for the slides, .h5ad or .zarr.")] = Path("slides.h5ad"),
    config: Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file at --out.")] = False,
    spacing_um: Annotated[
        float, typer.Option(help="Distance in microns between the patches of a whole-slide file.")
    ] = 100.0,
    mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel of whole-slide files.", show_default=False)
    ] = None,
    **options: Any,
) -> None:
    """Make one observation of each slide: mean features of its patches, and bulk expression or the sum of the counts.

    That is what fit --model hist2rna reads. Example:

    hist2scrna pool slides/ --bulk bulk.csv --out slides.h5ad
    """
    from hist2scrna import pp

    check_output(out, overwrite=overwrite)
    files = [file for path in data for file in _image_files(path)]
    if files and any(not _image_files(path) for path in data):
        raise ValueError("DATA mixes whole-slide files with data sets. Pool them one after the other.")
    patches = _grids(files, spacing_um, mpp) if files else read_data(data)
    write_one(pp.pool_patches(patches, **given(options, POOL)), out, overwrite=overwrite)


def _image_files(path: Path) -> list[Path]:
    """Return the whole-slide files that a path names or holds; none of a data set."""
    if path.suffix in STORES or is_patch_folder(path):
        return []
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
    return [path] if path.suffix.lower() in IMAGES else []


def _grids(files: list[Path], spacing_um: float, mpp: float | None) -> AnnData:
    """Return the patches of all files, each a section with the name of its file."""
    from hist2scrna import io, pp

    names = [file.stem for file in files]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"Several files have the name {repeated[0]!r}, so their slides could not be told apart.")
    grids = [pp.tissue_grid(file, spacing_um=spacing_um, mpp=mpp, library_id=file.stem) for file in files]
    return io.concat(grids)
