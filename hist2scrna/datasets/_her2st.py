"""Sections of HER2-positive breast tumors: with full-resolution H&E, and counts alone of further donors."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

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
    "B4": "BT10737_D2_HE",
    "C2": "5714_HE_BT_C2",
    "C3": "5714_HE_BT_D1",
    "C4": "5714_HE_BT_D2",
    "C5": "5714_HE_BT_E1",
    "C6": "5714_HE_BT_E2",
}
_HOME = "https://raw.githubusercontent.com/almaan/her2st/85df7411b987a7dec3feff9718b869a7a82091ec/"
_PROPORTIONS = "res/ST-deconv/props/major.zip"
_SHA256 = {
    "data/ST-imgs/B/B4/BT10737_D2_HE.jpg": "3cb165614ce2a13426381e450220dccac980cc9bda6a90fb041c28ca0e2c753d",
    "data/ST-cnts/B4.tsv.gz": "e38231c2a38c9bc7e6d550eec0e527c1869ee0e525fc913e708d1323c34f5ebb",
    "data/ST-spotfiles/B4_selection.tsv": "192b46f3ca414c85753a01a4fb5760a697ca6c0a1aadb949c4687cc6efa9faa0",
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
    "data/ST-cnts/D1.tsv.gz": "8fe13d29763b3f6a9e85322dae97e05c4ca42b57cef4b1077c88b9b7b6a980ac",
    "data/ST-cnts/D3.tsv.gz": "0bdfa82f3a2f4c659757cbd9f9b5734f9faabc44c4ee72094bf2b8609c86e01f",
    "data/ST-cnts/E1.tsv.gz": "b2f572ea0a95d256cb172a9284e96b6d2ff236398d4934a992df85c96d11c4cc",
    "data/ST-cnts/E2.tsv.gz": "a725a87e1a74ef0c096d421664dd9100bf973e5768c28acfa9c17abb63677a95",
    "data/ST-cnts/F1.tsv.gz": "187aa13f204d514851d3674dfa09b4a8d7f2676f1d40d2ef63e9e368c7cf672a",
    "data/ST-cnts/F3.tsv.gz": "6b7eb2d7ff8c6a8826cfba304de2d3b87bb8e30f68d050b83007de9888546743",
    "data/ST-cnts/G1.tsv.gz": "396153436dfc39e199bdc01447b3f8929aef598d7064c0c24a33da00f54570ea",
    "data/ST-cnts/G3.tsv.gz": "9fd3c8efb94239b567157860224a33417d798a65d3a28fb9982651795cb2259e",
    "data/ST-cnts/H1.tsv.gz": "90b391782535f38c9ab20fe8b38f44ebbfdad2201075a677a198cbef12c29b07",
    "data/ST-cnts/H2.tsv.gz": "e839f271f2cde0ccf8f43f4358133f066be5d75d982839eba75abd7967486a34",
    "res/ST-deconv/props/major.zip": "f7a6e7855a3879408bbba740bd2d89f06f532772a96f23bfcce6cb74c518eacf",
}
DOI = "10.1038/s41467-021-26271-2"
SECTIONS = tuple(_IMAGES)
# Serial sections of one tumor.
SERIAL = SECTIONS[1:]
COUNTS_ALONE = ("D1", "D3", "E1", "E2", "F1", "F3", "G1", "G3", "H1", "H2")
DONOR = "donor"
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
    """
    sections = _checked(sections, SECTIONS)
    if not 0 < img_scale <= 1:
        raise ValueError(f"Expected `img_scale` to be above 0 and at most 1, found {img_scale!r}.")
    if join not in get_args(Join):
        raise ValueError(f"Expected `join` to be one of {list(get_args(Join))}, found {join!r}.")
    files = _fetch(sections) if path is None else _local(Path(path).expanduser(), sections)
    parts = [_read_section(section, files[section], sections, img_scale, min_counts) for section in sections]
    return ad.concat(parts, join=join, fill_value=0, uns_merge="unique")


def her2st_counts(
    path: str | Path | None = None,
    *,
    sections: Sequence[str] = COUNTS_ALONE,
    min_counts: int = 200,
    join: Join = "inner",
) -> ad.AnnData:
    """Load counts of further patients of her2st (D to H), without images: what `fit(expression=)` learns from.

    Source and citation as for :func:`her2st`.

    Parameters
    ----------
    path
        Folder with `S.tsv.gz` for each section `S`. None: the files are downloaded (about 0.9 MB a section), checked by
        SHA-256, and kept as those of :func:`her2st`.
    sections
        Sections to load, in this order, out of two of each of the patients D to H.
    min_counts, join
        As in :func:`her2st`.

    Returns
    -------
    AnnData, spots of all sections by genes: `.X` counts, CSR float32; `.obs["library_id"]`, the section, and
    `.obs["donor"]`, the patient, both categorical.

    Raises
    ------
    FileNotFoundError
        If a file is missing from `path`.
    ConnectionError
        If a download fails.
    ValueError
        If an argument is out of range, or a file does not hold what it should.

    Examples
    --------
    >>> others = hist2scrna.datasets.her2st_counts()
    >>> model = hist2scrna.tl.fit(train, group_key="donor", expression=others)
    """
    sections = _checked(sections, COUNTS_ALONE)
    if path is None:
        files = {section: _download(f"data/ST-cnts/{section}.tsv.gz") for section in sections}
    else:
        files = {section: Path(path).expanduser() / f"{section}.tsv.gz" for section in sections}
        missing = [str(file) for file in files.values() if not file.is_file()]
        if missing:
            raise FileNotFoundError(f"Missing: {missing}. Leave `path` out to download the files.")
    parts = []
    for section, file in files.items():
        counts = _read_counts(file)
        counts = counts[counts.sum(axis=1) >= min_counts]
        names = [f"{section}_{spot}" for spot in counts.index]
        obs = _section_columns(section, names, sections)
        parts.append(_of_counts(counts, obs))
    return ad.concat(parts, join=join, fill_value=0)


def _checked(sections: Sequence[str], known: tuple[str, ...]) -> list[str]:
    if isinstance(sections, str):
        raise TypeError(f"Expected `sections` to be a sequence of names, found {sections!r}. Pass [{sections!r}].")
    sections = list(sections)
    unknown = [section for section in sections if section not in known]
    if unknown or not sections or len(set(sections)) < len(sections):
        raise ValueError(f"Expected `sections` to be distinct and out of {list(known)}, found {sections}.")
    return sections


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
    return {
        section: _Files(
            image=_download(f"data/ST-imgs/{_donor(section)}/{section}/{_IMAGES[section]}.jpg"),
            counts=_download(f"data/ST-cnts/{section}.tsv.gz"),
            selection=_download(f"data/ST-spotfiles/{section}_selection.tsv"),
            proportions=_download(_PROPORTIONS),
            member=f"major/{section}-proportion.tsv",
        )
        for section in sections
    }


def _download(name: str) -> Path:
    import pooch
    from requests import RequestException

    home = pooch.create(path=pooch.os_cache("hist2scrna") / "her2st", base_url=_HOME, registry=_SHA256)
    try:
        return Path(home.fetch(name))
    except RequestException as error:
        raise ConnectionError(
            f"Could not download {home.get_url(name)}: {error}. Where there is no connection, put the files into a "
            "folder and pass `path=`."
        ) from error


def _donor(section: str) -> str:
    """Return the patient, which the letter of a section names."""
    return section[0]


def _section_columns(section: str, names: list[str], sections: list[str]) -> pd.DataFrame:
    donors = list(dict.fromkeys(_donor(name) for name in sections))
    obs = pd.DataFrame(index=names)
    obs[keys.LIBRARY] = pd.Categorical([section] * len(names), categories=sections)
    obs[DONOR] = pd.Categorical([_donor(section)] * len(names), categories=donors)
    return obs


def _of_counts(counts: pd.DataFrame, obs: pd.DataFrame, **slots: Any) -> ad.AnnData:
    var = pd.DataFrame(index=counts.columns)
    return ad.AnnData(X=csr_matrix(counts.to_numpy(), dtype=np.float32), obs=obs, var=var, **slots)


def _read_counts(file: Path) -> pd.DataFrame:
    counts = _read_table(file, index_col=0)
    if any(dtype.kind not in "iu" for dtype in counts.dtypes.unique()) or (counts.to_numpy() < 0).any():
        raise ValueError(f"Expected non-negative integers in {str(file)!r} (spots x genes, raw counts).")
    return counts


def _read_section(section: str, files: _Files, sections: list[str], img_scale: float, min_counts: int) -> ad.AnnData:
    counts = _read_counts(files.counts)
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
    obs = _section_columns(section, names, sections)
    obs[array_col], obs[array_row] = spots["x"].to_numpy(), spots["y"].to_numpy()
    obs[keys.CELL_TYPE] = pd.Categorical(proportions.idxmax(axis=1), categories=proportions.columns)
    return _of_counts(
        counts,
        obs,
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
