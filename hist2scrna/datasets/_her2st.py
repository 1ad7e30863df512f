"""Serial sections of a HER2-positive breast tumor, with full-resolution H&E."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_matrix

from hist2scrna import keys

logger = logging.getLogger(__name__)

Join = Literal["inner", "outer"]

# Full-resolution images as they are called in the repository of the authors.
_IMAGES = {
    "C2": "5714_HE_BT_C2",
    "C3": "5714_HE_BT_D1",
    "C4": "5714_HE_BT_D2",
    "C5": "5714_HE_BT_E1",
    "C6": "5714_HE_BT_E2",
}
_HOME = "https://raw.githubusercontent.com/almaan/her2st/85df7411b987a7dec3feff9718b869a7a82091ec/"
_PROPORTIONS = "res/ST-deconv/props/major.zip"
_SHA256 = {
    "data/ST-imgs/C/C2/5714_HE_BT_C2.jpg": "26e2f73ae840cdd46c5bba405aae181f13a56a376b9848dff23f7a9c5de7f19e",
    "data/ST-cnts/C2.tsv.gz": "c1c59ea6cffae36b9ecb561b8e2a97e3aa5f4085f748e991a0e330ed9d09773d",
    "data/ST-spotfiles/C2_selection.tsv": "235b5f4306b3b57c628ffc82c98c7109602474fbcc79a917b9c50517f99b6b1c",
    "data/ST-imgs/C/C3/5714_HE_BT_D1.jpg": "0005a92674014d473040a28f0afca89ce5fa5c44019b479b638ceb3272ceb568",
    "data/ST-cnts/C3.tsv.gz": "e00c55a3eb9caac5d9c71b8906aae8be8b38f93e23938f4a0ebee17683ef6a2a",
    "data/ST-spotfiles/C3_selection.tsv": "7fd76c13370b7804ac3bb377b846d22485cf9223f9dd8dfc25be06e5aaf65755",
    "data/ST-imgs/C/C4/5714_HE_BT_D2.jpg": "f40607eb1d5f0d125decd71c48b0c5d29cf6776ad92297fd185631208c82d6f2",
    "data/ST-cnts/C4.tsv.gz": "33201f76d41d7131dc600a0f87d9a70383af3503e81698b4d11e6f2e8d73e9da",
    "data/ST-spotfiles/C4_selection.tsv": "47e79f3b9dbfa3a8c18af9e948ba7ba4bf0a75ea1b4c292bc714ced7d0917d4c",
    "data/ST-imgs/C/C5/5714_HE_BT_E1.jpg": "34028ea41e376396b50c42b0a11a7e689c85be4a8022e668d0a09cc128c04c65",
    "data/ST-cnts/C5.tsv.gz": "c0f310315ca6110d74dbdf7011e5b42432ba0b8eb5f001824764911988f39338",
    "data/ST-spotfiles/C5_selection.tsv": "2114cc3b4da759772112897f1e247d5443c9f8c808e6a9a952eb4fda379a194c",
    "data/ST-imgs/C/C6/5714_HE_BT_E2.jpg": "dddd87232589648861a9b6776dc1749be8306213f6589aeef0e805fb2b1ee263",
    "data/ST-cnts/C6.tsv.gz": "60478b0d2411501866685f41312c65c6591e499d64d5b719be8ee9bab25c9bc8",
    "data/ST-spotfiles/C6_selection.tsv": "efdbbc6759c6af43baa966505c31705f09c087c1dccf1ea3e0d1db7b55717117",
    "res/ST-deconv/props/major.zip": "f7a6e7855a3879408bbba740bd2d89f06f532772a96f23bfcce6cb74c518eacf",
}
DOI = "10.1038/s41467-021-26271-2"
SECTIONS = tuple(_IMAGES)
CELL_TYPE_PROPORTIONS = "cell_type_proportions"
SPOT_DIAMETER_PX = 136.0
SPOT_DIAMETER_MICRONS = 100.0
PREVIEW_PX = 1000
MAX_PIXELS = 2**27


@dataclass(frozen=True)
class _Files:
    """Where the files of one section lie; proportions are a file, or a member of an archive."""

    image: Path
    counts: Path
    selection: Path
    proportions: Path
    member: str | None = None


def her2st(
    path: str | Path | None = None,
    *,
    sections: Sequence[str] = SECTIONS,
    img_scale: float = 1.0,
    min_counts: int = 200,
    join: Join = "inner",
) -> ad.AnnData:
    """Load serial sections of one HER2-positive breast tumor (patient C of her2st).

    Spatial Transcriptomics array: spots of 100 um, 200 um apart; raw counts. Source: Andersson et al., *Spatial
    deconvolution of HER2-positive breast cancer delineates tumor-associated cell type interactions*, Nature
    Communications 12:6012 (2021), doi:10.1038/s41467-021-26271-2; to be cited wherever a result is shown. All
    sections are of one patient: holding one out measures transfer between serial sections, not between patients.

    Parameters
    ----------
    path
        Folder with, for each section `S`, `S.jpg`, `S.tsv.gz` (counts), `S_selection.tsv` (spots under the tissue) and
        `S_proportions_major.tsv`. None: the files are downloaded (about 4.8 MB a section) from the repository of the
        authors, `almaan/her2st` on GitHub, at a fixed commit and checked by SHA-256; they stay in Pooch's cache
        folder for `hist2scrna`.
    sections
        Sections to load, in this order, out of C2 to C6.
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
    """
    if isinstance(sections, str):
        raise TypeError(f"Expected `sections` to be a sequence of names, found {sections!r}. Pass [{sections!r}].")
    sections = list(sections)
    unknown = [section for section in sections if section not in SECTIONS]
    if unknown or not sections or len(set(sections)) < len(sections):
        raise ValueError(f"Expected `sections` to be distinct and out of {list(SECTIONS)}, found {sections}.")
    if not 0 < img_scale <= 1:
        raise ValueError(f"Expected `img_scale` to be above 0 and at most 1, found {img_scale!r}.")
    if join not in get_args(Join):
        raise ValueError(f"Expected `join` to be one of {list(get_args(Join))}, found {join!r}.")
    files = _fetch(sections) if path is None else _local(Path(path).expanduser(), sections)
    parts = [_read_section(section, files[section], sections, img_scale, min_counts) for section in sections]
    return ad.concat(parts, join=join, fill_value=0, uns_merge="unique")


def _local(folder: Path, sections: list[str]) -> dict[str, _Files]:
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder {str(folder)!r}. Leave `path` out to download the files.")
    files = {
        section: _Files(
            image=folder / f"{section}.jpg",
            counts=folder / f"{section}.tsv.gz",
            selection=folder / f"{section}_selection.tsv",
            proportions=folder / f"{section}_proportions_major.tsv",
        )
        for section in sections
    }
    wanted = [
        file for entry in files.values() for file in (entry.image, entry.counts, entry.selection, entry.proportions)
    ]
    missing = [file.name for file in wanted if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"Missing from {str(folder)!r}: {missing}. Each section S needs S.jpg, S.tsv.gz, S_selection.tsv and "
            "S_proportions_major.tsv. Leave `path` out to download the files, or name fewer `sections`."
        )
    return files


def _fetch(sections: list[str]) -> dict[str, _Files]:
    import pooch
    from requests import RequestException

    home = pooch.create(path=pooch.os_cache("hist2scrna") / "her2st", base_url=_HOME, registry=_SHA256)

    def get(name: str) -> Path:
        try:
            return Path(home.fetch(name))
        except RequestException as error:
            raise ConnectionError(
                f"Could not download {home.get_url(name)}: {error}. Where there is no connection, put the files into a "
                "folder and pass `path=`."
            ) from error

    return {
        section: _Files(
            image=get(f"data/ST-imgs/C/{section}/{_IMAGES[section]}.jpg"),
            counts=get(f"data/ST-cnts/{section}.tsv.gz"),
            selection=get(f"data/ST-spotfiles/{section}_selection.tsv"),
            proportions=get(_PROPORTIONS),
            member=f"major/{section}-proportion.tsv",
        )
        for section in sections
    }


def _read_section(section: str, files: _Files, sections: list[str], img_scale: float, min_counts: int) -> ad.AnnData:
    counts = _read_table(files.counts, index_col=0)
    if any(dtype.kind not in "iu" for dtype in counts.dtypes.unique()) or (counts.to_numpy() < 0).any():
        raise ValueError(f"Expected non-negative integers in {str(files.counts)!r} (spots x genes, raw counts).")
    spots = _read_table(files.selection)
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
    proportions = _read_table(files.proportions, index_col=0, member=files.member)
    if not kept.isin(proportions.index).all():
        lacking = kept.difference(proportions.index)
        raise ValueError(f"{str(files.proportions)!r} lacks {len(lacking)} spots of {section}, such as {lacking[0]!r}.")
    counts, spots, proportions = counts.loc[kept], spots.loc[kept], proportions.loc[kept]

    names = [f"{section}_{spot}" for spot in kept]
    array_col, array_row = keys.ARRAY_COORDINATES
    obs = pd.DataFrame(index=names)
    obs[keys.LIBRARY] = pd.Categorical([section] * len(names), categories=sections)
    obs[array_col], obs[array_row] = spots["x"].to_numpy(), spots["y"].to_numpy()
    obs[keys.CELL_TYPE] = pd.Categorical(proportions.idxmax(axis=1), categories=proportions.columns)
    return ad.AnnData(
        X=csr_matrix(counts.to_numpy(), dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=counts.columns),
        obsm={
            keys.SPATIAL: spots[["pixel_x", "pixel_y"]].to_numpy(dtype=float),
            CELL_TYPE_PROPORTIONS: proportions.set_axis(names),
        },
        uns={keys.SPATIAL: {section: _image_slot(files.image, img_scale)}},
    )


def _read_table(file: Path, *, index_col: int | None = None, member: str | None = None) -> pd.DataFrame:
    try:
        if member is None:
            return pd.read_csv(file, sep="\t", index_col=index_col)
        with zipfile.ZipFile(file) as archive, archive.open(member) as table:
            return pd.read_csv(table, sep="\t", index_col=index_col)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"Could not read {str(file)!r} as a table separated by tabs: {error}") from error


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
