"""Sections of HER2-positive breast tumors with full-resolution H&E."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from hist2scrna import keys
from hist2scrna.datasets._her2st_counts import counts_as_anndata, read_counts, read_table, section_columns
from hist2scrna.datasets._her2st_files import SECTIONS, SectionFiles, checked_sections, downloaded_files, local_files

logger = logging.getLogger(__name__)

Join = Literal["inner", "outer"]

DOI = "10.1038/s41467-021-26271-2"
# Serial sections of one tumor.
SERIAL = SECTIONS[1:]
CELL_TYPE_PROPORTIONS = "cell_type_proportions"
SPOT_DIAMETER_PX = 136.0
SPOT_DIAMETER_MICRONS = 100.0
PREVIEW_PX = 1000
MAX_PIXELS = 2**27


def her2st(
    path: str | Path | None = None,
    *,
    sections: Sequence[str] = SERIAL,
    img_scale: float = 1.0,
    min_counts: int = 200,
    join: Join = "inner",
) -> ad.AnnData:
    """Load sections of HER2-positive breast tumors with their images (patients B and C of her2st).

    Spatial Transcriptomics array: spots of 100 um, 200 um apart; raw counts. Source: Andersson et al., *Spatial
    deconvolution of HER2-positive breast cancer delineates tumor-associated cell type interactions*, Nature
    Communications 12:6012 (2021), doi:10.1038/s41467-021-26271-2; to be cited wherever a result is shown. C2 to
    C6, the default, are serial sections of one tumor: holding one out measures transfer between these, not between
    patients. For that there is B4, a section of another patient.

    Parameters
    ----------
    path
        Folder with, for each section `S`, `S.jpg`, `S.tsv.gz` (counts), `S_selection.tsv` (spots under the tissue) and
        `S_proportions_major.tsv`. None: the files are downloaded (about 4.8 MB a section) from the repository of the
        authors, `almaan/her2st` on GitHub, at a fixed commit and checked by SHA-256; they stay in Pooch's cache
        folder for `hist2scrna`.
    sections
        Sections to load, in this order, out of B4 and C2 to C6.
    img_scale
        1 (default): images stay in their files (92 megapixels each), and only a preview of 1,000 pixels is decoded.
        Below 1: images are decoded, shrunk by this factor and kept in the AnnData, which then needs no other file.
    min_counts
        Spots with fewer counts, over all genes of the section, are dropped; how many is logged. The default removes
        seven nearly empty spots of C2 to C6, and nothing else.
    join
        Genes of the result: `"inner"`, those that all `sections` list (14,382 for the default), or `"outer"`, those
        that any lists, with zero where a section does not list one.

    Returns
    -------
    AnnData, spots of all sections by genes:

    - `.X`: counts, CSR float32.
    - `.obs["library_id"]`: categorical, in the order of `sections`; `.obs["array_col"]`, `.obs["array_row"]`: int,
      `x` and `y` of the spot files (to which `new_x`, `new_y` round).
    - `.obs["donor"]`: categorical, the patient, B or C: what `group_key` is for.
    - `.obs["cell_type"]`: categorical, the largest of the proportions. A weak label: they were deconvolved from the
      same counts.
    - `.obsm["cell_type_proportions"]`: data frame, spots x 8 cell types.
    - `.obsm["spatial"]`: float64, full-resolution pixels (`pixel_x`, `pixel_y`), x to the right and y down.
    - `.uns["spatial"][section]`: `images["hires"]`, uint8 (H, W, 3), the preview or the shrunk image;
      `scalefactors` `tissue_hires_scalef`, `spot_diameter_fullres` (136 pixels) and `spot_diameter_um` (100);
      `metadata["doi"]`; `metadata["source_image_path"]`, the file of the full-resolution image, for `img_scale=1`
      only.

    Raises
    ------
    FileNotFoundError
        If a file is missing from `path`.
    ConnectionError
        If a download fails.
    ValueError
        If an argument is out of range, a downloaded file does not have the expected hash, or a file does not hold what
        it should.

    Examples
    --------
    >>> sections = h2s.datasets.her2st(sections=["B4", "C2"])  # doctest: +SKIP
    """
    sections = checked_sections(sections, SECTIONS)
    if not 0 < img_scale <= 1:
        raise ValueError(f"Expected `img_scale` to be above 0 and at most 1, found {img_scale!r}.")
    if join not in get_args(Join):
        raise ValueError(f"Expected `join` to be one of {list(get_args(Join))}, found {join!r}.")
    files = downloaded_files(sections) if path is None else local_files(Path(path).expanduser(), sections)
    parts = [_read_section(section, files[section], sections, img_scale, min_counts) for section in sections]
    return ad.concat(parts, join=join, fill_value=0, uns_merge="unique")


def _read_section(
    section: str, files: SectionFiles, sections: list[str], img_scale: float, min_counts: int
) -> ad.AnnData:
    counts = read_counts(files.counts)
    spots = read_table(files.selection)
    needed = ["x", "y", "pixel_x", "pixel_y", "selected"]
    if not set(needed) <= set(spots.columns):
        raise ValueError(f"Expected the columns {needed} in {str(files.selection)!r}, found {list(spots.columns)}.")
    spots = spots[spots["selected"] == 1]
    spots.index = spots["x"].astype(str) + "x" + spots["y"].astype(str)

    both = spots.index.intersection(counts.index)
    counts = counts.loc[both]
    kept = both[counts.sum(axis=1) >= min_counts]
    logger.info(
        "Section %s: %d spots; left out: %d selected spots without counts, %d with fewer than %d counts.",
        *(section, len(kept), len(spots) - len(both), len(both) - len(kept), min_counts),
    )
    if not len(kept):
        raise ValueError(
            f"No spot of section {section} is left: {len(counts)} spots lie in both {files.counts.name!r} and "
            f"{files.selection.name!r}, none with at least min_counts={min_counts} counts."
        )
    proportions = read_table(files.proportions, index_col=0, member=files.member)
    if not kept.isin(proportions.index).all():
        lacking = kept.difference(proportions.index)
        raise ValueError(f"{str(files.proportions)!r} lacks {len(lacking)} spots of {section}, such as {lacking[0]!r}.")
    counts, spots, proportions = counts.loc[kept], spots.loc[kept], proportions.loc[kept]

    names = [f"{section}_{spot}" for spot in kept]
    array_col, array_row = keys.ARRAY_COORDINATES
    obs = section_columns(section, names, sections)
    obs[array_col], obs[array_row] = spots["x"].to_numpy(), spots["y"].to_numpy()
    obs[keys.CELL_TYPE] = pd.Categorical(proportions.idxmax(axis=1), categories=proportions.columns)
    return counts_as_anndata(
        counts,
        obs,
        obsm={
            keys.SPATIAL: spots[["pixel_x", "pixel_y"]].to_numpy(dtype=float),
            CELL_TYPE_PROPORTIONS: proportions.set_axis(names),
        },
        uns={keys.SPATIAL: {section: _image_slot(files.image, img_scale)}},
    )


def _image_slot(file: Path, img_scale: float) -> dict[str, dict]:
    keep_file = img_scale == 1
    image, scale = _read_image(file, None if keep_file else img_scale)
    return {
        keys.IMAGES: {"hires": image},
        keys.SCALEFACTORS: {
            keys.image_scale("hires"): scale,
            keys.SPOT_DIAMETER: SPOT_DIAMETER_PX,
            keys.SPOT_DIAMETER_UM: SPOT_DIAMETER_MICRONS,
        },
        keys.METADATA: {"doi": DOI} | ({keys.SOURCE_IMAGE_PATH: str(file.resolve())} if keep_file else {}),
    }


def _read_image(file: Path, scale: float | None) -> tuple[NDArray[np.uint8], float]:
    """Decode an image shrunk by `scale`, None for a preview; return it and its scale."""
    with warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; the limit here is explicit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            opened = Image.open(file)
        except (Image.DecompressionBombError, OSError) as error:
            raise ValueError(f"Could not open the image {str(file)!r}: {error}") from error
    with opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"The image {str(file)!r} has {width} x {height} pixels, more than the {MAX_PIXELS} that a section "
                "of her2st can have."
            )
        scale = min(1.0, PREVIEW_PX / max(width, height)) if scale is None else scale
        size = max(1, round(width * scale)), max(1, round(height * scale))
        # A JPEG is decoded at the next size above; `box` is then the whole image in those pixels.
        draft = opened.draft("RGB", size)
        box = draft[1] if draft else None
        try:
            image = opened.convert("RGB")
        except OSError as error:
            raise ValueError(f"Could not decode the image {str(file)!r}: {error}") from error
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box)), scale
