"""Peak memory and time of a prediction on a whole slide of 50,000 x 50,000 px, in a process of its own.

python benchmarks/whole_slide.py [--side 50000] [--spots 2000] [--folder /tmp]

The slide is written to a temporary folder, tile by tile: a pyramidal TIFF, JPEG in tiles of 512 px, 0.25 um a pixel, of
simulated tissue with nuclei (0.4 GB). The spots, 55 um wide, lie on a hexagonal lattice over all of it. Fails if
the peak is over 4 GiB.
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

import anndata as ad
import numpy as np

TILE, MPP, SPOT_UM, GENES = 512, 0.25, 55.0, 100
FACTORS = (1, 4, 16, 64)
MOST_GIB = 4.0


def field(side: int = 2048, seed: int = 0) -> np.ndarray:
    """Return a square of tissue that joins itself at its edges: stroma, glands and nuclei of about 8 um."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)

    def texture(sigma: float) -> np.ndarray:
        smooth = gaussian_filter(rng.standard_normal((side, side)).astype(np.float32), sigma, mode="wrap")
        return smooth / smooth.std()

    gland, fiber, nuclei = texture(120) > 0.3, texture(6), texture(10) > 1.4
    pixels = np.where(gland[..., None], [196, 140, 190], [232, 170, 200]) + 8 * fiber[..., None]
    pixels = np.where(nuclei[..., None], [96, 60, 140], pixels) + 4 * texture(0.7)[..., None]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_slide(path: Path, side: int) -> None:
    """Write the levels, each from the field at its scale, repeated; nothing larger than a tile is made."""
    import tifffile
    from PIL import Image

    fine = field()

    def tiles(factor: int):
        own = len(fine) // factor
        repeated = np.asarray(Image.fromarray(fine).resize((own, own), Image.Resampling.BOX))
        repeated = np.tile(repeated, (-(-2 * TILE // own) + 1,) * 2 + (1,))
        for y in range(0, -(-side // factor), TILE):
            for x in range(0, -(-side // factor), TILE):
                top, left = y % own, x % own
                yield np.ascontiguousarray(repeated[top : top + TILE, left : left + TILE])

    options = {"dtype": "uint8", "photometric": "rgb", "tile": (TILE, TILE), "compression": "jpeg", "metadata": None}
    options |= {"compressionargs": {"level": 75}, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for factor in FACTORS:
            edge = -(-side // factor)
            per_cm = 1e4 / (MPP * factor)
            subifds = {"subifds": len(FACTORS) - 1} if factor == 1 else {"subfiletype": 1}
            writer.write(tiles(factor), shape=(edge, edge, 3), resolution=(per_cm, per_cm), **subifds, **options)


def lattice(side: int, n: int) -> np.ndarray:
    """Return about `n` centers on a hexagonal lattice over the slide."""
    pitch = side / np.sqrt(n * np.sqrt(3) / 2)
    rows = []
    for i, y in enumerate(np.arange(pitch / 2, side, pitch * np.sqrt(3) / 2)):
        x = np.arange(pitch * (0.5 + 0.5 * (i % 2)), side, pitch)
        rows.append(np.column_stack([x, np.full(len(x), y)]))
    return np.concatenate(rows)


def train(folder: Path) -> None:
    """Save a tiny model on patches of 224 px, so that the finest level is read; trained on noise for one epoch."""
    import hist2scrna as h2s

    rng = np.random.default_rng(0)
    adata = ad.AnnData(
        X=rng.poisson(1.0, (64, GENES)).astype(np.float32),
        obsm={"spatial": np.stack([np.arange(64) % 8, np.arange(64) // 8], axis=1) * 400.0 + 300},
    )
    picture = field(4096)
    model = h2s.tl.fit(
        adata,
        model="hist2scrna",
        preset="tiny",
        patch_px=224,
        image=picture,
        mpp=MPP,
        patch_um=1.5 * SPOT_UM,
        training={"max_epochs": 1, "validation": 0},
        progress=False,
    )
    model.save(folder)


def predict(slide: Path, model: Path, side: int, n: int) -> dict[str, float]:
    """Predict all spots on the slide."""
    import hist2scrna as h2s

    warnings.filterwarnings("ignore")
    xy = lattice(side, n)
    adata = ad.AnnData(obs={"i": np.arange(len(xy))}, obsm={"spatial": xy})
    imported = peak_gib()
    start = time.perf_counter()
    out = h2s.tl.predict(adata, h2s.TrainedModel.load(model), image=slide, mpp=MPP, progress=False)
    seconds = time.perf_counter() - start
    finite = bool(np.isfinite(out.layers["hist2scrna_mean"]).all())
    return {
        "spots": len(xy),
        "finite": finite,
        "seconds": round(seconds, 1),
        "spots_per_s": round(len(xy) / seconds, 1),
        "imported_gib": round(imported, 2),
        "peak_gib": round(peak_gib(), 2),
    }


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=50_000)
    parser.add_argument("--spots", type=int, default=2_000)
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, slide, model = options.child
        if what == "train":
            train(Path(model))
        else:
            print(json.dumps(predict(Path(slide), Path(model), options.side, options.spots)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        slide, model = Path(folder) / "slide.tif", Path(folder) / "model"
        start = time.perf_counter()
        write_slide(slide, options.side)
        print(f"{slide.stat().st_size / 1e9:.2f} GB written in {time.perf_counter() - start:.0f} s", flush=True)
        command = [sys.executable, __file__, "--side", str(options.side), "--spots", str(options.spots), "--child"]
        # The peak of a process begins at that of the one that starts it: this one never grows.
        for what in ("train", "predict"):
            done = subprocess.run([*command, what, slide, model], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(found)
    if found["peak_gib"] > MOST_GIB or not found["finite"]:
        raise SystemExit(f"over {MOST_GIB} GiB, or not finite")


if __name__ == "__main__":
    main()
