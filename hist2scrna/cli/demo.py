"""`hist2scrna demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hist2scrna.cli.errors import in_one_line


@in_one_line
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results; made if it is not there.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the simulated tissue and of the training.")] = 0,
) -> None:
    """Simulate sections, fit, predict an unseen one, evaluate; a few minutes on two cores.

    Writes an .h5ad with the predictions, the model's folder, the metrics as JSON, a report, and figures.
    """
    from hist2scrna.demo import run_demo

    run_demo(out, seed=seed)
