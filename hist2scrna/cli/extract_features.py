"""`hist2scrna extract-features`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import arguments_of, given, with_options
from hist2scrna.cli.reading import read_data
from hist2scrna.cli.writing import check_output, write_one

# Colors are three numbers twice, of an encoder of one's own; what is written goes to --out; the bar always shows; a
# cluster is of Python.
OTHERWISE = ("normalize", "client", "progress", "copy")
EXTRACT = [a for a in arguments_of("pp._extract_features", "extract_features") if a.name not in OTHERWISE]


@with_options({"Features": EXTRACT})
@in_one_line
def extract_features(
    data: Annotated[list[Path], typer.Argument(help="Sections, as for predict.", show_default=False)],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="'imagenet' (the default), 'morphology', a published pathology encoder, or a model of timm.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File for the result, .h5ad or .zarr.")] = Path("features.h5ad"),
    config: Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file at --out.")] = False,
    **options: Any,
) -> None:
    """Describe every spot by an encoder, for models on features.

    Example: hist2scrna extract-features sections.h5ad --encoder uni --out features.h5ad
    """
    from hist2scrna import pp

    check_output(out, overwrite=overwrite)
    adata = read_data(data)
    arguments = given(options, EXTRACT)
    if encoder is not None:
        arguments["encoder"] = encoder
    pp.extract_features(adata, **arguments)
    write_one(adata, out, overwrite=overwrite)
