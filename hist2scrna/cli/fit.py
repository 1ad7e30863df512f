"""`hist2scrna fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hist2scrna import keys
from hist2scrna.cli.config import Config, parse_settings
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.reading import label_key, read_data, section_key

ARCHITECTURE, TRAINING, SLOTS = "Architecture", "Training", "Slots"


@in_one_line
def fit(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Sections to train on: .h5ad, .zarr (AnnData or SpatialData), patch folders, or folders of these.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the model.")] = Path("model"),
    model: Annotated[
        str, typer.Option(help="auto, kernel, hist2scrna, hist2scrna-lightweight, hist2st, histogene, stnet or ridge.")
    ] = "auto",
    preset: Annotated[
        str | None,
        typer.Option(help="Size of the model: tiny (CPU), small or base.", show_default=False),
    ] = None,
    config: Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model at --out.")] = False,
    # -- training
    max_epochs: Annotated[
        int | None, typer.Option(help="Most epochs; default: the model's recipe.", rich_help_panel=TRAINING)
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better validation loss.", rich_help_panel=TRAINING)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Most spots of a block.", rich_help_panel=TRAINING)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=TRAINING)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.", rich_help_panel=TRAINING)] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Weight of the cell-type loss; default: 0.1.", rich_help_panel=TRAINING)
    ] = None,
    loss: Annotated[
        list[str] | None,
        typer.Option(help="Loss term, NAME=WEIGHT: smoothness, pearson, distillation.", rich_help_panel=TRAINING),
    ] = None,
    likelihood: Annotated[
        str | None, typer.Option(help="zinb, nb, poisson or mse.", rich_help_panel=TRAINING, show_default="zinb")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the sections held out for validation.", rich_help_panel=TRAINING)
    ] = None,
    validation_section: Annotated[
        list[str] | None, typer.Option(help="Or their names; repeatable.", rich_help_panel=TRAINING)
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option(help="Model folder, or published weights, to start from.", rich_help_panel=TRAINING)
    ] = None,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps the best model so far.", rich_help_panel=TRAINING)
    ] = None,
    accumulate: Annotated[int, typer.Option(help="Batches a step.", rich_help_panel=TRAINING)] = 1,
    precision: Annotated[
        str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.", rich_help_panel=TRAINING)
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment/--no-augment",
            help="Flip, turn, jitter; few: see each patch twice, varied.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu or mps.", rich_help_panel=TRAINING)] = "auto",
    devices: Annotated[int, typer.Option(help="Number of them.", rich_help_panel=TRAINING)] = 1,
    seed: Annotated[int, typer.Option(help="Of everything random.", rich_help_panel=TRAINING)] = 0,
    # -- architecture
    patch_px: Annotated[
        int | None, typer.Option(help="Side of a patch in pixels.", rich_help_panel=ARCHITECTURE)
    ] = None,
    patch_um: Annotated[
        float | None, typer.Option(help="Side of a patch in microns.", rich_help_panel=ARCHITECTURE)
    ] = None,
    token_px: Annotated[
        int | None, typer.Option(help="Side of a token of the transformer in pixels.", rich_help_panel=ARCHITECTURE)
    ] = None,
    width: Annotated[int | None, typer.Option(help="Width of the transformer.", rich_help_panel=ARCHITECTURE)] = None,
    depth: Annotated[int | None, typer.Option(help="Its layers.", rich_help_panel=ARCHITECTURE)] = None,
    heads: Annotated[int | None, typer.Option(help="Its attention heads.", rich_help_panel=ARCHITECTURE)] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout rate.", rich_help_panel=ARCHITECTURE)] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Any option of the model, NAME=VALUE; repeatable.", rich_help_panel=ARCHITECTURE),
    ] = None,
    # -- slots
    layer: Annotated[str | None, typer.Option(help="Layer with raw counts; default: X.", rich_help_panel=SLOTS)] = None,
    genes: Annotated[
        str | None, typer.Option(help="File with a gene a line, or boolean column of .var.", rich_help_panel=SLOTS)
    ] = None,
    labels_key: Annotated[
        str | None,
        typer.Option(help="Column with cell types; '' for none.", show_default=keys.CELL_TYPE, rich_help_panel=SLOTS),
    ] = None,
    library_key: Annotated[
        str | None,
        typer.Option(help="Column with the section.", show_default=keys.LIBRARY, rich_help_panel=SLOTS),
    ] = None,
    group_key: Annotated[
        str | None,
        typer.Option(help="Column with the donor: validate on other donors.", rich_help_panel=SLOTS),
    ] = None,
    features_key: Annotated[
        str | None, typer.Option(help="Slot of .obsm with features, for models on these.", rich_help_panel=SLOTS)
    ] = None,
    img_key: Annotated[
        str | None, typer.Option(help="Which image; default: the finest.", rich_help_panel=SLOTS)
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Full-resolution picture of the only section.", rich_help_panel=SLOTS)
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="Microns per full-resolution pixel.", rich_help_panel=SLOTS)] = None,
) -> None:
    """Train a model on sections with a picture and counts, and save it to a folder.

    What is not given is the model's own recipe; see hist2scrna.tl.fit. Example:

    hist2scrna fit sections.h5ad --preset tiny --max-epochs 50 --out model
    """
    from hist2scrna import tl
    from hist2scrna.cli.request import read_genes

    if out.exists() and not overwrite:
        raise FileExistsError(f"'{out}' exists already. Pass --overwrite to replace the model there, or another --out.")
    adata = read_data(data)
    architecture = {
        "patch_px": patch_px,
        "token_px": token_px,
        "width": width,
        "depth": depth,
        "heads": heads,
        "dropout": dropout,
    }
    options: dict[str, Any] = {name: value for name, value in architecture.items() if value is not None}
    training = {
        "max_epochs": max_epochs,
        "patience": patience,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "alpha": alpha,
        "validation": validation_section or validation,
        "precision": precision,
        "accumulate": accumulate if accumulate != 1 else None,
        "augment": augment,
        "accelerator": accelerator,
        "devices": devices if devices != 1 else None,
        "checkpoint_dir": checkpoint_dir,
    }
    trained = tl.fit(
        adata,
        model=model,
        preset=preset,
        genes=read_genes(genes),
        layer=layer,
        labels_key=label_key(adata, labels_key),
        library_key=section_key(adata, library_key),
        group_key=group_key,
        img_key=img_key,
        image=image,
        features_key=features_key,
        patch_um=patch_um,
        mpp=mpp,
        likelihood=likelihood,
        losses=parse_settings(loss) or None,
        training=training,
        init_from=init_from,
        seed=seed,
        **{**options, **parse_settings(option)},
    )
    trained.save(out, overwrite=overwrite)
    typer.echo(str(trained))
    typer.echo(f"Wrote {out}/")
