"""Refused coordinates, sections, graphs and images: where spots are, and what is seen there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from refused.case import GIVEN, fit, other, predict, section_entry, slot
from scipy import sparse

import hist2scrna as h2s


def _xy(function):
    return slot("obsm", "spatial", function)


def _missing(xy):
    xy[5:15] = np.nan
    return xy


def _infinite(xy):
    xy[5:15, 0] = np.inf
    return xy


def _stacked(xy):
    return np.concatenate([xy[:20], xy[:20]])


def _two(adata):
    """Two sections in one, of which nothing tells which spot is of which."""
    adata.uns["spatial"]["s1"] = adata.uns["spatial"]["s0"]
    del adata.obs["library_id"]


def _library_of_some(adata):
    adata.obs["library_id"] = [None, *["s0"] * 39]


def _graph(function):
    def change(adata):
        chain = np.eye(adata.n_obs, k=1) + np.eye(adata.n_obs, k=-1)
        adata.obsp["spatial_connectivities"] = sparse.csr_matrix(function(chain))

    return change


def _across(adata):
    adata.obs["half"] = ["a", "b"] * 20
    adata.uns["spatial"] |= dict.fromkeys("ab", adata.uns["spatial"]["s0"])
    _graph(lambda chain: chain)(adata)


def _image(function):
    return section_entry("images", "hires", value=function)


def _factor(value):
    return section_entry("scalefactors", "tissue_hires_scalef", value=value)


def _diameter(value):
    return section_entry("scalefactors", "spot_diameter_fullres", value=value)


def _from_file(name: str, content: bytes):
    def call(adata, bench):
        path = bench.folder / GIVEN / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return h2s.tl.predict(adata, bench.network, image=path, progress=False)

    return call


def _bmp_header(width: int, height: int) -> bytes:
    """The header of a bitmap that claims a size, and no pixel of it."""
    size = np.array([width, height], dtype="<i4").tobytes()
    return b"BM" + b"\0" * 8 + b"\x36\0\0\0" + b"\x28\0\0\0" + size + b"\x01\0\x18\0" + b"\0" * 24


COORDINATES = {
    "missing": fit(slot("obsm", "spatial", ...), KeyError),
    "NaN in more than 5 % of the spots": fit(_xy(_missing)),
    "infinite": fit(_xy(_infinite)),
    "three dimensions": fit(_xy(lambda xy: np.column_stack([xy, xy[:, 0]]))),
    "one dimension": fit(_xy(lambda xy: xy[:, :1])),
    "words that are no numbers": fit(_xy(lambda xy: np.char.add(xy.astype(str), " px")), shell=False),
    "complex": fit(_xy(lambda xy: xy.astype(complex)), shell=False),
    "true and false": fit(_xy(lambda xy: xy > 100)),
    "x and y exchanged": fit(_xy(lambda xy: xy[:, ::-1])),
    "negative": fit(_xy(lambda xy: -xy)),
    "pixels of a larger image": fit(_xy(lambda xy: xy * 10)),
    "beyond any image": fit(_xy(lambda xy: xy * 1e300)),
    "pixels of a smaller image, so that spots overlap": fit(_xy(lambda xy: xy / 10)),
    "the same in all spots": fit(_xy(lambda xy: xy * 0 + 100)),
    "two sections on top of each other": fit(_xy(_stacked)),
    "a slot that is missing": fit(None, KeyError, spatial_key="X_spatial"),
    "off the image in prediction": predict(_xy(lambda xy: xy + 5000), shell=True),
    "no position under tissue": fit(slot("obs", "in_tissue", 0)),
}
SECTIONS = {
    "a column that is missing": fit(None, KeyError, library_key="section"),
    "none for some spots": fit(_library_of_some),
    "several libraries, and no column": fit(_two, shell=False),
    "a library that is missing": fit(slot("obs", "library_id", "s7"), KeyError, library_key="library_id"),
    "one image for several sections": fit(
        slot("obs", "half", ["a", "b"] * 20), shell=False, library_key="half", image=np.zeros((9, 9, 3), np.uint8)
    ),
    "no image for a section": fit(None, KeyError, shell=False, image={"s7": np.zeros((9, 9, 3), np.uint8)}),
    "in two groups": fit(slot("obs", "donor", ["x", "y"] * 20), group_key="donor"),
    "a group that is missing for some spots": fit(slot("obs", "donor", [None, *["x"] * 39]), group_key="donor"),
    "too few spots to hold any out": fit(lambda adata: adata[:9].copy()),
}
GRAPHS = {
    "weights that are NaN": fit(_graph(lambda chain: np.where(chain > 0, np.nan, 0))),
    "weights below zero": fit(_graph(lambda chain: -chain)),
    "weights that cancel when made symmetric": fit(_graph(lambda chain: np.triu(chain) - np.tril(chain))),
    "complex weights": fit(_graph(lambda chain: chain * 1j), shell=False),
    "no edge": fit(_graph(lambda chain: chain * 0)),
    "edges to itself alone": fit(_graph(lambda chain: np.eye(len(chain)))),
    "edges between sections": fit(_across, library_key="half"),
    "weights below zero in prediction": predict(_graph(lambda chain: -chain), shell=True),
}
IMAGES = {
    "no entry in `.uns`": fit(slot("uns", "spatial", ...), KeyError),
    "no image in the entry": fit(section_entry("images", "hires", value=...), KeyError),
    "a name that is missing": fit(None, KeyError, img_key="lowres"),
    "a dictionary in place of an image": fit(_image(lambda _: {"path": "he.tif"})),
    "a path in place of an image": fit(_image(lambda _: "he.tif")),
    "nested lists in place of an array": fit(_image(lambda image: image[:4, :4].tolist()), shell=False),
    "channels first": fit(_image(lambda image: image.transpose(2, 0, 1))),
    "four dimensions": fit(_image(lambda image: image[None])),
    "one dimension": fit(_image(np.ravel)),
    "no pixel": fit(_image(lambda image: image[:0])),
    "floating point beyond 1": fit(_image(lambda image: image.astype(np.float32))),
    "floating point below 0": fit(_image(lambda image: image / 255 - 1)),
    "NaN": fit(_image(lambda image: image * np.nan)),
    "32-bit numbers": fit(_image(lambda image: image.astype(np.int32))),
    "words": fit(_image(lambda image: image.astype(str)), shell=False),
    "of one color": fit(_image(lambda image: image * 0 + 255)),
    "of one color in prediction": predict(_image(lambda image: image * 0), shell=True),
    "of other channels than in training": predict(_image(lambda image: image[:, :, [0, 1]])),
    "scale factor missing": fit(_factor(...), KeyError),
    "scale factor zero": fit(_factor(0)),
    "scale factor a word": fit(_factor("large")),
    "scale factor a list": fit(_factor(np.array([1.0, 1.0]))),
    "scale factor so small that a pixel is a meter wide": fit(_factor(1e-6)),
    "spot diameter NaN": fit(_diameter(np.nan)),
    "spot diameter of a thousandth pixel": fit(_diameter(1e-3)),
    "microns per pixel negative": fit(section_entry("scalefactors", "mpp", value=-0.5)),
    "microns per pixel of no microscope": fit(section_entry("scalefactors", "mpp", value=1e6)),
    "microns per pixel of no assay": fit(section_entry("scalefactors", "mpp", value=50.0)),
    "scale factors that are no dictionary": fit(section_entry("scalefactors", value="1.0")),
    "metadata that is no dictionary": fit(section_entry("metadata", value="none")),
    "a file that is not there": predict(None, FileNotFoundError, shell=True, image=Path("gone.tif")),
    "a file that is no image": other("predict", _from_file("notes.png", b"notes")),
    "a TIFF that is cut off": other("predict", _from_file("cut.tif", b"II*\0\x08\0\0\0")),
    "a header that claims 30,000 x 40,000 pixels": other("predict", _from_file("huge.bmp", _bmp_header(30000, 40000))),
    "a number": fit(shell=False, image=3),
    "an empty list of stains": fit(shell=False, image=[]),
}
