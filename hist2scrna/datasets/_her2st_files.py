"""The files of her2st: their names in a folder and in the repository of the authors, and their hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Full-resolution images as they are called in the repository of the authors.
IMAGES = {
    "B4": "BT10737_D2_HE",
    "C2": "5714_HE_BT_C2",
    "C3": "5714_HE_BT_D1",
    "C4": "5714_HE_BT_D2",
    "C5": "5714_HE_BT_E1",
    "C6": "5714_HE_BT_E2",
}
HOME = "https://raw.githubusercontent.com/almaan/her2st/85df7411b987a7dec3feff9718b869a7a82091ec/"
_PROPORTIONS = "res/ST-deconv/props/major.zip"
SHA256 = {
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
SECTIONS = tuple(IMAGES)
COUNTS_ALONE = ("D1", "D3", "E1", "E2", "F1", "F3", "G1", "G3", "H1", "H2")


@dataclass(frozen=True)
class SectionFiles:
    """Where the files of one section lie; proportions are a file, or a member of an archive."""

    image: Path
    counts: Path
    selection: Path
    proportions: Path
    member: str | None = None


def checked_sections(sections: Sequence[str], known: tuple[str, ...]) -> list[str]:
    """Return the names of sections as a list, or refuse one that is not known or stands there twice."""
    if isinstance(sections, str):
        raise TypeError(f"Expected `sections` to be a sequence of names, found {sections!r}. Pass [{sections!r}].")
    sections = list(sections)
    unknown = [section for section in sections if section not in known]
    if unknown or not sections or len(set(sections)) < len(sections):
        raise ValueError(f"Expected `sections` to be distinct and out of {list(known)}, found {sections}.")
    return sections


def local_files(folder: Path, sections: list[str]) -> dict[str, SectionFiles]:
    """Return the files of each section in a folder, all of which must be there."""
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder {str(folder)!r}. Leave `path` out to download the files.")
    files = {
        section: SectionFiles(
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


def downloaded_files(sections: list[str]) -> dict[str, SectionFiles]:
    """Return the files of each section, downloaded where they are not in the cache yet."""
    return {
        section: SectionFiles(
            image=_download(f"data/ST-imgs/{patient(section)}/{section}/{IMAGES[section]}.jpg"),
            counts=_download(f"data/ST-cnts/{section}.tsv.gz"),
            selection=_download(f"data/ST-spotfiles/{section}_selection.tsv"),
            proportions=_download(_PROPORTIONS),
            member=f"major/{section}-proportion.tsv",
        )
        for section in sections
    }


def counts_files(path: str | Path | None, sections: Sequence[str]) -> dict[str, Path]:
    """Return the table of counts of each section, from a folder or downloaded."""
    if path is None:
        return {section: _download(f"data/ST-cnts/{section}.tsv.gz") for section in sections}
    files = {section: Path(path).expanduser() / f"{section}.tsv.gz" for section in sections}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"Missing: {missing}. Leave `path` out to download the files.")
    return files


def _download(name: str) -> Path:
    import pooch
    from requests import RequestException

    home = pooch.create(path=pooch.os_cache("hist2scrna") / "her2st", base_url=HOME, registry=SHA256)
    try:
        return Path(home.fetch(name))
    except RequestException as error:
        raise ConnectionError(
            f"Could not download {home.get_url(name)}: {error}. Where there is no connection, put the files into a "
            "folder and pass `path=`."
        ) from error


def patient(section: str) -> str:
    """Return the patient, which the letter of a section names."""
    return section[0]
