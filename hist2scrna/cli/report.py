"""`hist2scrna report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.reading import read_one
from hist2scrna.stored import STORES


@in_one_line
def report(
    source: Annotated[
        Path,
        typer.Argument(
            help="JSON of an evaluation, as its to_json wrote it; or a prediction, .h5ad or .zarr.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page; a file of that name is replaced.")] = Path("report.html"),
    history: Annotated[
        Path | None,
        typer.Option(help="Of an evaluation: folder of the model, to draw its losses too.", show_default=False),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="Of a prediction: its key.", show_default=False)] = None,
) -> None:
    """Show an evaluation, or a prediction, as one HTML page that needs no network.

    Of an evaluation: plots, a table of genes, how it was done. Of a prediction, which needs no measured counts: cell
    types, library size, uncertainty, tissue unlike the training, and the genes that vary most. Examples:

    hist2scrna report scores.json --out report.html

    hist2scrna report predicted.h5ad --out prediction.html
    """
    from hist2scrna.reporting.page import report as write_page

    shown = read_one(source) if source.suffix in STORES and source.exists() else source
    typer.echo(f"Wrote {write_page(shown, out, title=title, history=history, key=key)}")
