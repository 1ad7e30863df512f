"""`hist2scrna evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import arguments_of, given, with_options
from hist2scrna.cli.reading import label_key, read_data

# The bar always shows.
OTHERWISE = ("progress",)
EVALUATE = [argument for argument in arguments_of("tl._evaluate", "evaluate") if argument.name not in OTHERWISE]


@with_options({"Evaluation": EVALUATE})
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
    **options: Any,
) -> None:
    """Score predictions against counts, next to the mean baseline, the depth baseline and the noise ceiling.

    Cell types are read from cell_type where it is there and the model knows any (--labels-key '' for none). Example:

    hist2scrna evaluate predicted.h5ad --model model --out scores.json
    """
    from hist2scrna import tl
    from hist2scrna.trained.model import TrainedModel

    adata = read_data(data)
    trained = None if model is None else TrainedModel.load(model)
    arguments = given(options, EVALUATE)
    knows_types = trained is None or bool(trained.classes)
    if "labels_key" in arguments or knows_types:
        arguments["labels_key"] = label_key(adata, arguments.get("labels_key"))
    found = tl.evaluate(adata, trained, **arguments)
    typer.echo(str(found))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        found.to_json(out)
        typer.echo(f"Wrote {out}")
