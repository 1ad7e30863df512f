"""`hist2scrna predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hist2scrna import keys
from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.reading import read_data, section_key, write_one


@in_one_line
def predict(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Sections: .h5ad, .zarr, patch folders, or folders of these; with --spacing-um, a picture alone.",
            show_default=False,
        ),
    ],
    model: Annotated[Path, typer.Option(help="Folder of the model.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File for the result, .h5ad or .zarr.")] = Path("predicted.h5ad"),
    config: Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file at --out.")] = False,
    spacing_um: Annotated[
        float | None,
        typer.Option(help="DATA is a picture alone: predict a lattice of spots on its tissue."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="mean, dropout, mu, dispersion, log_normalized, uncertainty; repeatable.",
            show_default="mean, dropout, log_normalized",
        ),
    ] = None,
    key_added: Annotated[str, typer.Option(help="Prefix of what is written.")] = "hist2scrna",
    library_size: Annotated[
        str, typer.Option(help="predicted, median, or a column of .obs with known library sizes.")
    ] = "predicted",
    batch_size: Annotated[int | None, typer.Option(help="Patches encoded at once.", show_default="64")] = None,
    library_key: Annotated[str | None, typer.Option(help="Column of sections.", show_default=keys.LIBRARY)] = None,
    features_key: Annotated[str | None, typer.Option(help="Slot of .obsm with features.")] = None,
    img_key: Annotated[str | None, typer.Option(help="Which image; default: the finest.")] = None,
    image: Annotated[Path | None, typer.Option(help="Full-resolution picture of the only section.")] = None,
    mpp: Annotated[float | None, typer.Option(help="Microns per full-resolution pixel.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu or mps.")] = "auto",
) -> None:
    """Predict counts and cell types, and write them beside what is there.

    Expression in DATA is never read. Examples:

    hist2scrna predict unseen.h5ad --model model --out predicted.h5ad

    hist2scrna predict slide.svs --spacing-um 100 --model model --out predicted.h5ad
    """
    from hist2scrna import pp, tl

    if out.exists() and not overwrite:
        raise FileExistsError(f"'{out}' exists already. Pass --overwrite to replace it, or another --out.")
    if spacing_um is None:
        adata = read_data(data)
    elif len(data) > 1:
        raise ValueError(f"--spacing-um takes one picture, found {len(data)}.")
    else:
        adata = pp.tissue_grid(data[0], spacing_um=spacing_um, mpp=mpp)
    predicted = tl.predict(
        adata,
        model,
        key_added=key_added,
        layers=layer,
        library_size=library_size,
        batch_size=batch_size,
        library_key=section_key(adata, library_key),
        features_key=features_key,
        img_key=img_key,
        image=image,
        mpp=None if spacing_um is not None else mpp,
        accelerator=accelerator,
    )
    write_one(predicted, out, overwrite=overwrite)
