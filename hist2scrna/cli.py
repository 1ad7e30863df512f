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
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results; made if it is not there.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the simulated tissue and of the training.")] = 0,
) -> None:
    """Simulate sections, fit, predict an unseen one, evaluate; a few minutes on two cores.

    Writes an .h5ad with the predictions, the model's folder, the metrics as JSON, and pictures.
    """
    from hist2scrna.demo import run_demo

    run_demo(out, seed=seed)
