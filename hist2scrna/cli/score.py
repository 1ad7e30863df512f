"""`hist2scrna evaluate`, `benchmark` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hist2scrna import keys
from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.reading import label_key, read_data, section_key


@in_one_line
def evaluate(
    data: Annotated[
        list[Path],
        typer.Argument(help="Predictions next to counts, as predict writes them.", show_default=False),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the model: its baselines, and predictions where there are none.", show_default=False
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON for the evaluation.", show_default=False)] = None,
    config: Config = None,
    key: Annotated[str, typer.Option(help="Prefix of the predictions.")] = "hist2scrna",
    layer: Annotated[str | None, typer.Option(help="Layer with raw counts; default: X.")] = None,
    labels_key: Annotated[
        str | None, typer.Option(help="Column with true cell types; '' for none.", show_default=keys.CELL_TYPE)
    ] = None,
    library_key: Annotated[str | None, typer.Option(help="Column of sections.", show_default=keys.LIBRARY)] = None,
    seed: Annotated[int, typer.Option(help="Of the thinning and of random draws.")] = 0,
) -> None:
    """Score predictions against counts, next to the mean baseline, the depth baseline and the noise ceiling.

    Example: hist2scrna evaluate predicted.h5ad --model model --out scores.json
    """
    from hist2scrna import tl
    from hist2scrna.trained.model import TrainedModel

    adata = read_data(data)
    trained = None if model is None else TrainedModel.load(model)
    labels = label_key(adata, labels_key)
    if labels_key is None and trained is not None and not trained.classes:
        labels = None
    found = tl.evaluate(
        adata,
        trained,
        key=key,
        layer=layer,
        labels_key=labels,
        library_key=section_key(adata, library_key),
        seed=seed,
    )
    typer.echo(str(found))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        found.to_json(out)
        typer.echo(f"Wrote {out}")


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
    config: Config = None,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Keep the trained models too.")] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, cuda or mps.")] = "auto",
) -> None:
    """Compare models on held-out sections or donors, with baselines and ceiling; started again, it goes on.

    Writes a folder a job, and jobs.csv, table.csv (each as JSON too) and table.md.
    """
    from hist2scrna import tl
    from hist2scrna.cli.request import read_data, read_genes, read_model_file

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
    typer.echo((out / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"Wrote {out}/")
    if n_failed := int(table["n_failed"].sum()):
        typer.echo(f"Error: {n_failed} jobs failed; see jobs.csv and the .failed.txt files in {out}/", err=True)
        raise typer.Exit(1)


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
