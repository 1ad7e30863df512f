"""`hist2scrna report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hist2scrna.cli.errors import in_one_line


@in_one_line
def report(
    evaluation: Annotated[
        Path, typer.Argument(help="JSON of an evaluation, as its to_json wrote it.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The page; a file of that name is replaced.")] = Path("report.html"),
    history: Annotated[
        Path | None, typer.Option(help="Folder of the model, to draw its losses too.", show_default=False)
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.", show_default=False)] = None,
) -> None:
    """Show an evaluation as one HTML page that needs no network: plots, a table of genes, how it was done."""
    from hist2scrna.reporting.page import report as write_page

    typer.echo(f"Wrote {write_page(evaluation, out, title=title, history=history)}")
