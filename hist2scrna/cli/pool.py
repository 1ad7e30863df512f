"""`hist2scrna pool`: slides from patches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import Argument, arguments_of, given, with_options
from hist2scrna.cli.reading import read_data
from hist2scrna.cli.slides import slide_files, slide_grids
from hist2scrna.cli.writing import check_output, write_one

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
    files = slide_files(data)
    patches = slide_grids(files, spacing_um, mpp) if files else read_data(data)
    write_one(pp.pool_patches(patches, **given(options, POOL)), out, overwrite=overwrite)
