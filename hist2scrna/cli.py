"""The command line: a thin layer over the public functions."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Gene expression, as counts, from H&E histology.", no_args_is_help=True, pretty_exceptions_show_locals=False
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from hist2scrna import __version__

        typer.echo(f"hist2scrna {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is assumed and done on the way.")] = False,
) -> None:
    """Gene expression, as counts, from H&E histology."""
    # Squidpy's import says this of its own docstrings; it is of no use to who reads a terminal.
    warnings.filterwarnings("ignore", category=SyntaxWarning, module="docrep")
    if verbose:
        from rich.logging import RichHandler

        log = logging.getLogger("hist2scrna")
        log.addHandler(RichHandler(show_path=False))
        log.setLevel(logging.INFO)


@app.command()
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
    from hist2scrna.reporting.page import report

    try:
        typer.echo(f"Wrote {report(evaluation, out, title=title, history=history)}")
    except (OSError, ValueError) as error:
        typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from error


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results; made if it is not there.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the simulated tissue and of the training.")] = 0,
) -> None:
    """Simulate sections, fit, predict an unseen one, evaluate; a few minutes on two cores.

    Writes an .h5ad with the predictions, the model's folder, the metrics as JSON, a report, and pictures.
    """
    from hist2scrna.demo import run_demo

    run_demo(out, seed=seed)
