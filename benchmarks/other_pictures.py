"""What another picture of the same tissue does to the default model: stained otherwise, turned, or out of focus.

python benchmarks/other_pictures.py [--fold C2 MOB1] [--publish docs/benchmark]

The model is fitted with and without the second look at each training patch (`augment`), and predicts the held-out
section as it is; with its hematoxylin, its eosin, or both, made stronger or weaker; turned by a quarter, or mirrored,
with its spots; and blurred. Counts stay the same: what changes is the picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peers
import torch
from PIL import Image, ImageFilter

import hist2scrna as h2s
from hist2scrna.benchmarking.panel import choose_panel
from hist2scrna.fitting.augment import StainVariation

# Factors of hematoxylin, eosin and the rest.
STAINS = {
    "hematoxylin + 30 %, eosin - 15 %": (1.3, 0.85, 1.0),
    "hematoxylin - 25 %, eosin + 20 %": (0.75, 1.2, 1.0),
    "all - 30 %": (0.7, 0.7, 0.7),
    "all + 40 %": (1.4, 1.4, 1.4),
}
# Standard deviation of the blur, in diameters of a spot.
BLUR = 0.02
ROWS = 512


def read_picture(entry: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    """Return the finest picture of a section, and its pixels per full-resolution pixel."""
    path = entry.get("metadata", {}).get("source_image_path")
    if path is None:
        return np.asarray(entry["images"]["hires"]), entry["scalefactors"]["tissue_hires_scalef"]
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")), 1.0


def stained(picture: np.ndarray, factors: tuple[float, float, float]) -> np.ndarray:
    """Return the picture stained otherwise."""
    out = np.empty_like(picture)
    stain = StainVariation().stain
    scale, shift = torch.tensor([factors]), torch.zeros(1, 3)
    for start in range(0, len(picture), ROWS):
        band = torch.from_numpy(picture[start : start + ROWS].copy()).permute(2, 0, 1)[None]
        out[start : start + ROWS] = (stain(band, scale, shift)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    return out


def other_pictures(
    picture: np.ndarray, xy: np.ndarray, scale: float, diameter: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield names, pictures, and the spots' coordinates on each, in full-resolution pixels."""
    height, width = np.array(picture.shape[:2]) / scale
    x, y = xy.T
    yield "as it is", picture, xy
    for name, factors in STAINS.items():
        yield name, stained(picture, factors), xy
    yield "turned by a quarter", np.rot90(picture), np.stack([y, width - x], axis=1)
    yield "turned by a half", np.rot90(picture, 2), np.stack([width - x, height - y], axis=1)
    yield "mirrored", picture[:, ::-1], np.stack([width - x, y], axis=1)
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(BLUR * diameter * scale))
    yield f"blurred by {BLUR:.0%} of a spot", np.asarray(blurred), xy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", nargs="+", default=["C2", "MOB1"])
    parser.add_argument("--publish", type=Path, help="folder of the documentation that shows the results")
    options = parser.parse_args()
    rows = []
    for fold in options.fold:
        adata, panel = (peers.mob if fold.startswith("MOB") else peers.her2st)()
        held_out = (adata.obs["library_id"] == fold).to_numpy()
        genes = choose_panel(adata, ~held_out, **panel).genes
        train, test = (adata[own, list(genes)].copy() for own in (~held_out, held_out))
        picture, scale = read_picture(adata.uns["spatial"][fold])
        factors = adata.uns["spatial"][fold]["scalefactors"]
        for augment in (True, False):
            model = h2s.tl.fit(train, library_key="library_id", model="kernel", training={"augment": augment})
            for name, other, xy in other_pictures(
                picture, np.asarray(test.obsm["spatial"]), scale, factors["spot_diameter_fullres"]
            ):
                section = test.copy()
                section.obsm["spatial"] = xy
                section.uns["spatial"] = {
                    fold: {
                        "images": {"other": np.ascontiguousarray(other)},
                        "scalefactors": {**factors, "tissue_other_scalef": scale},
                    }
                }
                found = h2s.tl.evaluate(section, model, library_key="library_id").results
                score = {
                    "held out": fold,
                    "seen twice in training": "yes" if augment else "no",
                    "picture of the held-out section": name,
                    "Pearson": found["headline"]["pearson"],
                    "depth-partial": found["headline"]["depth_partial"],
                    "log-likelihood": found["counts"]["model"]["log_likelihood"],
                }
                print(score, flush=True)
                rows.append(score)
    table = pd.DataFrame(rows)
    print(table.round(4).to_string(index=False))
    if options.publish is not None:
        table.to_csv(options.publish / "other_pictures.csv", index=False, float_format="%.3f")


if __name__ == "__main__":
    main()
