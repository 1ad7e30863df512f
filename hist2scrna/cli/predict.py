"""`hist2scrna predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import arguments_of, given, with_options
from hist2scrna.cli.reading import read_data
from hist2scrna.cli.slides import slide_files, slide_grids
from hist2scrna.cli.writing import check_output, write_one

# What is written goes to --out, as a copy or in place is no question there; the bar always shows; a cluster is of
# Python.
OTHERWISE = ("store", "client", "copy", "progress")
PREDICT = [argument for argument in arguments_of("trained.predict", "predict") if argument.name not in OTHERWISE]


@with_options({"Prediction": PREDICT}, renamed={"layers": "--layer"})
@in_one_line
def predict(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Sections: .h5ad, .zarr, patch folders, folders of Space Ranger or Xenium; or slides: images without "
            "an assay; or folders of either.",
            show_default=False,
        ),
    ],
    model: Annotated[
        Path, typer.Option(help="Folder of the model, or the name of a published one.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="File for the result, .h5ad or .zarr.")] = Path("predicted.h5ad"),
    config: Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file at --out.")] = False,
    spacing_um: Annotated[
        float | None,
        typer.Option(help="Distance in microns between the spots laid over the tissue of a slide. Default: 100."),
    ] = None,
    **options: Any,
) -> None:
    """Predict counts and cell types, and write them to a copy of the data.

    Expression in DATA is never read. Examples:

    hist2scrna predict unseen.h5ad --model model --out predicted.h5ad

    hist2scrna predict slide.svs --model her2-breast --out map.h5ad
    """
    from hist2scrna import tl

    check_output(out, overwrite=overwrite)
    arguments = given(options, PREDICT)
    files = slide_files(data)
    if files:
        adata = slide_grids(files, spacing_um, arguments.pop("mpp", None))
    elif spacing_um is None:
        adata = read_data(data)
    else:
        raise ValueError("--spacing-um lays spots over slides, and DATA has spots of its own. Leave it out.")
    write_one(tl.predict(adata, model, **arguments), out, overwrite=overwrite)
