"""Peak memory of a prediction of a million cells x 500 genes from features, streamed, in processes of their own.

python benchmarks/million_cells.py [--cells 1000000] [--genes 500] [--models kernel hist2scrna-lightweight]

A model is fitted on 1,000 cells; then a tenth of the cells and all of them are predicted, one layer to a Zarr store.
Prints the peak of each process, what its inputs and outputs in memory take, and what is left over, which is to be flat.
Fails if the peak is over 4 GiB, or what is left over grows by more than 300 MB.
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
from scipy import sparse

N_FEATURES, TRAINED, MOST_GIB, MOST_GROWTH_MB = 64, 1000, 4.0, 300


def cells(n: int, genes: int, *, counts: bool, seed: int = 0) -> ad.AnnData:
    """Return cells on a square of tissue whose expression follows their features."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, N_FEATURES)).astype(np.float32)
    adata = ad.AnnData(obs={"library_id": np.repeat("s", n)}, obsm={"X": features})
    adata.obsm["spatial"] = rng.uniform(0, 10 * np.sqrt(n), (n, 2))
    adata.uns["spatial"] = {"s": {"images": {}, "scalefactors": {"spot_diameter_fullres": 10.0, "mpp": 1.0}}}
    if counts:
        effect = np.random.default_rng(1).standard_normal((N_FEATURES, genes)) * 0.1
        drawn = rng.poisson(np.exp(features @ effect)).astype(np.float32)
        adata = ad.AnnData(sparse.csr_matrix(drawn), obs=adata.obs, obsm=dict(adata.obsm), uns=dict(adata.uns))
    return adata


def _held(adata: ad.AnnData) -> int:
    """Return the bytes of what an AnnData holds in memory: all but the layers, which are in the store."""
    slots = sum(np.asarray(slot).nbytes for slot in adata.obsm.values())
    return slots + int(adata.obs.memory_usage(deep=True).sum())


def predict(model: Path, n: int, genes: int) -> None:
    """Predict and print the peak: what runs in a process of its own."""
    import hist2scrna as h2s

    adata = cells(n, genes, counts=False, seed=2)
    held = _held(adata)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = h2s.tl.predict(adata, model, layers=["mean"], store=Path(folder) / "out.zarr", progress=False)
        # The features are written to the store too, and are held once more for that.
        held += _held(out)
        seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"cells": n, "peak_mb": peak, "held_mb": held / 2**20, "cpu_seconds": seconds}))


def main() -> None:
    """Fit, then predict in two processes, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--models", nargs="+", default=["kernel", "hist2scrna-lightweight"])
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.predict is not None:
        predict(options.predict, options.cells, options.genes)
        return
    import hist2scrna as h2s

    failed = []
    for name in options.models:
        training = {} if name == "kernel" else {"training": {"max_epochs": 1, "validation": 0}, "preset": "tiny"}
        train = cells(TRAINED, options.genes, counts=True)
        fitted = h2s.tl.fit(train, model=name, features_key="X", progress=False, **training)
        with tempfile.TemporaryDirectory() as folder:
            fitted.save(Path(folder) / "model")
            rows = [_measured(Path(folder) / "model", n, options.genes) for n in (options.cells // 10, options.cells)]
        over = [row["peak_mb"] - row["held_mb"] for row in rows]
        for row, left in zip(rows, over, strict=True):
            print(f"{name}: {row['cells']:,} cells, peak {row['peak_mb']:,.0f} MB, left over {left:,.0f} MB")
        print(f"{name}: ten times the cells take {rows[1]['cpu_seconds'] / rows[0]['cpu_seconds']:.1f} times as long")
        if rows[1]["peak_mb"] > MOST_GIB * 2**10 or over[1] - over[0] > MOST_GROWTH_MB:
            failed.append(name)
    if failed:
        sys.exit(f"Too much memory: {', '.join(failed)}")


def _measured(model: Path, n: int, genes: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--predict", str(model), "--cells", str(n), "--genes", str(genes)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(said.splitlines()[-1]))


if __name__ == "__main__":
    main()
