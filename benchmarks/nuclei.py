"""Nuclei of whole images: time to find them, and time and peak memory of `ghist` on 100,000 of them.

python benchmarks/nuclei.py --image section.jpg --mpp 0.735
python benchmarks/nuclei.py [--nuclei 100000] [--side 20000] [--genes 300] [--tile-px 256] [--labels] [--folder /tmp]

With `--image`, `pp.segment_nuclei` finds the nuclei of it: processor time by megapixel of 0.5 um, nuclei, peak memory.

Without, an image of simulated tissue is written to a temporary folder, a pyramidal TIFF of 0.25 um a pixel. Its nuclei
are ellipses on a jittered lattice, drawn from their axes or, with `--labels`, in a label image (Zarr) on the pixels
of the image. `ghist` (`tiny`) is fitted for one epoch to a corner of 512 um of such tissue, and predicts them all, in a
process of its own, whose peak is given with nothing taken off. Fails if it is over 6 GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from whole_slide import MPP, field, write_slide

import hist2scrna as h2s
from hist2scrna.benchmarking.process import peak_memory

TILE_UM, TYPES, CHUNK = 64.0, ("B", "T", "Malignant"), 1024
MOST_GIB = 6.0


def peak_gib() -> float:
    """Return the most memory that this process held, and the largest of those that it started."""
    return peak_memory() / 2**30 + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def segment(image: Path, mpp: float) -> None:
    """Find the nuclei of an image."""
    start = time.perf_counter(), time.process_time()
    nuclei = h2s.pp.segment_nuclei(image, mpp=mpp, progress=False)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    (entry,) = nuclei.uns["spatial"].values()
    name, small = next(iter(entry["images"].items()))
    scale = entry["scalefactors"][f"tissue_{name}_scalef"]
    megapixels = small.shape[0] * small.shape[1] / scale**2 * (mpp / 0.5) ** 2 / 1e6
    print(
        f"{nuclei.n_obs:,} nuclei in {megapixels:.0f} megapixels of 0.5 um: {cpu / megapixels:.2f} s of processor time "
        f"a megapixel, {cpu:.0f} s in all ({wall:.0f} s on the clock), peak {peak_gib():.2f} GiB"
    )


def lattice(side: int, n: int, seed: int = 0) -> ad.AnnData:
    """Return about `n` nuclei over a square of `side` pixels, as `pp.segment_nuclei` describes them."""
    rng = np.random.default_rng(seed)
    edge = round(np.sqrt(n))
    pitch = side / edge
    xy = (np.stack(np.meshgrid(np.arange(edge), np.arange(edge)), axis=-1).reshape(-1, 2) + 0.5) * pitch
    xy += rng.uniform(-0.25, 0.25, xy.shape) * pitch
    long = rng.uniform(7, 11, len(xy))
    obs = {"major_axis_um": long, "minor_axis_um": long * rng.uniform(0.6, 1, len(xy))}
    obs |= {"orientation_deg": rng.uniform(0, 180, len(xy)), "nucleus": 1 + np.arange(len(xy))}
    names = pd.Index([f"n{i}" for i in range(len(xy))])
    return ad.AnnData(obs=pd.DataFrame(obs, index=names), obsm={"spatial": xy})


def write_labels(path: Path, nuclei: ad.AnnData, side: int) -> None:
    """Write a label image, chunk by chunk."""
    import zarr

    from hist2scrna.images.nucleus_masks import DrawnMask

    axes = nuclei.obs[["major_axis_um", "minor_axis_um"]].to_numpy() / MPP
    angle = nuclei.obs["orientation_deg"].to_numpy()
    drawn = DrawnMask(nuclei.obsm["spatial"], axes, angle, np.arange(nuclei.n_obs))
    labels = zarr.create_array(store=path, shape=(side, side), chunks=(CHUNK, CHUNK), dtype="int32")
    for y in range(0, side, CHUNK):
        for x in range(0, side, CHUNK):
            high, wide = min(CHUNK, side - y), min(CHUNK, side - x)
            labels[y : y + high, x : x + wide] = drawn.read(x, y, wide, high).astype(np.int32)


def train(folder: Path, n_genes: int, tile_px: int) -> None:
    """Save a model that one epoch on counts of no meaning has fitted."""
    picture = field()
    cells = lattice(len(picture), 1000)
    rng = np.random.default_rng(0)
    adata = ad.AnnData(rng.poisson(0.5, (cells.n_obs, n_genes)).astype(np.float32), obs=cells.obs, obsm=cells.obsm)
    adata.obs["cell_type"] = pd.Categorical(rng.choice(TYPES, adata.n_obs))
    training = {"max_epochs": 1, "validation": 0, "accelerator": "cpu"}
    options: dict[str, Any] = {"tile_px": tile_px, "tile_um": TILE_UM, "labels_key": "cell_type", "mpp": MPP}
    model = h2s.tl.fit(adata, model="ghist", preset="tiny", image=picture, training=training, progress=False, **options)
    model.save(folder)


def predict(folder: Path, side: int, n: int) -> dict[str, Any]:
    """Predict all nuclei of the image."""
    warnings.filterwarnings("ignore")
    nuclei, labels = lattice(side, n), folder / "labels.zarr"
    imported = peak_gib()
    start = time.perf_counter(), time.process_time()
    how = {"nuclei": labels} if labels.exists() else {}
    model = h2s.TrainedModel.load(folder / "model")
    out = h2s.tl.predict(nuclei, model, image=folder / "slide.tif", mpp=MPP, accelerator="cpu", progress=False, **how)
    return {
        "nuclei": out.n_obs,
        "genes": out.n_vars,
        "predicted": int(np.isfinite(out.layers["hist2scrna_mean"]).all(axis=1).sum()),
        "tiles": int(out.obs["hist2scrna_tile"].nunique()),
        "seconds": round(time.perf_counter() - start[0]),
        "processor_seconds": round(time.process_time() - start[1]),
        "imported_gib": round(imported, 2),
        "peak_gib": round(peak_gib(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="find the nuclei of this image")
    parser.add_argument("--mpp", type=float, help="its microns per pixel, where it does not say")
    parser.add_argument("--nuclei", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--tile-px", type=int, default=256)
    parser.add_argument("--labels", action="store_true", help="nuclei as a label image")
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.image is not None:
        segment(options.image, options.mpp)
        return
    if options.child:
        what, folder = options.child[0], Path(options.child[1])
        if what == "train":
            train(folder / "model", options.genes, options.tile_px)
        else:
            print(json.dumps(predict(folder, options.side, options.nuclei)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_slide(Path(folder) / "slide.tif", options.side)
        if options.labels:
            write_labels(Path(folder) / "labels.zarr", lattice(options.side, options.nuclei), options.side)
        asked = {"side": options.side, "nuclei": options.nuclei, "genes": options.genes, "tile-px": options.tile_px}
        given = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
        for what in ("train", "predict"):
            command = [sys.executable, __file__, *given, "--child", what, folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(found)
    if found["peak_gib"] > MOST_GIB or found["predicted"] < found["nuclei"]:
        raise SystemExit(f"over {MOST_GIB} GiB, or not all were predicted")


if __name__ == "__main__":
    main()
