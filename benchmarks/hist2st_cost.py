"""Time and memory of Hist2ST at its default size, for one section of 256, 512, 1,024 and 2,000 spots.

python benchmarks/hist2st_cost.py [--spots 256 512 1024 2000] [--precision 32-true]

Each size runs in a process of its own, so that the peak of one is not that of another: one training step (the section,
its five augmented views, and Adam), then the prediction of the section. Random pixels and counts of 785 genes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings

import anndata as ad
import numpy as np

import hist2scrna as h2s
from hist2scrna.benchmarking.process import peak_memory

PITCH, SPOT = 100, 68


def section(n: int) -> ad.AnnData:
    """Return spots on a square lattice over a picture of noise."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n)))
    column, row = np.arange(n) % side, np.arange(n) // side
    edge = (side + 1) * PITCH
    picture = rng.integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    return ad.AnnData(
        X=rng.poisson(0.5, (n, 785)).astype(np.float32),
        obs={"array_col": column, "array_row": row},
        obsm={"spatial": np.column_stack([column + 1, row + 1]) * float(PITCH)},
        uns={
            "spatial": {
                "noise": {
                    "images": {"hires": picture},
                    "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": float(SPOT)},
                }
            }
        },
    )


def measure(n: int, precision: str) -> dict[str, float]:
    """Return seconds and peak memory of a training step and of a prediction."""
    warnings.filterwarnings("ignore")
    adata = section(n)
    start = time.perf_counter()
    model = h2s.tl.fit(adata, model="hist2st", training={"max_epochs": 1, "precision": precision}, progress=False)
    fitted = time.perf_counter()
    trained = peak_memory() / 2**30
    model.predict(adata, progress=False)
    return {"spots": n, "step_s": fitted - start, "predict_s": time.perf_counter() - fitted, "peak_gib": trained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, nargs="+", default=[256, 512, 1024, 2000])
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.precision)))
        return
    rows = []
    for n in options.spots:
        command = [sys.executable, __file__, "--one", str(n), "--precision", options.precision]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(rows[-1], flush=True)
    first = rows[0]
    print("spots  step, x the first  prediction, x the first  peak GiB of the step")
    for row in rows:
        print(
            f"{row['spots']:5}  {row['step_s'] / first['step_s']:17.1f}  "
            f"{row['predict_s'] / first['predict_s']:23.1f}  {row['peak_gib']:20.1f}"
        )


if __name__ == "__main__":
    main()
