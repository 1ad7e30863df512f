"""`hist2scrna simulate`, `convert` and `info`: data before and after a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
from scipy import sparse

from hist2scrna import keys
from hist2scrna.cli.config import Config
from hist2scrna.cli.errors import in_one_line
from hist2scrna.cli.reading import read_data
from hist2scrna.cli.writing import check_output, check_spatialdata_output, write_one, write_spatialdata
from hist2scrna.messages import listed
from hist2scrna.stored import STORES

if TYPE_CHECKING:
    from anndata import AnnData

# Rows that tell whether a matrix holds counts.
LOOKED_AT = 200
Form = Literal["h5ad", "zarr", "patches"]


@in_one_line
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the sections, one file or patch folder each.")] = Path("data"),
    preset: Annotated[
        str, typer.Option(help="small (50 spots, 500 genes) or medium (200 spots, 2,000 genes).")
    ] = "small",
    sections: Annotated[int, typer.Option(help="How many.", min=1)] = 1,
    spots: Annotated[int | None, typer.Option(help="Spots of a section; default: the preset's.")] = None,
    genes: Annotated[int | None, typer.Option(help="Genes; default: the preset's.")] = None,
    form: Annotated[
        Form, typer.Option("--format", help="h5ad, zarr or patches (the folder of the first version).")
    ] = "h5ad",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace sections that are there.")] = False,
    config: Config = None,
    seed: Annotated[int, typer.Option(help="Of the tissue and of the counts.")] = 0,
) -> None:
    """Simulate sections whose expression can be predicted from the image, and whose true means are known.

    Example: hist2scrna simulate --preset small --sections 3 --out data
    """
    from hist2scrna import datasets, io

    made = datasets.simulate(preset, n_sections=sections, n_spots=spots, n_genes=genes, seed=seed)
    for section in made:
        name = str(section.obs[keys.LIBRARY].iloc[0])
        if form == "patches":
            io.write_patch_folder(section, out / name, labels_key=keys.CELL_TYPE, overwrite=overwrite)
            typer.echo(f"Wrote {out / name}/")
        else:
            write_one(section, out / f"{name}.{form}", overwrite=overwrite)


@in_one_line
def convert(
    data: Annotated[list[Path], typer.Argument(help="Sections, as for predict.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(help=".h5ad or .zarr; a name without such an ending is a patch folder.", show_default=False),
    ],
    spatialdata: Annotated[bool, typer.Option("--spatialdata", help="Write --out as a SpatialData store.")] = False,
    image: Annotated[str | None, typer.Option(help="Image element of a SpatialData store.")] = None,
    table: Annotated[str | None, typer.Option(help="Table of a SpatialData store.")] = None,
    region: Annotated[str | None, typer.Option(help="Spots or cells of a SpatialData store.")] = None,
    labels_key: Annotated[
        str | None, typer.Option(help="Cell types of a patch folder; '' for none.", show_default=keys.CELL_TYPE)
    ] = None,
    patch_px: Annotated[
        int | None, typer.Option(help="Side of a patch of a patch folder in pixels.", show_default="224, or as it is")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")] = False,
) -> None:
    """Turn one form of data into another: AnnData, SpatialData, patch folder.

    Example: hist2scrna convert patch-folder/ --out section.h5ad
    """
    from hist2scrna import io
    from hist2scrna.cli.reading import label_key

    if spatialdata:
        check_spatialdata_output(out, overwrite=overwrite)
    elif out.suffix in STORES:
        check_output(out, overwrite=overwrite)
    adata = read_data(data, image=image, table=table, region=region)
    if spatialdata:
        write_spatialdata(io.to_spatialdata(adata), out, overwrite=overwrite)
    elif out.suffix in STORES:
        write_one(adata, out, overwrite=overwrite)
    else:
        labels = label_key(adata, labels_key)
        io.write_patch_folder(adata, out, labels_key=labels, patch_px=patch_px, overwrite=overwrite)
        typer.echo(f"Wrote {out}/")


@in_one_line
def info(
    path: Annotated[
        Path,
        typer.Argument(
            help="A data set, an image, the folder of a model, or the name of a published one.", show_default=False
        ),
    ],
) -> None:
    """Say what a data set, an image or a model holds, and what is missing."""
    from hist2scrna.models.published import published, published_names
    from hist2scrna.trained.files import CARD
    from hist2scrna.trained.model import TrainedModel

    if (path / CARD).is_file():
        typer.echo(str(TrainedModel.load(path)))
    elif not path.exists() and str(path) in published_names():
        typer.echo(str(TrainedModel.load(path)))
        for about, said in published().loc[str(path)].items():
            typer.echo(f"  {about}: {said}")
    elif path.is_file() and path.suffix not in STORES:
        _describe_image(path)
    else:
        _describe(read_data([path]))


def _describe_image(path: Path) -> None:
    from hist2scrna.images.open import open_file

    image = open_file(path)
    um = "not in the file: pass mpp=" if image.mpp is None else f"{image.mpp:.4g}"
    typer.echo(f"{path}: {image.size()[0]:,} x {image.size()[1]:,} px, microns a pixel: {um}")
    for level, scale in enumerate(image.scales):
        width, height = image.size(level)
        pixels = f"every pixel as wide as {image.scale / scale:.4g} of the finest" if level else "the finest"
        typer.echo(f"  level {level}: {width:,} x {height:,} px, {pixels}")


def _describe(adata: AnnData) -> None:
    from rich.console import Console
    from rich.table import Table

    from hist2scrna.spots.sections import open_sections
    from hist2scrna.spots.source import Source

    sections = open_sections(adata, Source()).members
    shown = Table(title=f"{adata.n_obs:,} spots, {adata.n_vars:,} genes, {len(sections)} sections")
    for column in ("section", "spots", "image", "um a pixel", "spot diameter"):
        shown.add_column(column)
    for section in sections:
        try:
            width, height = section.image.size()
            seen = f"{section.image.origin}: {width:,} x {height:,} px"
            scale = section.scale
            um = f"{scale.mpp:.4g} (by {scale.known_from})"
            spot = "-" if scale.spot_px is None else f"{scale.spot_px * scale.mpp:.4g} um"
        except (KeyError, ValueError, OSError) as error:
            reason = error.args[0] if error.args else error
            seen, um, spot = f"none: {' '.join(str(reason).split())}", "-", "-"
        shown.add_row(section.name, f"{len(section.rows):,}", seen, um, spot)
    console = Console(width=160)
    console.print(shown)
    matrices = ({} if adata.X is None else {"X": adata.X}) | {f"layer {name!r}": m for name, m in adata.layers.items()}
    predicted = {key: keys.OutputKeys(key) for key in keys.prediction_keys(adata.uns, adata.layers)}
    theirs = {f"layer {names.layer(name)!r}" for names in predicted.values() for name in keys.LAYERS}
    counts = [name for name, matrix in matrices.items() if name not in theirs and _are_counts(matrix)]
    held = {
        "counts": ", ".join(counts) or "none",
        "other": ", ".join(name for name in matrices if name not in theirs and name not in counts) or "none",
        "predicted": "; ".join(_prediction(adata, names) for names in predicted.values()) or "nothing",
        "obs": ", ".join(adata.obs.columns) or "none",
        "obsm": ", ".join(adata.obsm) or "none",
        "graph": keys.CONNECTIVITIES if keys.CONNECTIVITIES in adata.obsp else "built when it is needed",
    }
    for what, content in held.items():
        console.print(f"{what:>9}  {content}", highlight=False)


def _are_counts(matrix: Any) -> bool:
    """Tell whether a matrix holds whole numbers from 0, by its first rows."""
    block = matrix[:LOOKED_AT]
    values = np.asarray(block.data if sparse.issparse(block) else block)
    return bool((values >= 0).all() and (values == np.round(values)).all())


def _prediction(adata: AnnData, names: keys.OutputKeys) -> str:
    """Say what is predicted under a key, and by which model."""
    about = adata.uns[names.parameters]
    layers = [name for name in keys.LAYERS if names.layer(name) in adata.layers]
    return (
        f"{names.key!r} by model {str(about['model'])!r}, preset {str(about.get('preset', 'unknown'))!r}, trained on "
        f"{listed([str(name) for name in about.get('trained_on', ['unknown sections'])])}: layers {', '.join(layers)}"
    )
