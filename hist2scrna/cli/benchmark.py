"""`hist2scrna benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import arguments_of, given, with_options
from hist2scrna.cli.request import read_data, read_genes, read_model_file, read_table

# The folder is --out; splits are in a file; the bar always shows.
OTHERWISE = ("folder", "splits", "progress")
BENCHMARK = [argument for argument in arguments_of("tl._benchmark", "benchmark") if argument.name not in OTHERWISE]


@with_options({"Benchmark": BENCHMARK}, renamed={"folds": "--fold", "seeds": "--seed"})
@in_one_line
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
    splits: Annotated[
        Path | None,
        typer.Option(
            help='TOML or JSON of pairs of what to train on and what to test on, {"C to B4": [["C2", "C3"], ["B4"]]}: '
            "sections, or values of --group-key.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    **options: Any,
) -> None:
    """Compare models on held-out sections or donors, with baselines and ceiling; started again, it goes on.

    Writes a folder a job, and jobs.csv, table.csv (each as JSON too) and table.md. --fold and --seed are repeatable;
    --genes also takes a file with a gene a line. Example:

    hist2scrna benchmark sections.h5ad --model kernel --model stnet --group-key donor --out benchmark
    """
    from hist2scrna import tl

    arguments = given(options, BENCHMARK)
    if model or models is not None:
        in_file = {} if models is None else read_model_file(models)
        arguments["models"] = {name: {"model": name} for name in model or ()} | in_file
    if splits is not None:
        arguments["splits"] = read_table(splits, "splits")
    if "genes" in arguments:
        arguments["genes"] = read_genes(arguments["genes"])
    table = tl.benchmark(read_data(data), folder=out, **arguments)
    typer.echo((out / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"Wrote {out}/")
    if n_failed := int(table["n_failed"].sum()):
        typer.echo(f"Error: {n_failed} jobs failed; see jobs.csv and the .failed.txt files in {out}/", err=True)
        raise typer.Exit(1)
