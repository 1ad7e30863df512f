"""Images without an assay, from which `predict` and `pool` lay out spots themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hist2scrna.cli.reading import is_section
from hist2scrna.stored import STORES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

OME_ZARR = ".ome.zarr"


def slide_files(data: Sequence[Path]) -> list[Path]:
    """Return the images that the paths name or hold; none if they are data sets.

    Raises
    ------
    FileNotFoundError
        If there is nothing at a path.
    ValueError
        If some are images and others data sets, or two images have one name.
    """
    found = [(path, _images(path)) for path in data]
    files = [file for _, images in found for file in images]
    if not files:
        return []
    if sets := [str(path) for path, images in found if not images]:
        raise ValueError(f"DATA mixes images with data sets, such as {sets[0]!r}. Pass the one and then the other.")
    names = [slide_name(file) for file in files]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Several images are called {repeated[0]!r}, so their sections could not be told apart.")
    return files


def slide_grids(files: Sequence[Path], spacing_um: float | None, mpp: float | None) -> AnnData:
    """Return a lattice of spots over the tissue of each image; a section is called as its file is."""
    from hist2scrna import io, pp

    asked = {"mpp": mpp} if spacing_um is None else {"mpp": mpp, "spacing_um": spacing_um}
    grids = [pp.tissue_grid(file, library_id=slide_name(file), **asked) for file in files]
    return grids[0] if len(grids) == 1 else io.concat(grids)


def slide_name(file: Path) -> str:
    """Return the name of a file without the ending that tells its format."""
    return file.name.removesuffix(OME_ZARR) if file.name.endswith(OME_ZARR) else file.stem


def _images(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"No data at '{path}'.")
    if _is_image(path):
        return [path]
    if path.is_dir() and path.suffix not in STORES and not is_section(path):
        from hist2scrna.images.open import SUFFIXES

        return sorted(p for p in path.iterdir() if p.name.endswith(OME_ZARR) or p.suffix.lower() in SUFFIXES)
    return []


def _is_image(path: Path) -> bool:
    """Tell whether a path is no data set: any file, for which the reader of images then has the right words."""
    return path.name.endswith(OME_ZARR) or (path.is_file() and path.suffix not in STORES)
