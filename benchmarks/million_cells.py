"""How time and memory of fit and prediction from features grow to a million cells, each in a process of its own.

python benchmarks/million_cells.py [--sizes 1000 10000 100000 1000000] [--genes 500] [--models kernel ...]
                                   [--works fit predict] [--given JSON]

Simulated features; a fit on as many cells as the sizes say, a prediction by a model of 1,000 cells, one layer streamed
to a Zarr store. Processor time with one thread. Prints the peak of resident memory, and what is left of it without what
goes in and comes out: features, counts, columns of `.obs`. Growth is the exponent over the last tenfold step. Fails if
a prediction is over 4 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from scipy import sparse

N_FEATURES, TRAINED, MOST_GIB = 64, 1000, 4.0
# Of the counts, so that they are written where they stay; and cells that are drawn at once.
MOST_COUNTED, DRAWN = 0.15, 10_000
LOG_RATE = -2.6
NETWORK = {"training": {"max_epochs": 1, "validation": 0, "patience": 0}, "preset": "tiny"}
OPTIONS: dict[str, dict[str, Any]] = {"kernel": {}, "hist2scrna-lightweight": NETWORK}


def cells(n: int, genes: int, *, counts: bool, seed: int = 0) -> ad.AnnData:
    """Return cells in two sections, whose expression follows their features."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, N_FEATURES), dtype=np.float32)
    side = int(np.ceil(np.sqrt(n / 2)))
    place = np.arange(n) // 2
    adata = ad.AnnData(
        sparse_counts(features, genes, rng) if counts else None,
        obs={"library_id": np.array(["s0", "s1"])[np.arange(n) % 2]},
        obsm={"X": features, "spatial": 10.0 * np.stack([place % side, place // side], axis=1)},
    )
    scale = {"spot_diameter_fullres": 10.0, "mpp": 1.0}
    adata.uns["spatial"] = {name: {"images": {}, "scalefactors": scale} for name in ("s0", "s1")}
    return adata


def sparse_counts(features: np.ndarray, genes: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """Return Poisson counts, nine in a hundred above zero, `(n, genes)`; hardly more than themselves is ever held."""
    n = len(features)
    effect = np.random.default_rng(1).standard_normal((N_FEATURES, genes)).astype(np.float32) * 0.1
    most = int(MOST_COUNTED * n * genes)
    data, indices = np.empty(most, dtype=np.float32), np.empty(most, dtype=np.int32)
    indptr = np.zeros(n + 1, dtype=np.int32)
    for start in range(0, n, DRAWN):
        rows = slice(start, min(start + DRAWN, n))
        block = sparse.csr_matrix(rng.poisson(np.exp(features[rows] @ effect + LOG_RATE)))
        filled = slice(indptr[rows.start], indptr[rows.start] + block.nnz)
        data[filled], indices[filled] = block.data, block.indices
        indptr[rows.start + 1 : rows.stop + 1] = block.indptr[1:] + indptr[rows.start]
    return sparse.csr_matrix((data[: indptr[-1]], indices[: indptr[-1]], indptr), shape=(n, genes), copy=False)


def held(adata: ad.AnnData) -> int:
    """Return the bytes of what an AnnData holds in memory: all but the layers, which are in the store."""
    x = adata.X
    counts = 0 if x is None else x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
    slots = sum(np.asarray(slot).nbytes for slot in adata.obsm.values())
    return counts + slots + int(adata.obs.memory_usage(deep=True).sum())


def work(what: str, name: str, n: int, genes: int, given: dict[str, Any], folder: Path) -> dict[str, float]:
    """Fit or predict, and return what that took: what runs in a process of its own."""
    import torch

    import hist2scrna as h2s
    from hist2scrna.benchmarking.process import peak_memory

    torch.set_num_threads(1)
    h2s.settings.verbosity = "error"
    adata = cells(n, genes, counts=what == "fit", seed=2)
    known = held(adata)
    start = time.process_time()
    if what == "fit":
        h2s.tl.fit(adata, model=name, features_key="X", progress=False, **OPTIONS[name]).save(folder / "fitted")
    else:
        store = folder / "out.zarr"
        out = h2s.tl.predict(adata, folder / "model", layers=["mean"], store=store, progress=False, **given)
        # The columns of the result are its own; the matrices are those of the input.
        known += int(out.obs.memory_usage(deep=True).sum())
    seconds = time.process_time() - start
    peak = peak_memory()
    stored = sum(file.stat().st_size for file in (folder / "out.zarr" / "layers").rglob("*") if file.is_file())
    return {"peak": peak / 2**30, "beyond": (peak - known) / 2**30, "seconds": seconds, "stored": stored / 2**30}


def measured(what: str, name: str, n: int, options: argparse.Namespace, model: Path) -> dict[str, float]:
    """Return what a process of its own found."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").symlink_to(model)
        command = [sys.executable, __file__, "--one", what, name, str(n), folder, "--genes", str(options.genes)]
        command += ["--given", json.dumps(options.given)]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=one_thread).stdout
    return dict(json.loads(said.splitlines()[-1]))


def main() -> None:
    """Measure each model and piece of work at each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--models", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--works", nargs="+", default=["fit", "predict"], choices=["fit", "predict"])
    parser.add_argument("--given", type=json.loads, default={}, help="further arguments of predict, as JSON")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.one is not None:
        what, name, n, folder = options.one
        print(json.dumps(work(what, name, int(n), options.genes, options.given, Path(folder))))
        return
    import hist2scrna as h2s

    h2s.settings.verbosity = "error"
    failed = []
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            train = cells(TRAINED, options.genes, counts=True)
            model = Path(folder) / "model"
            h2s.tl.fit(train, model=name, features_key="X", progress=False, **OPTIONS[name]).save(model)
            for what in options.works:
                failed += report(what, name, options, model)
    if failed:
        sys.exit(f"Too much memory: {', '.join(failed)}")


def report(what: str, name: str, options: argparse.Namespace, model: Path) -> list[str]:
    """Print a line for each size, and what grew; return the name of a prediction that took too much memory."""
    print(f"{name}, {what}:\n{'cells':>10s} {'seconds':>8s} {'growth':>7s} {'GiB':>6s} {'beyond':>7s} {'stored':>7s}")
    last: tuple[int, float] | None = None
    over = False
    for n in options.sizes:
        found = measured(what, name, n, options, model)
        growth = "" if last is None else f"{np.log(found['seconds'] / last[1]) / np.log(n / last[0]):.2f}"
        last = n, found["seconds"]
        sizes = f"{found['peak']:6.2f} {found['beyond']:7.2f} {found['stored']:7.2f}"
        print(f"{n:10,d} {found['seconds']:8.1f} {growth:>7s} {sizes}", flush=True)
        over |= what == "predict" and found["peak"] > MOST_GIB
    return [name] if over else []


if __name__ == "__main__":
    main()
