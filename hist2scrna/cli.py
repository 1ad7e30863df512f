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
def benchmark(
    data: Annotated[
        list[str], typer.Argument(help="Data sets, .h5ad or .zarr, each as PATH or NAME=PATH.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; complete jobs in it are not run again.")] = Path(
        "benchmark"
    ),
    model: Annotated[
        list[str] | None, typer.Option(help="Name of a model, with its own recipe; repeatable.", show_default=False)
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(help="TOML or JSON of models: a table a label, arguments of fit in it.", show_default=False),
    ] = None,
    group_key: Annotated[
        str | None, typer.Option(help="Column of .obs to leave groups out by, as the donor; default: the section.")
    ] = None,
    fold: Annotated[
        list[str] | None, typer.Option(help="Group to hold out; repeatable; default: each in turn.", show_default=False)
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Of the training; repeatable.", show_default="0")] = None,
    genes: Annotated[
        str | None, typer.Option(help="File with a gene a line, or boolean column of .var; default: all genes.")
    ] = None,
    n_genes: Annotated[
        int | None, typer.Option(help="Choose so many variable genes on the training sections of each fold.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer with raw counts; default: .X.")] = None,
    labels_key: Annotated[str | None, typer.Option(help="Column of .obs with cell types.")] = None,
    library_key: Annotated[
        str | None, typer.Option(help="Column of .obs with the section; default: library_id.")
    ] = None,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Keep the trained models too.")] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, cuda or mps.")] = "auto",
) -> None:
    """Compare models on held-out sections or donors, with nulls and ceiling; started again, it goes on.

    Writes a folder a job, and jobs.csv, table.csv (each as JSON too) and table.md.
    """
    from hist2scrna import tl
    from hist2scrna.benchmarking.request import read_data, read_genes, read_model_file

    try:
        chosen = read_model_file(models) if models is not None else {}
        table = tl.benchmark(
            read_data(data),
            {name: {"model": name} for name in model or ()} | chosen,
            folder=out,
            group_key=group_key,
            folds=fold,
            seeds=seed or (0,),
            genes=read_genes(genes),
            n_genes=n_genes,
            layer=layer,
            labels_key=labels_key,
            library_key=library_key,
            keep_models=keep_models,
            accelerator=accelerator,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        typer.echo(f"Error: {' '.join(str(error.args[0] if isinstance(error, KeyError) else error).split())}", err=True)
        raise typer.Exit(1) from error
    typer.echo((out / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"Wrote {out}/")
    if n_failed := int(table["n_failed"].sum()):
        typer.echo(f"Error: {n_failed} jobs failed; see jobs.csv and the .failed.txt files in {out}/", err=True)
        raise typer.Exit(1)


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
