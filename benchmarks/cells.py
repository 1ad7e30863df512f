"""Time and peak memory of fit and predict on many single cells.

python benchmarks/cells.py [--cells 100000] [--genes 300] [--epochs 1]

Cells lie at random over a picture of noise at 0.5 um a pixel, some 10 um apart; patches of 20 um, the neighbors of the
Delaunay triangulation within 30 um, the `tiny` preset. Runs in one fresh process: its peak is that of the whole.
"""

from __future__ import annotations

import argparse
import time
import warnings

import anndata as ad
import numpy as np
from scipy import sparse

import hist2scrna as h2s
from hist2scrna.benchmarking.process import peak_memory

MPP, SPACING_UM = 0.5, 10.0


def cells(n: int, n_genes: int) -> ad.AnnData:
    """Return cells with sparse counts and types over one picture."""
    rng = np.random.default_rng(0)
    edge = int(np.ceil(np.sqrt(n) * SPACING_UM / MPP))
    picture = rng.integers(0, 256, (edge // 8 + 1, edge // 8 + 1, 3), dtype=np.uint8)
    picture = picture.repeat(8, axis=0).repeat(8, axis=1)[:edge, :edge]
    return ad.AnnData(
        X=sparse.random_array((n, n_genes), density=0.1, rng=rng, format="csr", dtype=np.float32).ceil(),
        obs={"cell_type": np.array(["a", "b", "c"])[rng.integers(0, 3, n)]},
        obsm={"spatial": rng.uniform(20, edge - 20, (n, 2))},
        uns={
            "spatial": {
                "slide": {
                    "images": {"hires": picture},
                    "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 20.0, "mpp": MPP},
                }
            }
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    adata = cells(options.cells, options.genes)
    start = time.perf_counter()
    model = h2s.tl.fit(
        adata,
        model="hist2scrna",
        preset="tiny",
        patch_px=24,
        patch_um=20.0,
        neighbors=h2s.Neighbors("delaunay", radius_um=30.0),
        labels_key="cell_type",
        training={"batch_size": 512, "max_epochs": options.epochs},
    )
    fitted = time.perf_counter()
    model.predict(adata)
    done = time.perf_counter()
    peak = peak_memory() / 2**30
    print(
        f"{adata.n_obs:,} cells x {adata.n_vars} genes: fit {fitted - start:.0f} s ({options.epochs} epochs), ", end=""
    )
    print(f"predict {done - fitted:.0f} s, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
