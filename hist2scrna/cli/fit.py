"""`hist2scrna fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hist2scrna.cli.config import Config, parse_settings
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import arguments_of, given, with_options
from hist2scrna.cli.reading import label_key, read_data
from hist2scrna.files import require_writable

FIT = {argument.name: argument for argument in arguments_of("tl._fit", "fit")}
TRAINING = arguments_of("models.training", "Training")
NEIGHBORS = [argument for argument in arguments_of("spots.graph", "Neighbors") if argument.name != "kind"]
# How to train and which spots are neighbors are given field by field; losses as NAME=WEIGHT; the bar always shows;
# reference profiles are given in Python alone.
OTHERWISE = ("training", "losses", "progress", "reference")
READ = (
    "library_key",
    "spatial_key",
    "img_key",
    "image",
    "mpp",
    "nuclei",
    "features_key",
    "layer",
    "genes",
    "labels_key",
    "group_key",
    "expression",
)
WHERE = [FIT[name] for name in READ]
WHAT = [argument for name, argument in FIT.items() if name not in (*READ, *OTHERWISE)]


@with_options({"Model": [*WHAT, *NEIGHBORS], "Training": TRAINING, "Keys": WHERE})
@in_one_line
def fit(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Sections to train on: .h5ad, .zarr (AnnData or SpatialData), patch folders, folders of Space Ranger "
            "or Xenium, or folders of these.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the model.")] = Path("model"),
    config: Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model at --out.")] = False,
    loss: Annotated[
        list[str] | None, typer.Option(help="Loss term, NAME=WEIGHT: smoothness, pearson, distillation; repeatable.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(help="Any option of the model, NAME=VALUE; repeatable.")] = None,
    patch_px: Annotated[int | None, typer.Option(help="Option of models on patches: side of a patch in px.")] = None,
    token_px: Annotated[int | None, typer.Option(help="Option of hist2scrna: side of a token in pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Option of our networks: width of the transformer.")] = None,
    depth: Annotated[int | None, typer.Option(help="Option of our networks: number of transformer layers.")] = None,
    heads: Annotated[int | None, typer.Option(help="Option of our networks: number of attention heads.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Option of networks: dropout rate.")] = None,
    **options: Any,
) -> None:
    """Fit a model on sections with an image and counts, and save it to a folder.

    What is left out takes the default of the model; see hist2scrna.tl.fit. Cell types are read from cell_type where it
    is there (--labels-key '' for none). Example:

    hist2scrna fit sections.h5ad --model hist2scrna --preset tiny --max-epochs 50 --out model
    """
    from hist2scrna import Neighbors, tl
    from hist2scrna.cli.request import read_genes
    from hist2scrna.trained.files import check_replaceable

    if out.exists() and not overwrite:
        raise FileExistsError(f"'{out}' exists already. Pass --overwrite to replace the model there, or another --out.")
    check_replaceable(out, overwrite)
    require_writable(out)
    adata = read_data(data)
    architecture = {
        **{"patch_px": patch_px, "token_px": token_px, "width": width, "depth": depth, "heads": heads},
        "dropout": dropout,
    }
    arguments = given(options, [*WHAT, *WHERE])
    arguments["labels_key"] = label_key(adata, arguments.get("labels_key"))
    if "genes" in arguments:
        arguments["genes"] = read_genes(arguments["genes"])
    if "expression" in arguments:
        arguments["expression"] = [read_data([path]) for path in arguments["expression"]]
    if near := given(options, NEIGHBORS):
        arguments["neighbors"] = Neighbors(arguments.get("neighbors"), **near)
    training = given(options, TRAINING)
    if "validation" in training:
        training["validation"] = _share_or_names(training["validation"])
    trained = tl.fit(
        adata,
        losses=parse_settings(loss) or None,
        training=training,
        **arguments,
        **{name: value for name, value in architecture.items() if value is not None},
        **parse_settings(option),
    )
    trained.save(out, overwrite=overwrite)
    typer.echo(str(trained))
    typer.echo(f"Wrote {out}/")


def _share_or_names(values: list[str]) -> float | list[str]:
    """Return a single number as the share to hold out, anything else as names of sections."""
    try:
        return float(values[0]) if len(values) == 1 else values
    except ValueError:
        return values
