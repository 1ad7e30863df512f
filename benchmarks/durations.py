"""How long fits and predictions take, in units of encoding 1,000 spots by the built-in encoder.

python benchmarks/durations.py [--spots 1000 5000 20000] [--genes 2000] [--patches 48] [--seconds]

Everything runs in this process with one thread, and counts the time of the processor. The unit is what a prediction of
1,000 spots encodes; a fit of the default model encodes each spot twice. Models on features read features as wide as
those of the encoder, drawn at random; networks on patches a simulated section. Rates by spot are measured on few spots.
`--seconds` prints seconds as well.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import anndata as ad
import numpy as np
from scipy import sparse

import hist2scrna as h2s

WIDTH, N_PROGRAMS, PITCH, UNIT = 3704, 10, 100.0, 1000
# On patches: spots of one simulated section, 224 px.
# The networks are compiled for so many pixels as these have.
ON_PATCHES = 192


def spent(work: Any) -> float:
    """Return the processor time of a piece of work, in seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def spots(n: int, genes: int) -> ad.AnnData:
    """Return spots in two sections on square lattices, whose counts follow a few directions of their features."""
    rng = np.random.default_rng(0)
    state = rng.standard_normal((n, N_PROGRAMS)).astype(np.float32)
    look, loadings = rng.standard_normal((N_PROGRAMS, WIDTH)), 0.3 * rng.standard_normal((N_PROGRAMS, genes))
    features = state @ look.astype(np.float32)
    features += rng.standard_normal(features.shape, dtype=np.float32)
    counts = rng.poisson(np.exp(state @ loadings - 1.5)).astype(np.float32)
    counts[:, 0] += 1
    place, side = np.arange(n) // 2, int(np.ceil(np.sqrt(n / 2)))
    adata = ad.AnnData(
        sparse.csr_matrix(counts),
        obs={"library_id": np.array(["s0", "s1"])[np.arange(n) % 2]},
        obsm={"X_f": features, "spatial": np.stack([place % side, place // side], axis=1) * PITCH},
    )
    scale = {"spot_diameter_fullres": 55.0, "mpp": 1.0}
    adata.uns["spatial"] = {name: {"images": {}, "scalefactors": scale} for name in ("s0", "s1")}
    return adata


def encoding(n: int) -> float:
    """Return the time of encoding 1,000 spots once, from so many of them."""
    (section,) = h2s.datasets.simulate(n_sections=1, n_spots=2 * n, seed=0)
    h2s.pp.extract_features(section[:n].copy(), "imagenet+morphology", progress=False)
    first = spent(lambda: h2s.pp.extract_features(section[:n].copy(), "imagenet+morphology", progress=False))
    both = spent(lambda: h2s.pp.extract_features(section.copy(), "imagenet+morphology", progress=False))
    # Loading and compiling the networks cost the same for any number.
    return (both - first) / n * UNIT


def fitted(adata: ad.AnnData, **options: Any) -> tuple[float, h2s.TrainedModel]:
    """Return the time of a fit, and the model."""
    kept: list[h2s.TrainedModel] = []
    seconds = spent(lambda: kept.append(h2s.tl.fit(adata, progress=False, **options)))
    return seconds, kept[0]


def by_epoch(adata: ad.AnnData, **options: Any) -> tuple[float, h2s.TrainedModel]:
    """Return the time of an epoch, from fits of one and of three, and the model."""
    one, three = (fitted(adata, training={"max_epochs": n, "validation": 0, "patience": 0}, **options) for n in (1, 3))
    return (three[0] - one[0]) / 2, three[1]


def predicting(adata: ad.AnnData, model: h2s.TrainedModel) -> float:
    """Return the time of a prediction from what is at hand."""
    return spent(lambda: h2s.tl.predict(adata.copy(), model, progress=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--patches", type=int, default=48)
    parser.add_argument("--seconds", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    h2s.settings.verbosity = "error"
    unit = encoding(options.patches)

    def row(what: str, seconds: float, n: int) -> None:
        shown = f" {seconds:10.1f} s" if options.seconds else ""
        print(f"{what:<62} {n:>7,} spots {seconds / unit:8.3f}{shown}", flush=True)

    row("encoding, once", unit, UNIT)
    for n in options.spots:
        adata = spots(n, options.genes)
        seconds, model = fitted(adata, model="kernel", features_key="X_f")
        row("kernel, fit from features", seconds, n)
        row("kernel, prediction from features", predicting(adata, model), n)
        lightweight = {"model": "hist2scrna-lightweight", "features_key": "X_f"}
        for preset in ("tiny", "small"):
            seconds, model = by_epoch(adata, preset=preset, **lightweight)
            row(f"hist2scrna-lightweight {preset}, an epoch from features", seconds, n)
        row("hist2scrna-lightweight small, prediction from features", predicting(adata, model), n)
    (section,) = h2s.datasets.simulate(n_sections=1, n_spots=ON_PATCHES, n_genes=options.genes, seed=0)
    for preset in ("tiny", "small"):
        seconds, model = by_epoch(section, model="hist2scrna", preset=preset, patch_px=224)
        row(f"hist2scrna {preset}, 224 px, an epoch", seconds * UNIT / ON_PATCHES, UNIT)
        row(f"hist2scrna {preset}, 224 px, prediction", predicting(section, model) * UNIT / ON_PATCHES, UNIT)


if __name__ == "__main__":
    main()
