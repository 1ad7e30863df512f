"""`hist2scrna evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hist2scrna import keys
from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import arguments_of, given, with_options
from hist2scrna.cli.reading import label_key, read_data
from hist2scrna.messages import listed

if TYPE_CHECKING:
    from anndata import AnnData

    from hist2scrna.trained.model import TrainedModel

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
    if "labels_key" in arguments:
        arguments["labels_key"] = arguments["labels_key"] or None
    elif trained is None or trained.classes:
        arguments["labels_key"] = _label_key(adata, trained, arguments.get("key", keys.KEY_ADDED))
    found = tl.evaluate(adata, trained, **arguments)
    typer.echo(str(found))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        found.to_json(out)
        typer.echo(f"Wrote {out}")


def _label_key(adata: AnnData, trained: TrainedModel | None, key: str) -> str | None:
    """Return the usual column of cell types, where all in it are among those of the model; else say why not."""
    from hist2scrna.evaluation.read_tissue import known_classes

    column = label_key(adata, None)
    known = known_classes(trained, adata, keys.OutputKeys(key))
    if column is None or known is None:
        return column
    unseen = sorted(set(adata.obs[column].dropna().astype(str)) - set(known))
    if not unseen:
        return column
    typer.echo(
        f"Cell types are not scored: .obs[{column!r}] holds {listed(unseen)}, which the model does not know. To score "
        "those that it knows, leave the others empty.",
        err=True,
    )
    return None
