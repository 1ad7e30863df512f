"""Dense cells: the image encoded once by tiles against a patch a cell, in time and in what models make of the features.

python benchmarks/dense_cells.py [--cells 20000] [--patches 48] [--quality-cells 300] [--seeds 0 1 2]

Time: cells of 10 um at random, 10 um apart on the average, over a picture of noise at 0.5 um a pixel; the pixels that
pass through the networks, which are the same, and processor time, one thread, of features by `imagenet-tiles` of all
cells and by `imagenet` of a few, taken for as many. Quality: simulated sections of nuclei, three of which train and a
fourth is predicted; the Pearson correlation by gene of `ridge` and of `kernel` on either, for each seed.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from cells import cells

import hist2scrna as h2s
from hist2scrna.encoders import Encoder, prepare_encoder
from hist2scrna.fitting.encode_tiles import TilePass
from hist2scrna.fitting.look import PLAIN
from hist2scrna.spots.patches import encoder_patch_size
from hist2scrna.spots.read import Spots, read_spots
from hist2scrna.spots.sections import open_sections
from hist2scrna.spots.source import Source

TILES, PATCHES = "imagenet-tiles", "imagenet"


def spots_of(adata: ad.AnnData, encoder: Encoder) -> Spots:
    """Read cells with the patches of an encoder."""
    return read_spots(open_sections(adata, Source()), patch=encoder_patch_size(encoder))


def pixels(n_cells: int) -> float:
    """Return the pixels that pass through the networks for patches, of those for tiles."""
    cpu, tiles, patches = torch.device("cpu"), prepare_encoder(TILES), prepare_encoder(PATCHES)
    read = spots_of(cells(n_cells, 2), tiles)
    one_pass = TilePass(tiles, read, PLAIN, cpu, "32-true", n_cells, 1, None, None)
    by_tiles = len(one_pass.tiles(np.arange(n_cells))) * one_pass.side**2
    return n_cells * len(patches.fields_of_view) * (patches.px // patches.widest) ** 2 / by_tiles


def seconds(encoder: str, n_cells: int, times: int) -> float:
    """Return the processor time of the features of cells, the last time."""
    adata = cells(n_cells, 2)
    for _ in range(times):
        start = time.process_time()
        h2s.pp.extract_features(adata, encoder, accelerator="cpu", progress=False)
        taken = time.process_time() - start
    return taken


def quality(n_cells: int, seed: int) -> list[dict[str, Any]]:
    """Return the scores of models on each kind of features."""
    sections = h2s.datasets.simulate(n_sections=4, n_spots=n_cells, n_genes=60, level="cell", mpp=0.5, seed=seed)
    *train, test = sections
    rows = []
    for encoder in (PATCHES, TILES):
        for adata in sections:
            h2s.pp.extract_features(adata, encoder, key_added="X_seen", accelerator="cpu", progress=False)
        together = h2s.io.concat(train)
        for model in ("ridge", "kernel"):
            fitted = h2s.tl.fit(together, model=model, features_key="X_seen", progress=False)
            headline = h2s.tl.evaluate(test, fitted, progress=False).headline
            rows.append({"seed": seed, "model": model, "features": encoder, "pearson": headline["pearson"]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--patches", type=int, default=48)
    parser.add_argument("--quality-cells", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    h2s.settings.verbosity = "error"
    torch.set_num_threads(1)
    found = pd.DataFrame([row for seed in options.seeds for row in quality(options.quality_cells, seed)])
    if len(found):
        print(found.pivot_table(index=["model", "seed"], columns="features", values="pearson").round(4).to_string())
    if options.cells:
        ratio = pixels(100_000)
        print(f"100,000 cells: patches are {ratio:.1f} times the pixels of the tiles, through the same networks")
        # Patches are timed when the network has been compiled; tiles with that.
        a_patch = seconds(PATCHES, options.patches, 2) / options.patches
        ratio = a_patch * options.cells / seconds(TILES, options.cells, 1)
        print(f"{options.cells:,} cells: patches take {ratio:.1f} times the time of tiles")


if __name__ == "__main__":
    main()
