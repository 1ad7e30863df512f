"""`hist2scrna adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.options import arguments_of, given, with_options
from hist2scrna.cli.reading import read_data
from hist2scrna.files import require_writable

# The bar always shows.
OTHERWISE = ("progress",)
ADAPT = [argument for argument in arguments_of("trained.adapt", "adapt") if argument.name not in OTHERWISE]


@with_options({"Donor": ADAPT})
@in_one_line
def adapt(
    data: Annotated[
        list[Path],
        typer.Argument(help="A section of the donor in which some spots have counts.", show_default=False),
    ],
    model: Annotated[Path, typer.Option(help="Folder of the model, or the name of a published one.")],
    out: Annotated[Path, typer.Option(help="Folder of the adapted model.")] = Path("adapted"),
    config: Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model at --out.")] = False,
    **options: Any,
) -> None:
    """Bring a model to a donor of whom a few spots were measured, and save what comes out as another model.

    Example:

    hist2scrna adapt slide.h5ad --measured sequenced --model model --out adapted
    """
    from hist2scrna import tl
    from hist2scrna.trained.files import check_replaceable

    if out.exists() and not overwrite:
        raise FileExistsError(f"'{out}' exists already. Pass --overwrite to replace the model there, or another --out.")
    check_replaceable(out, overwrite)
    require_writable(out)
    adapted = tl.adapt(model, read_data(data), **given(options, ADAPT))
    adapted.save(out, overwrite=overwrite)
    typer.echo(str(adapted))
    typer.echo(f"Wrote {out}/")
