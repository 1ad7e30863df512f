"""Which spots are called unlike the training: tissue of the same donor, of another, other tissue, and blurred pictures.

python benchmarks/unlike.py [--spots 40] [--publish docs/benchmark]

`kernel`, and a small network on pixels, are fitted on HER2ST C3 alone and on C3 to C5, and predict C2, a further
section of that tumor; B4, of another patient; MOB1, mouse olfactory bulb; and C2 with its picture blurred by a Gaussian
of 1, 2 and 4 pixels (0.7 um each). `--spots` of each section are drawn at random; without it, all are used.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import peers
from other_pictures import read_picture
from PIL import Image, ImageFilter

import hist2scrna as h2s
from hist2scrna import keys

TRAINING = {"C3": ["C3"], "C3 to C5": ["C3", "C4", "C5"]}
MODELS: dict[str, dict[str, Any]] = {
    "kernel": {"model": "kernel"},
    "hist2scrna, tiny": {
        "model": "hist2scrna",
        "preset": "tiny",
        "patch_px": 96,
        "training": {"max_epochs": 20, "lr": 1e-3},
    },
}
SAME_DONOR = "C2"
SIGMAS = (1, 2, 4)
UNLIKE = keys.OutputKeys().unlike_training


def section_of(adata: ad.AnnData, name: str, n_spots: int | None) -> ad.AnnData:
    """Return some spots of a section, with its picture alone."""
    rows = np.flatnonzero(adata.obs["library_id"] == name)
    if n_spots is not None and n_spots < len(rows):
        rows = np.sort(np.random.default_rng(0).choice(rows, n_spots, replace=False))
    section = adata[rows].copy()
    section.uns["spatial"] = {name: adata.uns["spatial"][name]}
    return section


def blurred(section: ad.AnnData, sigma: float) -> ad.AnnData:
    """Return a section with its picture blurred."""
    (name, entry), *_ = section.uns["spatial"].items()
    picture, scale = read_picture(entry)
    soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)))
    other = section.copy()
    factors = {**entry["scalefactors"], "tissue_blurred_scalef": scale}
    other.uns["spatial"] = {name: {"images": {"blurred": soft}, "scalefactors": factors}}
    return other


def slides(her2st: ad.AnnData, mob: ad.AnnData, n_spots: int | None) -> Iterator[tuple[str, ad.AnnData]]:
    """Yield what is predicted, by name."""
    same = section_of(her2st, SAME_DONOR, n_spots)
    yield f"{SAME_DONOR}, same donor", same
    yield "B4, another donor", section_of(her2st, "B4", n_spots)
    yield "MOB1, bulb", section_of(mob, "MOB1", n_spots)
    for sigma in SIGMAS:
        yield f"{SAME_DONOR}, blurred by {sigma} px", blurred(same, sigma)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, help="spots of each section; all by default")
    parser.add_argument("--publish", type=Path, help="folder of the documentation that shows the results")
    options = parser.parse_args()
    her2st, panel = peers.her2st(["B4", SAME_DONOR, "C3", "C4", "C5"])
    to_predict = dict(slides(her2st, peers.mob()[0], options.spots))
    rows = []
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings():
        # That tissue is unlike, and that a fit of few spots explains nothing, is what the table tells.
        warnings.simplefilter("ignore", UserWarning)
        h2s.settings.cache_dir = cache
        for trained_on, names in TRAINING.items():
            train = h2s.io.concat([section_of(her2st, name, options.spots) for name in names])
            for label, how in MODELS.items():
                model = h2s.tl.fit(train, library_key="library_id", **panel, **how)
                explained = model.training.get("variance_explained")
                told = "unknown" if explained is None else f"{explained:.0%}"
                row = {"trained on": trained_on, "spots": train.n_obs, "model": label, "explained": told}
                for name, slide in to_predict.items():
                    found = h2s.tl.predict(slide, model, library_key="library_id", copy=True)
                    row[name] = f"{(found.obs[UNLIKE] == keys.TISSUE[1]).mean():.0%}"
                print(row, flush=True)
                rows.append(row)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if options.publish is not None:
        table.to_csv(options.publish / "unlike.csv", index=False)


if __name__ == "__main__":
    main()
